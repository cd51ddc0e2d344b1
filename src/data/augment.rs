//! From RGB bytes to the numbers that a model sees, with random flips and rotations on the way.

use rand::Rng;

use crate::distributions::{standard_uniform, uniform};
use crate::geometric::Geometric;
use crate::settings::Augmentation;

/// What happens to one image: by the first settings, or by EDM's with its labels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Change {
    Plain(Transform),
    Labelled(Geometric),
}

impl Change {
    pub const NONE: Self = Self::Plain(Transform::NONE);

    pub fn sample(settings: &Augmentation, rng: &mut impl Rng) -> Self {
        match settings.probability {
            Some(probability) if settings.enabled => {
                let flip = settings.horizontal_flip;
                Self::Labelled(Geometric::sample(probability as f32, flip, rng))
            }
            _ => Self::Plain(Transform::sample(settings, rng)),
        }
    }

    /// Writes the image `rgb` `[size, size, 3]` to `out` `[3, size, size]`, with 0..=255 brought to
    /// -1..=1.
    pub fn write(&self, rgb: &[u8], size: usize, out: &mut [f32]) {
        match self {
            Self::Plain(transform) => write(rgb, size, *transform, out),
            Self::Labelled(geometric) => geometric.write(rgb, size, out, scale),
        }
    }

    /// What the network is told of it; nothing where that is no part of the settings.
    pub fn labels(&self) -> &[f32] {
        match self {
            Self::Plain(_) => &[],
            Self::Labelled(geometric) => &geometric.labels,
        }
    }
}

/// A flip and a rotation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Transform {
    pub flip: bool,
    /// Clockwise, in radians.
    pub angle: f32,
}

impl Transform {
    pub const NONE: Self = Self { flip: false, angle: 0.0 };

    pub fn sample(settings: &Augmentation, rng: &mut impl Rng) -> Self {
        if !settings.enabled {
            return Self::NONE;
        }
        let flip = settings.horizontal_flip && standard_uniform(rng) < 0.5;
        let most = settings.rotation_degrees.to_radians() as f32;
        let angle = if most > 0.0 { uniform(rng, -most, most) } else { 0.0 };
        Self { flip, angle }
    }
}

/// Writes the image `rgb` `[size, size, 3]` to `out` `[3, size, size]`, with 0..=255 brought to
/// -1..=1.
///
/// Rotation is about the centre, bilinear; what comes from outside repeats the edge.
fn write(rgb: &[u8], size: usize, transform: Transform, out: &mut [f32]) {
    let plane = size * size;
    let (sin, cos) = transform.angle.sin_cos();
    let middle = (size as f32 - 1.0) / 2.0;
    let last = size as f32 - 1.0;
    for y in 0..size {
        for x in 0..size {
            let to = y * size + x;
            let from_x = if transform.flip { size - 1 - x } else { x };
            if transform.angle == 0.0 {
                let pixel = 3 * (y * size + from_x);
                for channel in 0..3 {
                    out[channel * plane + to] = scale(f32::from(rgb[pixel + channel]));
                }
                continue;
            }
            // Where this pixel comes from: turned back about the middle, and no further than the
            // edge.
            let (dx, dy) = (x as f32 - middle, y as f32 - middle);
            let mut at_x = (middle + cos * dx + sin * dy).clamp(0.0, last);
            let at_y = (middle + cos * dy - sin * dx).clamp(0.0, last);
            if transform.flip {
                at_x = last - at_x;
            }
            let (left, top) = (at_x as usize, at_y as usize);
            let (right, bottom) = ((left + 1).min(size - 1), (top + 1).min(size - 1));
            let (fx, fy) = (at_x - left as f32, at_y - top as f32);
            for channel in 0..3 {
                let value = |x: usize, y: usize| f32::from(rgb[3 * (y * size + x) + channel]);
                let above = value(left, top) + fx * (value(right, top) - value(left, top));
                let below = value(left, bottom) + fx * (value(right, bottom) - value(left, bottom));
                out[channel * plane + to] = scale(above + fy * (below - above));
            }
        }
    }
}

fn scale(value: f32) -> f32 {
    value / 127.5 - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipe_core::rng::{Purpose, stream};

    /// 3 x 3 pixels whose red is their number times ten.
    fn image() -> Vec<u8> {
        (0..9).flat_map(|i| [10 * i, 0, 255]).collect()
    }

    fn red(transform: Transform) -> Vec<u8> {
        let mut out = vec![0.0; 27];
        write(&image(), 3, transform, &mut out);
        assert!(out[9..18].iter().all(|v| *v == -1.0) && out[18..].iter().all(|v| *v == 1.0));
        out[..9].iter().map(|v| ((v + 1.0) * 127.5).round() as u8).collect()
    }

    #[test]
    fn unchanged_flipped_and_turned_images_are_where_they_belong() {
        use std::f32::consts::{FRAC_PI_2, PI};
        assert_eq!(red(Transform::NONE), [0, 10, 20, 30, 40, 50, 60, 70, 80]);
        assert_eq!(red(Transform { flip: true, angle: 0.0 }), [20, 10, 0, 50, 40, 30, 80, 70, 60]);
        assert_eq!(red(Transform { flip: false, angle: PI }), [80, 70, 60, 50, 40, 30, 20, 10, 0]);
        assert_eq!(
            red(Transform { flip: false, angle: FRAC_PI_2 }),
            [60, 30, 0, 70, 40, 10, 80, 50, 20]
        );
        assert_eq!(
            red(Transform { flip: true, angle: FRAC_PI_2 }),
            [80, 50, 20, 70, 40, 10, 60, 30, 0]
        );
    }

    #[test]
    fn the_edge_is_repeated() {
        let flat = [7u8; 48];
        let mut out = [0.0; 48];
        write(&flat, 4, Transform { flip: false, angle: 0.6 }, &mut out);
        assert!(out.iter().all(|v| (*v - scale(7.0)).abs() < 1e-6));
    }

    #[test]
    fn changes_fill_their_range_and_stop_when_switched_off() {
        let mut rng = stream(1, Purpose::Augment, 0, 0);
        let settings =
            Augmentation { enabled: true, rotation_degrees: 10.0, ..Augmentation::default() };
        let drawn: Vec<Transform> =
            (0..1000).map(|_| Transform::sample(&settings, &mut rng)).collect();
        let flips = drawn.iter().filter(|c| c.flip).count();
        let widest = drawn.iter().map(|c| c.angle.abs()).fold(0.0, f32::max).to_degrees();
        assert!(
            (420..580).contains(&flips) && (9.8..=10.001).contains(&widest),
            "{flips} flips, {widest} degrees"
        );
        let off = Augmentation { enabled: false, ..settings };
        assert_eq!(Transform::sample(&off, &mut rng), Transform::NONE);
    }
}

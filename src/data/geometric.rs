//! EDM's augmentation: random geometry of training images, each with labels that tell the network
//! what was done to it, so that samples, which are asked for without any, show none of it.
//!
//! Source: Karras et al. 2022, arXiv 2206.00364, appendix F.2 and table 6, after Karras et al. 2020,
//! arXiv 2006.06676, appendix B. Images are resampled with a bicubic kernel (Keys 1981) and mirrored
//! at their edges; the paper filters with a wavelet of higher order.

use std::f32::consts::PI;

use rand::Rng;

use crate::distributions::{standard_normal, standard_uniform, uniform};

/// Numbers of a label: flip left and right, flip up and down, zoom, the cosine less one and the sine
/// of the rotation, the strength of the stretch along its axis (two), and the shift (two).
pub(crate) const LABELS: usize = 9;

/// Standard deviation of the binary logarithm of zoom and stretch.
const SCALE: f32 = 0.2;
/// Standard deviation of the shift, as a share of the side.
const SHIFT: f32 = 0.125;

/// What happens to one image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Geometric {
    pub labels: [f32; LABELS],
    pub flip_x: bool,
    pub flip_y: bool,
    /// From a place in the new image to one in the old, both from the middle and in sides: two rows.
    matrix: [[f32; 3]; 2],
}

impl Geometric {
    /// Each part but the flip left and right, which comes with probability 1/2 where it is wanted,
    /// comes with this probability.
    pub fn sample(probability: f32, flip: bool, rng: &mut impl Rng) -> Self {
        // The same numbers are drawn whatever comes of them.
        let mut part = |share: f32| standard_uniform(rng) < share;
        let flip_x = part(0.5) && flip;
        let flip_y = part(probability) && part(0.5);
        let [zooms, turns, stretches, is_oblique, shifts] =
            [probability, probability, probability, 0.5, probability].map(part);
        let mut normal = |is_wanted: bool| {
            let drawn = standard_normal(rng);
            if is_wanted { drawn } else { 0.0 }
        };
        let (zoom, stretch) = (normal(zooms), normal(stretches));
        let shift = [normal(shifts), normal(shifts)];
        let mut angle = |is_wanted: bool| {
            let drawn = uniform(rng, -PI, PI);
            if is_wanted { drawn } else { 0.0 }
        };
        let (turn, axis) = (angle(turns), angle(is_oblique));
        Self {
            labels: [
                f32::from(u8::from(flip_x)),
                f32::from(u8::from(flip_y)),
                zoom,
                turn.cos() - 1.0,
                turn.sin(),
                stretch * axis.cos(),
                stretch * axis.sin(),
                shift[0],
                shift[1],
            ],
            flip_x,
            flip_y,
            matrix: inverse(zoom, turn, (stretch, axis), shift),
        }
    }

    /// Writes the image `rgb` `[size, size, 3]` to `out` `[3, size, size]`, through `scale`.
    pub fn write(&self, rgb: &[u8], size: usize, out: &mut [f32], scale: impl Fn(f32) -> f32) {
        let (plane, side) = (size * size, size as f32);
        let middle = (side - 1.0) / 2.0;
        let last = side - 1.0;
        for y in 0..size {
            for x in 0..size {
                let at = [(x as f32 - middle) / side, (y as f32 - middle) / side];
                let from = self.matrix.map(|[a, b, c]| (a * at[0] + b * at[1] + c) * side + middle);
                let flipped = |at: f32, is_flipped: bool| if is_flipped { last - at } else { at };
                let from = [flipped(from[0], self.flip_x), flipped(from[1], self.flip_y)];
                let ([columns, rows], [wx, wy]) =
                    (from.map(|at| places(at, size)), from.map(|at| weights(at - at.floor())));
                for channel in 0..3 {
                    let mut sum = 0.0;
                    for (row, wy) in rows.iter().zip(wy) {
                        for (column, wx) in columns.iter().zip(wx) {
                            let pixel = rgb[3 * (row * size + column) + channel];
                            sum += wy * wx * f32::from(pixel);
                        }
                    }
                    out[channel * plane + y * size + x] = scale(sum.clamp(0.0, 255.0));
                }
            }
        }
    }
}

/// Zoom, rotation, stretch by `(strength, axis)` and shift, in this order, backwards.
fn inverse(zoom: f32, turn: f32, (stretch, axis): (f32, f32), shift: [f32; 2]) -> [[f32; 3]; 2] {
    let zoom = (-SCALE * zoom).exp2();
    let stretch = (SCALE * stretch).exp2();
    let turned = |angle: f32| [[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]];
    let scaled = |x: f32, y: f32| [[x, 0.0], [0.0, y]];
    let all = [
        scaled(zoom, zoom),
        turned(turn),
        turned(-axis),
        scaled(1.0 / stretch, stretch),
        turned(axis),
    ];
    let [[a, b], [c, d]] = all.into_iter().fold(scaled(1.0, 1.0), product);
    let [x, y] = shift.map(|shift| -SHIFT * shift);
    [[a, b, a * x + b * y], [c, d, c * x + d * y]]
}

fn product(a: [[f32; 2]; 2], b: [[f32; 2]; 2]) -> [[f32; 2]; 2] {
    a.map(|[p, q]| [p * b[0][0] + q * b[1][0], p * b[0][1] + q * b[1][1]])
}

/// The four places about one, mirrored at the edges of an image of so many pixels.
fn places(at: f32, size: usize) -> [usize; 4] {
    let period = 2 * size as i64;
    [-1, 0, 1, 2].map(|step| {
        let place = (at.floor() as i64 + step).rem_euclid(period) as usize;
        if place < size { place } else { 2 * size - 1 - place }
    })
}

/// The weights of the cubic kernel with a = -1/2 (Keys 1981) for a place that far behind the second
/// of four.
fn weights(t: f32) -> [f32; 4] {
    let (t2, t3) = (t * t, t * t * t);
    [
        0.5 * (2.0 * t2 - t - t3),
        0.5 * (2.0 - 5.0 * t2 + 3.0 * t3),
        0.5 * (t + 4.0 * t2 - 3.0 * t3),
        0.5 * (t3 - t2),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipe_core::rng::{Purpose, stream};

    fn drawn(probability: f32, flip: bool, count: u64) -> Vec<Geometric> {
        let of = |step| stream(1, Purpose::Augment, 0, step);
        (0..count).map(|step| Geometric::sample(probability, flip, &mut of(step))).collect()
    }

    #[test]
    fn each_part_comes_as_often_as_it_should() {
        let all = drawn(0.12, true, 20_000);
        let share = |of: &dyn Fn(&[f32; LABELS]) -> bool| {
            all.iter().filter(|g| of(&g.labels)).count() as f64 / all.len() as f64
        };
        assert!((share(&|l| l[0] != 0.0) - 0.5).abs() < 0.02);
        assert!((share(&|l| l[1] != 0.0) - 0.06).abs() < 0.01);
        for at in [2, 4, 5, 7, 8] {
            assert!((share(&|l| l[at] != 0.0) - 0.12).abs() < 0.01, "{at}");
        }
        // Half of the stretches lie along an axis of the image.
        assert!((share(&|l| l[6] != 0.0) - 0.06).abs() < 0.01);
        let none = 0.5 * 0.94 * 0.88f64.powi(4);
        assert!((share(&|l| l.iter().all(|l| *l == 0.0)) - none).abs() < 0.02);
        let square = |at: usize| {
            let values = all.iter().map(|g| f64::from(g.labels[at])).filter(|l| *l != 0.0);
            let values: Vec<f64> = values.collect();
            values.iter().map(|l| l * l).sum::<f64>() / values.len() as f64
        };
        for at in [2, 7, 8] {
            assert!((square(at) - 1.0).abs() < 0.1, "{at}: {}", square(at));
        }
        assert!(drawn(0.12, false, 500).iter().all(|g| g.labels[0] == 0.0));
        assert!(drawn(0.0, false, 500).iter().all(|g| g.labels == [0.0; LABELS]));
    }

    /// Images whose brightness is a plane keep their numbers, at the place that they come from.
    #[test]
    fn the_image_is_what_its_labels_say() {
        const SIZE: usize = 32;
        let value = |x: f32, y: f32| 128.0 + 2.0 * x + 1.0 * y; // from the middle, in pixels
        let middle = (SIZE as f32 - 1.0) / 2.0;
        let pixel = |i: usize| {
            let (x, y) = ((i % SIZE) as f32 - middle, (i / SIZE) as f32 - middle);
            [value(x, y).round() as u8; 3]
        };
        let image: Vec<u8> = (0..SIZE * SIZE).flat_map(pixel).collect();
        for g in drawn(0.7, true, 40) {
            let mut out = vec![0.0; 3 * SIZE * SIZE];
            g.write(&image, SIZE, &mut out, |v| v);
            // The largest difference, of how many pixels. A label does not tell stretch from squeeze.
            let off = |sign: f32| {
                let differences = (0..SIZE * SIZE).filter_map(|i| {
                    let [x, y] = backwards(&g.labels, sign, SIZE, i);
                    let is_inside = x.abs().max(y.abs()) < middle - 2.0;
                    is_inside.then(|| (out[i] - value(x, y)).abs())
                });
                differences.fold((0.0f32, 0), |(worst, seen), d| (worst.max(d), seen + 1))
            };
            let ((worst, seen), (other, _)) = (off(1.0), off(-1.0));
            assert!(worst.min(other) < 1.0, "{g:?}: {worst}, {other}");
            assert!(seen > 20, "{g:?}");
        }
    }

    /// Where a pixel comes from, from the middle: back through what was done, part by part.
    fn backwards(l: &[f32; LABELS], sign: f32, size: usize, pixel: usize) -> [f32; 2] {
        let middle = (size as f32 - 1.0) / 2.0;
        let [mut x, mut y] = [pixel % size, pixel / size].map(|at| at as f32 - middle);
        x -= l[7] * SHIFT * size as f32;
        y -= l[8] * SHIFT * size as f32;
        let strength = l[5].hypot(l[6]);
        if strength > 0.0 {
            let (c, s) = (l[5] / strength, l[6] / strength);
            let by = (SCALE * sign * strength).exp2();
            let (along, across) = ((c * x - s * y) / by, (s * x + c * y) * by);
            (x, y) = (c * along + s * across, c * across - s * along);
        }
        let (cos, sin) = (l[3] + 1.0, l[4]);
        (x, y) = (cos * x - sin * y, sin * x + cos * y);
        let by = (SCALE * l[2]).exp2();
        [x / by * (1.0 - 2.0 * l[0]), y / by * (1.0 - 2.0 * l[1])]
    }

    #[test]
    fn nothing_done_is_the_image_and_edges_are_mirrored() {
        let image: Vec<u8> = (0..48).map(|i| (i * 5) as u8).collect();
        let still = drawn(0.0, false, 1)[0];
        let mut out = [0.0; 48];
        still.write(&image, 4, &mut out, |v| v);
        for (i, pixel) in image.chunks(3).enumerate() {
            assert_eq!([out[i], out[16 + i], out[32 + i]].map(|v| v as u8), pixel);
        }
        assert_eq!(places(-1.0, 4), [1, 0, 0, 1]);
        assert_eq!(places(3.0, 4), [2, 3, 3, 2]);
        assert_eq!(places(-9.5, 4), [2, 1, 0, 0]);
    }
}

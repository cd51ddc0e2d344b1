//! The built-in data set: coloured figures on plain grounds, drawn from a seed at any size.
//!
//! Made to be easy: clean edges, one figure an image, a colour that stands out. A small model
//! learns it in minutes.

use image::{Rgb, RgbImage};

use crate::rng::{ChaCha8Rng, Purpose, stream};

use super::order::{between, unit};
use super::outline::{Outline, Point};

/// Raised whenever the same seed would draw other images, so that records of older drawings become
/// stale.
pub(crate) const DRAWING_VERSION: u32 = 1;

/// The classes, in the order of their labels.
pub(crate) const CLASSES: [&str; 8] =
    ["circle", "square", "triangle", "star", "cross", "ring", "heart", "moon"];

/// Least distance between the luminance of figure and ground, both in `[0, 1]`.
const CONTRAST: f32 = 0.35;

pub(super) type Colour = [f32; 3];

/// Image `index` of `seed` in class `CLASSES[class]`, `size` pixels square.
///
/// Everything but the number of pixels is the same at every size.
pub(crate) fn draw(seed: u64, index: usize, class: usize, size: usize) -> RgbImage {
    let mut rng = stream(seed, Purpose::SyntheticImage, 0, index as u64);
    let (ground, figure) = colours(&mut rng);
    let radius = between(&mut rng, 0.26, 0.42); // of the image's side
    let room = 0.5 - radius - 0.02;
    let centre = [0.5 + between(&mut rng, -room, room), 0.5 + between(&mut rng, -room, room)];
    let (sin, cos) = between(&mut rng, -0.3, 0.3).sin_cos(); // about 17 degrees either way
    let outline = outline(class);

    let across = size as f32;
    RgbImage::from_fn(size as u32, size as u32, |x, y| {
        let at: Point =
            [(x as f32 + 0.5) / across - centre[0], (y as f32 + 0.5) / across - centre[1]];
        let turned = [(cos * at[0] + sin * at[1]) / radius, (cos * at[1] - sin * at[0]) / radius];
        let distance = outline.distance(turned) * radius * across; // in pixels
        let cover = (0.5 - distance).clamp(0.0, 1.0);
        let mix = |channel: usize| ground[channel] + cover * (figure[channel] - ground[channel]);
        Rgb([0, 1, 2].map(|channel| (255.0 * mix(channel)).round() as u8))
    })
}

fn outline(class: usize) -> Outline {
    match CLASSES[class] {
        "circle" => Outline::Disc,
        "square" => Outline::square(),
        "triangle" => Outline::regular(3),
        "star" => Outline::star(5, 0.42),
        "cross" => Outline::cross(0.32),
        "ring" => Outline::Ring { inner: 0.58 },
        "heart" => Outline::heart(48),
        _ => Outline::Moon { bite_at: 0.55, bite_radius: 0.82 },
    }
}

/// A ground and a figure of clear contrast: one strong colour, one light or dark and pale.
fn colours(rng: &mut ChaCha8Rng) -> (Colour, Colour) {
    let mut drawn = ([0.0; 3], [1.0; 3]);
    for _ in 0..32 {
        let light = unit(rng) < 0.5;
        let value = if light { between(rng, 0.85, 1.0) } else { between(rng, 0.05, 0.3) };
        let ground = hsv(unit(rng), between(rng, 0.0, 0.3), value);
        let figure = hsv(unit(rng), between(rng, 0.7, 1.0), between(rng, 0.6, 1.0));
        drawn = (ground, figure);
        if (luminance(ground) - luminance(figure)).abs() >= CONTRAST {
            break;
        }
    }
    drawn
}

/// Hue (a fraction of the circle, from red), saturation and value to RGB, all in `[0, 1]`.
pub(super) fn hsv(hue: f32, saturation: f32, value: f32) -> Colour {
    [5.0, 3.0, 1.0].map(|offset| {
        let k = (offset + 6.0 * hue) % 6.0;
        value - value * saturation * k.min(4.0 - k).clamp(0.0, 1.0)
    })
}

/// Rec. 601 luma.
fn luminance(c: Colour) -> f32 {
    0.299 * c[0] + 0.587 * c[1] + 0.114 * c[2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hues_are_where_they_belong() {
        assert_eq!(hsv(0.0, 1.0, 1.0), [1.0, 0.0, 0.0]);
        assert_eq!(hsv(0.5, 1.0, 1.0), [0.0, 1.0, 1.0]);
        assert_eq!(hsv(0.3, 0.0, 0.5), [0.5, 0.5, 0.5]);
    }

    #[test]
    fn a_drawing_of_this_version_never_changes() {
        // When it must: raise DRAWING_VERSION, so that older records become stale.
        let image = draw(42, 3, 3, 16);
        assert_eq!([image[(0, 0)].0, image[(8, 8)].0], [[252, 247, 230], [246, 25, 134]]);
    }

    #[test]
    fn figure_and_ground_always_contrast() {
        for index in 0..2000 {
            let (ground, figure) = colours(&mut stream(3, Purpose::SyntheticImage, 0, index));
            assert!((luminance(ground) - luminance(figure)).abs() >= CONTRAST, "image {index}");
        }
    }

    #[test]
    fn an_image_depends_on_its_index_alone_and_fills_the_figure_with_one_colour() {
        for (class, name) in CLASSES.iter().enumerate() {
            let image = draw(1, 5, class, 32);
            assert_eq!(image, draw(1, 5, class, 32));
            assert_ne!(image, draw(1, 6, class, 32));
            assert_ne!(image, draw(2, 5, class, 32));
            let ground = image.get_pixel(0, 0);
            let covered = image.pixels().filter(|p| *p != ground).count();
            assert!((60..620).contains(&covered), "{name}: {covered} pixels");
        }
    }

    #[test]
    fn a_figure_keeps_its_share_of_the_image_at_any_size() {
        let share = |size: usize| {
            let image = draw(1, 9, 1, size);
            let (ground, figure) = (
                f64::from(image[(0, 0)][0]),
                colours(&mut stream(1, Purpose::SyntheticImage, 0, 9)).1,
            );
            let span = f64::from(figure[0]) * 255.0 - ground;
            image.pixels().map(|p| (f64::from(p[0]) - ground) / span).sum::<f64>()
                / (size * size) as f64
        };
        assert!((share(16) - share(128)).abs() < 0.01, "{} {}", share(16), share(128));
    }
}

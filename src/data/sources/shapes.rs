//! The built-in data set: coloured shapes on plain grounds, drawn from a seed at any size.
//!
//! Made to be easy: clean edges, one shape an image, a colour that stands out. A small model
//! learns it in minutes.

use image::{Rgb, RgbImage};

use super::colour::{self, hsv, luminance};
use super::signed_distance::{Point, Region};
use super::synthetic::Synthetic;
use crate::distributions::{standard_uniform, uniform};
use pipe_core::rng::{ChaCha8Rng, Purpose, stream};

/// The classes, in the order of their labels.
const CLASSES: [&str; 8] =
    ["circle", "square", "triangle", "star", "cross", "ring", "heart", "moon"];

pub(super) static SHAPES: Synthetic = Synthetic {
    name: "shapes",
    description: "Circles, squares, triangles, stars and others, drawn from the seed: needs no download.",
    purpose: "drawn shapes",
    version: 1,
    classes: &CLASSES,
    render,
};

/// Least distance between the luminance of shape and ground, both in `[0, 1]`.
const CONTRAST: f32 = 0.35;

/// Image `index` of `seed` in class `CLASSES[class]`, `size` pixels square.
///
/// Everything but the number of pixels is the same at every size.
fn render(seed: u64, index: usize, class: usize, size: usize) -> RgbImage {
    let mut rng = stream(seed, Purpose::SyntheticImage, 0, index as u64);
    let (ground, shape) = colours(&mut rng);
    let radius = uniform(&mut rng, 0.26, 0.42); // of the image's side
    let room = 0.5 - radius - 0.02;
    let centre = [0.5 + uniform(&mut rng, -room, room), 0.5 + uniform(&mut rng, -room, room)];
    let (sin, cos) = uniform(&mut rng, -0.3, 0.3).sin_cos(); // about 17 degrees either way
    let outline = outline(class);

    let across = size as f32;
    RgbImage::from_fn(size as u32, size as u32, |x, y| {
        let at: Point =
            [(x as f32 + 0.5) / across - centre[0], (y as f32 + 0.5) / across - centre[1]];
        let turned = [(cos * at[0] + sin * at[1]) / radius, (cos * at[1] - sin * at[0]) / radius];
        let distance = outline.distance(turned) * radius * across; // in pixels
        let cover = (0.5 - distance).clamp(0.0, 1.0);
        let mix = |channel: usize| ground[channel] + cover * (shape[channel] - ground[channel]);
        Rgb([0, 1, 2].map(|channel| (255.0 * mix(channel)).round() as u8))
    })
}

fn outline(class: usize) -> Region {
    match CLASSES[class] {
        "circle" => Region::Disc,
        "square" => Region::square(),
        "triangle" => Region::regular(3),
        "star" => Region::star(5, 0.42),
        "cross" => Region::cross(0.32),
        "ring" => Region::Ring { inner: 0.58 },
        "heart" => Region::heart(48),
        _ => Region::Moon { bite_at: 0.55, bite_radius: 0.82 },
    }
}

/// A ground and a shape of clear contrast: one strong colour, one light or dark and pale.
fn colours(rng: &mut ChaCha8Rng) -> (colour::Rgb, colour::Rgb) {
    let mut drawn = ([0.0; 3], [1.0; 3]);
    for _ in 0..32 {
        let light = standard_uniform(rng) < 0.5;
        let value = if light { uniform(rng, 0.85, 1.0) } else { uniform(rng, 0.05, 0.3) };
        let ground = hsv(standard_uniform(rng), uniform(rng, 0.0, 0.3), value);
        let shape = hsv(standard_uniform(rng), uniform(rng, 0.7, 1.0), uniform(rng, 0.6, 1.0));
        drawn = (ground, shape);
        if (luminance(ground) - luminance(shape)).abs() >= CONTRAST {
            break;
        }
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawing_of_this_version_never_changes() {
        // When it must: raise `SHAPES.version`, so that older records become stale.
        let image = render(42, 3, 3, 16);
        assert_eq!([image[(0, 0)].0, image[(8, 8)].0], [[252, 247, 230], [246, 25, 134]]);
    }

    #[test]
    fn shape_and_ground_always_contrast() {
        for index in 0..2000 {
            let (ground, shape) = colours(&mut stream(3, Purpose::SyntheticImage, 0, index));
            assert!((luminance(ground) - luminance(shape)).abs() >= CONTRAST, "image {index}");
        }
    }

    #[test]
    fn an_image_depends_on_its_index_alone_and_fills_the_shape_with_one_colour() {
        for (class, name) in CLASSES.iter().enumerate() {
            let image = render(1, 5, class, 32);
            assert_eq!(image, render(1, 5, class, 32));
            assert_ne!(image, render(1, 6, class, 32));
            assert_ne!(image, render(2, 5, class, 32));
            let ground = image.get_pixel(0, 0);
            let covered = image.pixels().filter(|p| *p != ground).count();
            assert!((60..620).contains(&covered), "{name}: {covered} pixels");
        }
    }

    #[test]
    fn a_shape_keeps_its_share_of_the_image_at_any_size() {
        let share = |size: usize| {
            let image = render(1, 9, 1, size);
            let (ground, shape) = (
                f64::from(image[(0, 0)][0]),
                colours(&mut stream(1, Purpose::SyntheticImage, 0, 9)).1,
            );
            let span = f64::from(shape[0]) * 255.0 - ground;
            image.pixels().map(|p| (f64::from(p[0]) - ground) / span).sum::<f64>()
                / (size * size) as f64
        };
        assert!((share(16) - share(128)).abs() < 0.01, "{} {}", share(16), share(128));
    }
}

//! The second built-in data set: trees in a landscape, drawn from a seed at any size.
//!
//! Clearly unlike the shapes: sky and ground, natural colours, trees of several parts. Each
//! species has an outline of its own that a person tells apart at 16 pixels.

use image::{Rgb, RgbImage};

use super::colour::{Rgb as Colour, hsv};
use super::signed_distance::Point;
use super::synthetic::Synthetic;
use crate::distributions::{standard_uniform, uniform};
use pipe_core::rng::{ChaCha8Rng, Purpose, stream};

/// The classes, in the order of their labels.
const CLASSES: [&str; 6] = ["pine", "oak", "palm", "willow", "birch", "cypress"];

pub(super) static TREES: Synthetic = Synthetic {
    name: "trees",
    description: "Pines, oaks, palms and other trees, drawn from the seed: needs no download.",
    purpose: "drawn trees",
    version: 1,
    classes: &CLASSES,
    render,
};

/// Samples along each side of a pixel.
const SAMPLES: usize = 4;

/// A coloured part of a tree, in units of the image's side; y points down.
struct Piece {
    primitive: Primitive,
    colour: Colour,
}

enum Primitive {
    /// Centre, half width, half height.
    Ellipse(Point, Point),
    /// Corners of a convex polygon, in either direction.
    Polygon(Vec<Point>),
    /// A line through points, and half its width.
    Stroke(Vec<Point>, f32),
}

/// Image `index` of `seed` in class `CLASSES[class]`, `size` pixels square.
///
/// Everything but the number of pixels is the same at every size.
fn render(seed: u64, index: usize, class: usize, size: usize) -> RgbImage {
    let mut rng = stream(seed, Purpose::SyntheticImage, 0, index as u64);
    let horizon = uniform(&mut rng, 0.78, 0.86);
    let sky = sky(&mut rng);
    let ground = hsv(
        uniform(&mut rng, 0.2, 0.34),
        uniform(&mut rng, 0.35, 0.6),
        uniform(&mut rng, 0.45, 0.7),
    );
    let foot = [0.5 + uniform(&mut rng, -0.05, 0.05), horizon + uniform(&mut rng, 0.02, 0.06)];
    let height = uniform(&mut rng, 0.68, 0.78);
    let pieces = tree(class, foot, height, &mut rng);
    let colour = |p: Point| match pieces.iter().rev().find(|piece| piece.primitive.contains(p)) {
        Some(piece) => piece.colour,
        None if p[1] > horizon => ground,
        None => std::array::from_fn(|c| sky[0][c] + p[1] / horizon * (sky[1][c] - sky[0][c])),
    };
    let step = 1.0 / (size * SAMPLES) as f32;
    RgbImage::from_fn(size as u32, size as u32, |x, y| {
        let mut sum = [0.0; 3];
        for sample in 0..SAMPLES * SAMPLES {
            let at = |pixel: u32, sample: usize| {
                ((pixel as usize * SAMPLES + sample) as f32 + 0.5) * step
            };
            let found = colour([at(x, sample % SAMPLES), at(y, sample / SAMPLES)]);
            sum.iter_mut().zip(found).for_each(|(sum, c)| *sum += c);
        }
        Rgb(sum.map(|sum| (255.0 * sum / (SAMPLES * SAMPLES) as f32).round() as u8))
    })
}

/// Colours at the top and at the horizon: a clear day, or an evening.
fn sky(rng: &mut ChaCha8Rng) -> [Colour; 2] {
    if standard_uniform(rng) < 0.75 {
        let hue = uniform(rng, 0.53, 0.6);
        [hsv(hue, uniform(rng, 0.35, 0.5), 0.97), hsv(hue, uniform(rng, 0.08, 0.2), 1.0)]
    } else {
        [hsv(0.6, uniform(rng, 0.15, 0.3), 0.9), hsv(0.09, uniform(rng, 0.25, 0.45), 1.0)]
    }
}

fn tree(class: usize, foot: Point, height: f32, rng: &mut ChaCha8Rng) -> Vec<Piece> {
    match CLASSES[class] {
        "pine" => pine(foot, height, rng),
        "oak" => oak(foot, height, rng),
        "palm" => palm(foot, height, rng),
        "willow" => willow(foot, height, rng),
        "birch" => birch(foot, height, rng),
        _ => cypress(foot, height, rng),
    }
}

fn bark(rng: &mut ChaCha8Rng) -> Colour {
    hsv(uniform(rng, 0.05, 0.09), uniform(rng, 0.45, 0.6), uniform(rng, 0.28, 0.42))
}

fn trunk([x, y]: Point, height: f32, half: f32, colour: Colour) -> Piece {
    let primitive = Primitive::Polygon(vec![
        [x - half, y],
        [x - 0.8 * half, y - height],
        [x + 0.8 * half, y - height],
        [x + half, y],
    ]);
    Piece { primitive, colour }
}

/// Three triangles, one above the other.
fn pine(foot: Point, height: f32, rng: &mut ChaCha8Rng) -> Vec<Piece> {
    let half = height * uniform(rng, 0.34, 0.42);
    let needles = [uniform(rng, 0.36, 0.42), uniform(rng, 0.6, 0.8), uniform(rng, 0.3, 0.42)];
    let mut pieces = vec![trunk(foot, 0.2 * height, 0.035, bark(rng))];
    for tier in 0..3 {
        let up = tier as f32;
        let (low, top) =
            (foot[1] - height * (0.14 + 0.24 * up), foot[1] - height * (0.56 + 0.22 * up));
        let wide = half * (1.0 - 0.24 * up);
        let [hue, saturation, value] = needles;
        let primitive =
            Primitive::Polygon(vec![[foot[0] - wide, low], [foot[0], top], [foot[0] + wide, low]]);
        pieces.push(Piece { primitive, colour: hsv(hue, saturation, value * (1.0 + 0.14 * up)) });
    }
    pieces
}

/// A thick trunk and a broad crown of discs, green or autumnal.
fn oak(foot: Point, height: f32, rng: &mut ChaCha8Rng) -> Vec<Piece> {
    let hue = if standard_uniform(rng) < 0.25 {
        uniform(rng, 0.06, 0.11)
    } else {
        uniform(rng, 0.24, 0.33)
    };
    let leaves = hsv(hue, uniform(rng, 0.6, 0.8), uniform(rng, 0.5, 0.66));
    let shade = leaves.map(|c| 0.86 * c);
    let radius = height * uniform(rng, 0.25, 0.28);
    let middle = foot[1] - height + 1.55 * radius;
    let mut pieces = vec![trunk(foot, 0.5 * height, 0.06, bark(rng))];
    for (dx, dy, size, colour) in [
        (-1.0, 0.45, 0.8, shade),
        (1.0, 0.45, 0.8, shade),
        (-0.62, -0.35, 0.85, leaves),
        (0.62, -0.35, 0.85, leaves),
        (0.0, -0.6, 0.95, leaves),
        (0.0, 0.3, 1.0, leaves),
    ] {
        let centre = [foot[0] + dx * radius * uniform(rng, 0.9, 1.1), middle + dy * radius];
        pieces.push(Piece { primitive: Primitive::Ellipse(centre, [size * radius; 2]), colour });
    }
    pieces
}

/// A thin bent trunk and fronds that arch down from its top.
fn palm(foot: Point, height: f32, rng: &mut ChaCha8Rng) -> Vec<Piece> {
    let lean = uniform(rng, -0.07, 0.07);
    let top = [foot[0] + lean, foot[1] - 0.8 * height];
    let bend: Vec<Point> = (0..=8)
        .map(|i| {
            let t = i as f32 / 8.0;
            [foot[0] + lean * t * t, foot[1] + (top[1] - foot[1]) * t]
        })
        .collect();
    let colour = hsv(uniform(rng, 0.07, 0.1), 0.45, uniform(rng, 0.45, 0.58));
    let mut pieces = vec![Piece { primitive: Primitive::Stroke(bend, 0.026), colour }];
    let green = hsv(uniform(rng, 0.27, 0.36), uniform(rng, 0.65, 0.85), uniform(rng, 0.42, 0.58));
    let reach = height * uniform(rng, 0.36, 0.41);
    for (side, rise, droop) in [
        (-1.0, 0.3, 0.75),
        (1.0, 0.3, 0.75),
        (-0.85, 0.75, 0.5),
        (0.85, 0.75, 0.5),
        (-0.35, 1.0, 0.4),
        (0.35, 1.0, 0.4),
    ] {
        let frond: Vec<Point> = (0..=8)
            .map(|i| {
                let t = i as f32 / 8.0;
                [
                    top[0] + side * reach * t,
                    top[1] - reach * (rise * t - (rise * 0.9 + droop * 0.6) * t * t),
                ]
            })
            .collect();
        pieces.push(Piece { primitive: Primitive::Stroke(frond, 0.028), colour: green });
    }
    pieces
}

/// A dome with strands that hang down nearly to the ground.
fn willow(foot: Point, height: f32, rng: &mut ChaCha8Rng) -> Vec<Piece> {
    let leaves = hsv(uniform(rng, 0.17, 0.23), uniform(rng, 0.5, 0.7), uniform(rng, 0.6, 0.75));
    let shade = leaves.map(|c| 0.82 * c);
    let half = height * uniform(rng, 0.43, 0.49);
    let dome = [foot[0], foot[1] - 0.66 * height];
    let mut pieces = vec![trunk(foot, 0.6 * height, 0.045, bark(rng))];
    for i in 0..9 {
        let across = i as f32 / 4.0 - 1.0;
        let end = foot[1]
            - height * uniform(rng, 0.1, 0.24)
            - if across.abs() < 0.3 { 0.22 * height } else { 0.0 };
        let x = foot[0] + half * 0.94 * across;
        let colour = if i % 2 == 0 { leaves } else { shade };
        pieces.push(Piece {
            primitive: Primitive::Stroke(vec![[x, dome[1]], [x, end]], 0.034),
            colour,
        });
    }
    pieces
        .push(Piece { primitive: Primitive::Ellipse(dome, [half, 0.34 * height]), colour: leaves });
    pieces
}

/// A slim white trunk with dark marks, and a small light crown.
fn birch(foot: Point, height: f32, rng: &mut ChaCha8Rng) -> Vec<Piece> {
    let hue = if standard_uniform(rng) < 0.35 {
        uniform(rng, 0.12, 0.15)
    } else {
        uniform(rng, 0.2, 0.27)
    };
    let leaves = hsv(hue, uniform(rng, 0.55, 0.75), uniform(rng, 0.72, 0.88));
    let crown = [foot[0], foot[1] - 0.7 * height];
    let oval = [height * uniform(rng, 0.2, 0.25), height * 0.3];
    let mut pieces = vec![
        Piece { primitive: Primitive::Ellipse(crown, oval), colour: leaves },
        trunk(foot, 0.72 * height, 0.032, [0.96, 0.96, 0.93]),
    ];
    for i in 0..4 {
        let y = foot[1] - height * (0.08 + 0.14 * i as f32 + uniform(rng, 0.0, 0.05));
        let x = foot[0] + if i % 2 == 0 { -0.014 } else { 0.014 };
        pieces.push(Piece {
            primitive: Primitive::Ellipse([x, y], [0.02, 0.011]),
            colour: [0.15, 0.14, 0.13],
        });
    }
    pieces
}

/// A tall dark flame.
fn cypress(foot: Point, height: f32, rng: &mut ChaCha8Rng) -> Vec<Piece> {
    let half = height * uniform(rng, 0.11, 0.14);
    let colour = hsv(uniform(rng, 0.37, 0.43), uniform(rng, 0.55, 0.75), uniform(rng, 0.2, 0.3));
    let outline = |side: f32| {
        (0..=12).map(move |i| {
            let t = i as f32 / 12.0; // from the top
            let wide = (t.powf(0.7) * (1.0 - 0.55 * t.powi(6))).min(1.0);
            [foot[0] + side * half * wide, foot[1] - height * (1.0 - 0.95 * t)]
        })
    };
    let corners = outline(1.0).chain(outline(-1.0).collect::<Vec<_>>().into_iter().rev()).collect();
    vec![
        trunk(foot, 0.1 * height, 0.025, bark(rng)),
        Piece { primitive: Primitive::Polygon(corners), colour },
    ]
}

impl Primitive {
    fn contains(&self, p: Point) -> bool {
        match self {
            Self::Ellipse(centre, half) => {
                let [x, y] = [0, 1].map(|axis| (p[axis] - centre[axis]) / half[axis]);
                x * x + y * y <= 1.0
            }
            Self::Polygon(corners) => {
                let next = corners.iter().cycle().skip(1);
                let turns = corners
                    .iter()
                    .zip(next)
                    .map(|(a, b)| (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0]));
                let (low, high) = turns.fold((0.0f32, 0.0f32), |(l, h), t| (l.min(t), h.max(t)));
                low >= 0.0 || high <= 0.0
            }
            Self::Stroke(points, half) => points.windows(2).any(|pair| {
                let along = [pair[1][0] - pair[0][0], pair[1][1] - pair[0][1]];
                let from = [p[0] - pair[0][0], p[1] - pair[0][1]];
                let length = (along[0] * along[0] + along[1] * along[1]).max(1e-12);
                let t = ((from[0] * along[0] + from[1] * along[1]) / length).clamp(0.0, 1.0);
                (from[0] - t * along[0]).hypot(from[1] - t * along[1]) <= *half
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mean of some images of a class, channel by channel.
    fn mean(class: usize, size: usize) -> Vec<f64> {
        let images: Vec<RgbImage> = (0..40).map(|index| render(1, index, class, size)).collect();
        let at =
            |i: usize| images.iter().map(|image| f64::from(image.as_raw()[i])).sum::<f64>() / 40.0;
        (0..3 * size * size).map(at).collect()
    }

    #[test]
    fn an_image_depends_on_its_seed_and_index_alone() {
        for class in 0..CLASSES.len() {
            let image = render(1, 5, class, 32);
            assert_eq!(image, render(1, 5, class, 32));
            assert_ne!(image, render(1, 6, class, 32));
            assert_ne!(image, render(2, 5, class, 32));
        }
        let all = TREES.render_all(1, 4, &[2, 0], 16);
        assert_eq!(all[3], render(1, 3, 0, 16));
    }

    #[test]
    fn a_drawing_of_this_version_never_changes() {
        // When it must: raise `TREES.version`, so that older records become stale.
        let image = render(42, 3, 0, 16);
        let found = [image[(0, 0)].0, image[(5, 11)].0, image[(8, 6)].0];
        assert_eq!(found, [[193, 207, 227], [26, 90, 49], [31, 109, 60]]);
    }

    #[test]
    fn an_image_is_the_same_at_any_size() {
        for (class, name) in CLASSES.iter().enumerate() {
            let overall = |size: usize| {
                let image = render(1, 9, class, size);
                image.as_raw().iter().map(|v| f64::from(*v)).sum::<f64>() / (3 * size * size) as f64
            };
            assert!(
                (overall(16) - overall(128)).abs() < 1.5,
                "{}: {} {}",
                name,
                overall(16),
                overall(128)
            );
        }
    }

    #[test]
    fn species_differ_more_than_images_of_one_do() {
        let means: Vec<Vec<f64>> = (0..CLASSES.len()).map(|class| mean(class, 16)).collect();
        for (i, a) in means.iter().enumerate() {
            for (j, b) in means.iter().enumerate().skip(i + 1) {
                let distance =
                    a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f64>() / a.len() as f64;
                assert!(distance > 5.0, "{} and {}: {distance}", CLASSES[i], CLASSES[j]);
            }
        }
    }

    #[test]
    fn a_tree_stays_inside_its_image() {
        for (class, name) in CLASSES.iter().enumerate() {
            for index in 0..200 {
                let image = render(3, index, class, 32);
                let sky = image.get_pixel(0, 0);
                assert!(
                    (0..32).all(|x| image.get_pixel(x, 0) == sky),
                    "{} {index} at the top",
                    name
                );
                // Sky and ground are the same from side to side.
                let alike = (0..32).all(|y| image.get_pixel(0, y) == image.get_pixel(31, y));
                assert!(alike, "{} {index} at a side", name);
            }
        }
    }
}

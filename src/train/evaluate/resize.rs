//! Pictures of any size as Inception-v3 looks at them: 299 by 299 pixels in about [-1, 1].
//!
//! How a picture is resized changes FID by more than many a model does (Parmar et al. 2022, arXiv
//! 2104.11222). Figures are compared only with those that were resized in the same way.

use pipe_models::inception::SIDE;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A way of resizing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Resize {
    /// As clean-fid does by default: Pillow's bicubic filter on floats, widened where a picture
    /// becomes smaller, then `(x - 128) / 128`. Nothing is rounded to whole numbers.
    #[default]
    Clean,
    /// As pytorch-fid does: bilinear between the nearest pixels, also where a picture becomes
    /// smaller, then `2 x / 255 - 1`.
    Legacy,
}

impl Resize {
    /// The picture `[3, 299, 299]`, from RGB of 8 bits in rows of `width` pixels. A picture
    /// without pixels is black.
    ///
    /// # Panics
    /// `pixels` has not `3 * width * height` bytes.
    pub fn apply(self, pixels: &[u8], width: usize, height: usize) -> Vec<f32> {
        assert!(pixels.len() == 3 * width * height, "{width} by {height} pixels were named");
        let mut out = Vec::with_capacity(3 * SIDE * SIDE);
        for channel in 0..3 {
            let plane = pixels.iter().skip(channel).step_by(3).copied();
            if plane.len() == 0 {
                out.extend(std::iter::repeat_n(-1.0, SIDE * SIDE));
            } else if self == Self::Clean {
                let plane: Vec<f32> = plane.map(f32::from).collect();
                let plane = filtered(&plane, width, height);
                out.extend(plane.iter().map(|x| (x.clamp(0.0, 255.0) - 128.0) / 128.0));
            } else {
                let plane: Vec<f32> = plane.map(|x| f32::from(x) / 255.0).collect();
                out.extend(bilinear(&plane, width, height).iter().map(|x| 2.0 * x - 1.0));
            }
        }
        out
    }
}

/// What one pixel is made of: the first that it looks at, and the weights of it and those after.
struct Taps {
    first: usize,
    weights: Vec<f64>,
}

/// Keys' cubic filter with a = -1/2 (1981), as Pillow and most others have it. Zero from 2 on.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// The weights of each of [`SIDE`] pixels along an axis of `length`: the filter is as wide as the
/// pixels that become one, and its weights sum to one.
fn cubic_taps(length: usize) -> Vec<Taps> {
    let scale = length as f64 / SIDE as f64;
    let stretch = scale.max(1.0);
    let support = 2.0 * stretch;
    let tap = |pixel: usize| {
        let centre = (pixel as f64 + 0.5) * scale;
        let first = (centre - support + 0.5).max(0.0) as usize;
        let end = ((centre + support + 0.5).max(0.0) as usize).min(length);
        let mut weights: Vec<f64> =
            (first..end).map(|i| cubic((i as f64 - centre + 0.5) / stretch)).collect();
        let sum: f64 = weights.iter().sum();
        if sum != 0.0 {
            weights.iter_mut().for_each(|w| *w /= sum);
        }
        Taps { first, weights }
    };
    (0..SIDE).map(tap).collect()
}

/// Along rows, then along columns; between the two, and after them, numbers have 32 bits.
fn filtered(plane: &[f32], width: usize, height: usize) -> Vec<f32> {
    let rows: Vec<f32> = if width == SIDE {
        plane.to_vec()
    } else {
        let taps = cubic_taps(width);
        let along = |row: &[f32], taps: &Taps| {
            let pixels = row[taps.first..].iter().zip(&taps.weights);
            pixels.map(|(x, w)| f64::from(*x) * w).sum::<f64>() as f32
        };
        let rows = plane.chunks_exact(width);
        rows.flat_map(|row| taps.iter().map(move |taps| along(row, taps))).collect()
    };
    if height == SIDE {
        return rows;
    }
    let along = |taps: Taps| {
        let mut sums = vec![0.0f64; SIDE];
        for (offset, weight) in taps.weights.iter().enumerate() {
            let row = &rows[(taps.first + offset) * SIDE..][..SIDE];
            sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x) * weight);
        }
        sums.into_iter().map(|sum| sum as f32)
    };
    cubic_taps(height).into_iter().flat_map(along).collect()
}

/// Between which two pixels each of [`SIDE`] lies along an axis of `length`, and how far from the
/// first.
fn bilinear_taps(length: usize) -> Vec<(usize, usize, f32)> {
    let scale = length as f32 / SIDE as f32;
    let tap = |pixel: usize| {
        let place = (scale * (pixel as f32 + 0.5) - 0.5).max(0.0);
        let first = (place as usize).min(length - 1);
        (first, (first + 1).min(length - 1), place - first as f32)
    };
    (0..SIDE).map(tap).collect()
}

fn bilinear(plane: &[f32], width: usize, height: usize) -> Vec<f32> {
    let columns = bilinear_taps(width);
    let mut out = Vec::with_capacity(SIDE * SIDE);
    for (above, below, down) in bilinear_taps(height) {
        let (above, below) = (&plane[above * width..], &plane[below * width..]);
        for (left, right, along) in &columns {
            let between = |row: &[f32]| row[*left] * (1.0 - along) + row[*right] * along;
            out.push(between(above) * (1.0 - down) + between(below) * down);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_colour_stays_that_colour_at_any_size() {
        for (width, height) in [(1, 1), (2, 3), (32, 32), (299, 299), (299, 7), (640, 301)] {
            let pixels: Vec<u8> =
                std::iter::repeat_n([200, 0, 255], width * height).flatten().collect();
            for (resize, wanted) in [
                (Resize::Clean, [(200.0 - 128.0) / 128.0, -1.0, 127.0 / 128.0]),
                (Resize::Legacy, [400.0 / 255.0 - 1.0, -1.0, 1.0]),
            ] {
                let out = resize.apply(&pixels, width, height);
                for (plane, wanted) in out.chunks_exact(SIDE * SIDE).zip(wanted) {
                    assert!(plane.iter().all(|x| (x - wanted as f32).abs() < 1e-5), "{resize:?}");
                }
            }
        }
    }

    #[test]
    fn a_picture_of_the_right_size_keeps_its_pixels() {
        let pixels: Vec<u8> = (0..3 * SIDE * SIDE).map(|i| (i * 31 % 256) as u8).collect();
        let out = Resize::Clean.apply(&pixels, SIDE, SIDE);
        let legacy = Resize::Legacy.apply(&pixels, SIDE, SIDE);
        for (index, pixel) in pixels.iter().enumerate() {
            let place = index % 3 * SIDE * SIDE + index / 3;
            assert_eq!(out[place], (f32::from(*pixel) - 128.0) / 128.0);
            assert!((legacy[place] - (f32::from(*pixel) / 127.5 - 1.0)).abs() < 1e-4);
        }
    }

    #[test]
    fn a_smaller_picture_is_the_mean_of_what_it_hides_in_the_clean_way_alone() {
        // Lines of one pixel, black and white: their mean is grey, and single pixels are not.
        let (width, height) = (8 * SIDE, SIDE);
        let line = |i: usize| if i / 3 % width % 8 == 3 { 255 } else { 0 };
        let pixels: Vec<u8> = (0..3 * width * height).map(line).collect();
        let inside = |x: &[f32]| x[SIDE * 100 + 100];
        let clean = inside(&Resize::Clean.apply(&pixels, width, height));
        assert!((clean - (255.0 / 8.0 - 128.0) / 128.0).abs() < 0.01, "{clean}");
        let legacy = inside(&Resize::Legacy.apply(&pixels, width, height));
        assert!((legacy - 0.0).abs() < 0.01, "between a white and a black pixel: {legacy}");
    }
}

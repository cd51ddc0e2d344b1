//! Doubling an image's size.

use burn::tensor::Shape;
use rayon::prelude::*;

use super::machine::wide;
use super::op::Kernel;

/// `x [rows, width, channels]` (rows of all images) to `[2 rows, 2 width, channels]`.
#[derive(Debug, Clone)]
pub(super) struct Double {
    pub shape: Shape,
    pub width: usize,
    pub channels: usize,
}

impl Kernel<1> for Double {
    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn forward(&self, [x]: [&[f32]; 1], _keep: bool) -> (Vec<f32>, Vec<f32>) {
        let (c, row) = (self.channels, self.width * self.channels);
        let mut y = vec![0.0; 4 * x.len()];
        y.par_chunks_mut(4 * row).zip(x.par_chunks(row)).for_each(|(y, x)| {
            let (upper, lower) = y.split_at_mut(2 * row);
            for (pair, pixel) in upper.chunks_exact_mut(2 * c).zip(x.chunks_exact(c)) {
                pair[..c].copy_from_slice(pixel);
                pair[c..].copy_from_slice(pixel);
            }
            lower.copy_from_slice(upper);
        });
        (y, Vec::new())
    }

    fn backward(&self, [x]: [&[f32]; 1], _kept: &[f32], dy: &[f32], _: [bool; 1]) -> [Option<Vec<f32>>; 1] {
        let (c, row) = (self.channels, self.width * self.channels);
        let mut dx = vec![0.0; x.len()];
        dx.par_chunks_mut(row).zip(dy.par_chunks(4 * row)).for_each(|(dx, dy)| {
            let (upper, lower) = dy.split_at(2 * row);
            wide(
                #[inline(always)]
                || {
                    let pairs = upper.chunks_exact(2 * c).zip(lower.chunks_exact(2 * c));
                    for (dx, (upper, lower)) in dx.chunks_exact_mut(c).zip(pairs) {
                        for i in 0..c {
                            dx[i] = (upper[i] + upper[i + c]) + (lower[i] + lower[i + c]);
                        }
                    }
                },
            );
        });
        [Some(dx)]
    }
}

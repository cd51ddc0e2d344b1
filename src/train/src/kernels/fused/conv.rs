//! Convolution as a matrix product over unfolded patches, a band of pixels at a time: the patches of a band stay in
//! the cache and are never stored for the gradient, which unfolds them again.

use burn::tensor::Shape;
use rayon::prelude::*;

use super::machine::{Onto, View, product};
use super::op::Kernel;
use super::parts::{add_rows, add_up, fill_rows, part_len};

/// Numbers in the unfolded patches of one band, about.
const BAND: usize = 160 * 1024;

/// `x [batch, height, width, inputs]`, `weight [outputs, inputs, kernel, kernel]`, `bias [outputs]`.
#[derive(Debug, Clone)]
pub(super) struct Conv {
    pub batch: usize,
    pub height: usize,
    pub width: usize,
    pub inputs: usize,
    pub outputs: usize,
    pub kernel: usize,
    pub stride: usize,
}

impl Conv {
    fn out_height(&self) -> usize {
        (self.height + 2 * (self.kernel / 2) - self.kernel) / self.stride + 1
    }

    fn out_width(&self) -> usize {
        (self.width + 2 * (self.kernel / 2) - self.kernel) / self.stride + 1
    }

    /// Numbers in one patch, ordered (vertical offset, horizontal offset, channel).
    fn patch(&self) -> usize {
        self.kernel * self.kernel * self.inputs
    }

    /// Rows of output pixels in one band.
    fn band(&self) -> usize {
        (BAND / (self.patch() * self.out_width())).clamp(1, self.out_height())
    }

    /// The weight as `[patch, outputs]`.
    fn by_patch(&self, weight: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; weight.len()];
        self.each_weight(|torch, patch| out[patch] = weight[torch]);
        out
    }

    /// The weight as PyTorch has it, from `[patch, outputs]`.
    fn as_stored(&self, by_patch: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; by_patch.len()];
        self.each_weight(|torch, patch| out[torch] = by_patch[patch]);
        out
    }

    /// Calls `f` with each weight's place in PyTorch's layout and in `[patch, outputs]`.
    fn each_weight(&self, mut f: impl FnMut(usize, usize)) {
        let taps = self.kernel * self.kernel;
        for output in 0..self.outputs {
            for input in 0..self.inputs {
                for tap in 0..taps {
                    let torch = (output * self.inputs + input) * taps + tap;
                    f(torch, (tap * self.inputs + input) * self.outputs + output);
                }
            }
        }
    }

    /// Calls `f(patch row, image row)` with the places of every stretch of a band's patches that lies in the image:
    /// both are ranges of the same length, into the patches and into `x`. The rest of the patches is padding.
    fn stretches(&self, rows: std::ops::Range<usize>, mut f: impl FnMut(usize, usize, usize)) {
        let (pad, c, patch) = (self.kernel / 2, self.inputs, self.patch());
        let out_width = self.out_width();
        for (band_row, y) in rows.enumerate() {
            for dy in 0..self.kernel {
                let Some(from_y) = (y * self.stride + dy).checked_sub(pad).filter(|y| *y < self.height)
                else {
                    continue;
                };
                for x in 0..out_width {
                    // Horizontal neighbours lie side by side in the image too: one copy for the row of taps.
                    let left = x * self.stride;
                    let skipped = pad.saturating_sub(left);
                    let from_x = (left + skipped) - pad;
                    let taps = (self.kernel - skipped).min(self.width - from_x);
                    let to = (band_row * out_width + x) * patch + (dy * self.kernel + skipped) * c;
                    f(to, (from_y * self.width + from_x) * c, taps * c);
                }
            }
        }
    }
}

impl Kernel<3> for Conv {
    fn shape(&self) -> Shape {
        [self.batch, self.out_height(), self.out_width(), self.outputs].into()
    }

    fn forward(&self, [x, weight, bias]: [&[f32]; 3], _keep: bool) -> (Vec<f32>, Vec<f32>) {
        let weight = self.by_patch(weight);
        let (n, patch, out_width, out_height) =
            (self.outputs, self.patch(), self.out_width(), self.out_height());
        let band = self.band();
        let bands = out_height.div_ceil(band);
        let image = self.height * self.width * self.inputs;
        let mut y = vec![0.0; self.batch * out_height * out_width * n];
        let images = y.par_chunks_mut(out_height * out_width * n).zip(x.par_chunks(image));
        images.for_each(|(y, x)| {
            y.par_chunks_mut(band * out_width * n).enumerate().with_min_len(bands.div_ceil(4)).for_each_init(
                || vec![0.0; band * out_width * patch],
                |patches, (index, y)| {
                    let rows = index * band..out_height.min((index + 1) * band);
                    let pixels = rows.len() * out_width;
                    patches.fill(0.0);
                    self.stretches(rows, |to, from, len| {
                        patches[to..to + len].copy_from_slice(&x[from..from + len]);
                    });
                    fill_rows(y, bias);
                    let (patches, weight) = (View::rows(patches, patch), View::rows(&weight, n));
                    product([pixels, patch, n], 1.0, patches, weight, Onto::Sum, y, n);
                },
            );
        });
        (y, Vec::new())
    }

    fn backward(
        &self,
        [x, weight, _]: [&[f32]; 3],
        _kept: &[f32],
        dy: &[f32],
        wanted: [bool; 3],
    ) -> [Option<Vec<f32>>; 3] {
        let weight = self.by_patch(weight);
        let (n, patch, out_width, out_height) =
            (self.outputs, self.patch(), self.out_width(), self.out_height());
        let band = self.band();
        let (image, out_image) = (self.height * self.width * self.inputs, out_height * out_width * n);
        let part = part_len(self.batch);
        let mut dx = vec![0.0; if wanted[0] { x.len() } else { 0 }];
        // Without a wanted `dx` its parts are empty.
        let mut dx_parts: Vec<&mut [f32]> = match wanted[0] {
            true => dx.chunks_mut(part * image).collect(),
            false => x.chunks(part * image).map(|_| Default::default()).collect(),
        };
        let groups =
            dx_parts.par_iter_mut().zip(x.par_chunks(part * image)).zip(dy.par_chunks(part * out_image));
        let sums: Vec<[Vec<f32>; 2]> = groups
            .map(|((dx, x), dy)| {
                let (mut dw, mut db) = (vec![0.0; patch * n], vec![0.0; n]);
                let mut patches = vec![0.0; band * out_width * patch];
                add_rows(&mut db, dy);
                for (index, (x, dy)) in x.chunks(image).zip(dy.chunks(out_image)).enumerate() {
                    for (start, dy) in (0..out_height).step_by(band).zip(dy.chunks(band * out_width * n)) {
                        let rows = start..out_height.min(start + band);
                        let pixels = rows.len() * out_width;
                        let dy = View::rows(dy, n);
                        if wanted[1] {
                            patches.fill(0.0);
                            self.stretches(rows.clone(), |to, from, len| {
                                patches[to..to + len].copy_from_slice(&x[from..from + len]);
                            });
                            let patches = View::rows(&patches, patch).t();
                            product([patch, pixels, n], 1.0, patches, dy, Onto::Sum, &mut dw, n);
                        }
                        if wanted[0] {
                            let dx = &mut dx[index * image..][..image];
                            let weight = View::rows(&weight, n).t();
                            product([pixels, n, patch], 1.0, dy, weight, Onto::Nothing, &mut patches, patch);
                            self.stretches(rows, |to, from, len| {
                                let (dx, patch) = (&mut dx[from..from + len], &patches[to..to + len]);
                                dx.iter_mut().zip(patch).for_each(|(dx, v)| *dx += v);
                            });
                        }
                    }
                }
                [dw, db]
            })
            .collect();
        let [dw, db] = add_up(sums);
        [wanted[0].then_some(dx), wanted[1].then(|| self.as_stored(&dw)), wanted[2].then_some(db)]
    }
}

//! A 3x3 convolution of an image doubled in size (nearest neighbour), without making the doubled image.
//!
//! Of the nine pixels under the kernel at most four differ, so each of the four kinds of output pixels (even or odd
//! row, even or odd column) is a 2x2 convolution of the small image whose weights are sums of the nine: 16
//! multiplications for what takes 36. (Shi et al. 2016, "Is the deconvolution layer the same as a convolutional
//! layer?", arXiv 1609.07009, describes the same split.)

use burn::tensor::Shape;
use rayon::prelude::*;

use super::machine::{Onto, View, product};
use super::op::Kernel;
use super::parts::{add_rows, add_up, fill_rows, part_len, zeros_if};
use super::patches::Patches;

/// `x [batch, height, width, inputs]`, `weight [outputs, inputs, 3, 3]`, `bias [outputs]` to
/// `[batch, 2 height, 2 width, outputs]`.
#[derive(Debug, Clone)]
pub(super) struct DoubleConv {
    pub batch: usize,
    pub height: usize,
    pub width: usize,
    pub inputs: usize,
    pub outputs: usize,
}

/// Odd row and odd column of an output pixel, 0 or 1 each.
const KINDS: [[usize; 2]; 4] = [[0, 0], [0, 1], [1, 0], [1, 1]];

impl DoubleConv {
    /// The 2x2 patches of the small image that output pixels of one kind see: those of even rows begin a row
    /// above, those of even columns a column to the left.
    fn patches(&self, [odd_row, odd_column]: [usize; 2]) -> Patches {
        Patches {
            height: self.height,
            width: self.width,
            channels: self.inputs,
            kernel: 2,
            stride: 1,
            above: 1 - odd_row,
            left: 1 - odd_column,
            out_height: self.height,
            out_width: self.width,
        }
    }

    /// Numbers in the weights of one kind, `[2, 2, inputs, outputs]`.
    fn weights(&self) -> usize {
        4 * self.inputs * self.outputs
    }

    /// Calls `f` with each weight's place in PyTorch's layout, and the place in all kinds' weights that it adds to.
    fn each_weight(&self, mut f: impl FnMut(usize, usize)) {
        for (kind, [odd_row, odd_column]) in KINDS.into_iter().enumerate() {
            for output in 0..self.outputs {
                for input in 0..self.inputs {
                    for tap in 0..9 {
                        let small = |tap: usize, odd: usize| (tap + 1 - odd) / 2;
                        let small = 2 * small(tap / 3, odd_row) + small(tap % 3, odd_column);
                        let torch = (output * self.inputs + input) * 9 + tap;
                        let place = (small * self.inputs + input) * self.outputs + output;
                        f(torch, kind * self.weights() + place);
                    }
                }
            }
        }
    }

    fn by_kind(&self, weight: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; KINDS.len() * self.weights()];
        self.each_weight(|torch, place| out[place] += weight[torch]);
        out
    }

    /// Calls `f` with the ranges of each pixel of one kind, among those of its band and in the output image.
    fn each_pixel(
        &self,
        [odd_row, odd_column]: [usize; 2],
        rows: std::ops::Range<usize>,
        mut f: impl FnMut(usize, usize),
    ) {
        let n = self.outputs;
        for (band_row, y) in rows.enumerate() {
            for x in 0..self.width {
                let large = (2 * y + odd_row) * 2 * self.width + 2 * x + odd_column;
                f((band_row * self.width + x) * n, large * n);
            }
        }
    }
}

impl Kernel<3> for DoubleConv {
    fn shape(&self) -> Shape {
        [self.batch, 2 * self.height, 2 * self.width, self.outputs].into()
    }

    fn forward(&self, [x, weight, bias]: [&[f32]; 3], _keep: bool) -> (Vec<f32>, Vec<f32>) {
        let weights = self.by_kind(weight);
        let n = self.outputs;
        let (image, out_image) = (self.height * self.width * self.inputs, 4 * self.height * self.width * n);
        let mut y = vec![0.0; self.batch * out_image];
        y.par_chunks_mut(out_image).zip(x.par_chunks(image)).for_each(|(y, x)| {
            for (kind, weight) in KINDS.into_iter().zip(weights.chunks_exact(self.weights())) {
                let patches = self.patches(kind);
                let (mut unfolded, mut out) = (patches.buffer(), vec![0.0; patches.band() * self.width * n]);
                for rows in patches.bands() {
                    let pixels = rows.len() * self.width;
                    let out = &mut out[..pixels * n];
                    patches.unfold(x, rows.clone(), &mut unfolded);
                    fill_rows(out, bias);
                    let (unfolded, weight) = (View::rows(&unfolded, patches.len()), View::rows(weight, n));
                    product([pixels, patches.len(), n], 1.0, unfolded, weight, Onto::Sum, out, n);
                    self.each_pixel(kind, rows, |from, to| {
                        y[to..to + n].copy_from_slice(&out[from..from + n]);
                    });
                }
            }
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
        let weights = self.by_kind(weight);
        let n = self.outputs;
        let (image, out_image) = (self.height * self.width * self.inputs, 4 * self.height * self.width * n);
        let part = part_len(self.batch);
        let mut dx = vec![0.0; x.len()];
        let groups = dx.par_chunks_mut(part * image).zip(x.par_chunks(part * image));
        let sums: Vec<[Vec<f32>; 2]> = groups
            .zip(dy.par_chunks(part * out_image))
            .map(|((dx, x), dy)| {
                let (mut dw, mut db) = (zeros_if(wanted[1], weights.len()), zeros_if(wanted[2], n));
                if wanted[2] {
                    add_rows(&mut db, dy);
                }
                for (number, kind) in KINDS.into_iter().enumerate() {
                    let place = number * self.weights()..(number + 1) * self.weights();
                    let weight = &weights[place.clone()];
                    let patches = self.patches(kind);
                    let (mut unfolded, mut dout) =
                        (patches.buffer(), vec![0.0; patches.band() * self.width * n]);
                    let images = dx.chunks_mut(image).zip(x.chunks(image)).zip(dy.chunks(out_image));
                    for ((dx, x), dy) in images {
                        for rows in patches.bands() {
                            let pixels = rows.len() * self.width;
                            self.each_pixel(kind, rows.clone(), |to, from| {
                                dout[to..to + n].copy_from_slice(&dy[from..from + n]);
                            });
                            let dout = View::rows(&dout, n);
                            if wanted[1] {
                                patches.unfold(x, rows.clone(), &mut unfolded);
                                let unfolded = View::rows(&unfolded, patches.len()).t();
                                let dw = &mut dw[place.clone()];
                                product([patches.len(), pixels, n], 1.0, unfolded, dout, Onto::Sum, dw, n);
                            }
                            if wanted[0] {
                                let (sizes, weight) = ([pixels, n, patches.len()], View::rows(weight, n).t());
                                product(
                                    sizes,
                                    1.0,
                                    dout,
                                    weight,
                                    Onto::Nothing,
                                    &mut unfolded,
                                    patches.len(),
                                );
                                patches.fold(&unfolded, rows, dx);
                            }
                        }
                    }
                }
                [dw, db]
            })
            .collect();
        let [by_kind, db] = add_up(sums);
        let dw = wanted[1].then(|| {
            let mut dw = vec![0.0; weight.len()];
            self.each_weight(|torch, place| dw[torch] += by_kind[place]);
            dw
        });
        [wanted[0].then_some(dx), dw, wanted[2].then_some(db)]
    }
}

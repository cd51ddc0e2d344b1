//! A 3x3 convolution of an image upsampled to twice its size (nearest neighbour), without making
//! the large image.
//!
//! Of the nine pixels under the kernel at most four differ, so each of the four kinds of output
//! pixels (even or odd row, even or odd column) is a 2x2 convolution of the small image whose
//! weights are sums of the nine: 16 multiplications for what takes 36. (Shi et al. 2016, "Is the
//! deconvolution layer the same as a convolutional layer?", arXiv 1609.07009, describes the same
//! split.)

use burn::tensor::Shape;
use rayon::prelude::*;

use super::autodiff_op::Kernel;
use super::im2col::Patches;
use super::matmul::{MatmulPrecision, RightFactor};
use super::padded::{self, Padded, rows_of_task};
use super::partition::{add, fill_rows, sum_columns};
use super::product::{self, Packed};
use super::simd::{MatrixView, WriteMode};
use super::taps::{Taps, transposed};

/// `x [batch, height, width, inputs]`, `weight [outputs, inputs, 3, 3]`, `bias [outputs]` to
/// `[batch, 2 height, 2 width, outputs]`.
#[derive(Debug, Clone)]
pub(super) struct UpsampleConv {
    pub batch: usize,
    pub height: usize,
    pub width: usize,
    pub inputs: usize,
    pub outputs: usize,
    pub precision: MatmulPrecision,
}

/// Odd row and odd column of an output pixel, 0 or 1 each.
const KINDS: [[usize; 2]; 4] = [[0, 0], [0, 1], [1, 0], [1, 1]];

impl UpsampleConv {
    /// The 2x2 patches of the small image that output pixels of one kind see: those of even rows
    /// begin a row above, those of even columns a column to the left.
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

    fn taps(&self) -> Taps {
        Taps { outputs: self.outputs, inputs: self.inputs, taps: 9 }
    }

    /// Numbers in the weights of one kind, `[2, 2, inputs, outputs]`.
    fn weights(&self) -> usize {
        4 * self.inputs * self.outputs
    }

    /// Which of the four weights of a kind one of the nine adds to.
    fn small_tap([odd_row, odd_column]: [usize; 2], tap: usize) -> usize {
        let small = |tap: usize, odd: usize| (tap + 1 - odd) / 2;
        2 * small(tap / 3, odd_row) + small(tap % 3, odd_column)
    }

    /// The weights of each kind.
    fn by_kind(&self, weight: &[f32]) -> Vec<f32> {
        let sorted = self.taps().sort(weight);
        let slab = self.inputs * self.outputs;
        let mut kinds = vec![0.0; KINDS.len() * self.weights()];
        kinds.par_chunks_mut(slab).enumerate().for_each(|(place, total)| {
            let (kind, small) = (KINDS[place / 4], place % 4);
            for (tap, weight) in sorted.chunks_exact(slab).enumerate() {
                if Self::small_tap(kind, tap) == small {
                    add(total, weight);
                }
            }
        });
        kinds
    }

    /// The gradient of the weight from those of each kind's.
    fn whole_weight(&self, kinds: &[f32]) -> Vec<f32> {
        let slab = self.inputs * self.outputs;
        let mut sorted = vec![0.0; 9 * slab];
        sorted.par_chunks_mut(slab).enumerate().for_each(|(tap, total)| {
            for (number, kind) in KINDS.into_iter().enumerate() {
                add(total, &kinds[(4 * number + Self::small_tap(kind, tap)) * slab..][..slab]);
            }
        });
        self.taps().unsort(&sorted)
    }

    /// Whether the processor has products that read patches where they lie.
    fn reads_patches(&self) -> bool {
        self.precision == MatmulPrecision::F32 && product::is_supported()
    }

    /// The weights of each kind, for these products.
    fn packed(&self, kinds: &[f32]) -> Option<Vec<Packed>> {
        let n = self.outputs;
        let kinds = kinds.chunks_exact(self.weights());
        kinds
            .map(|weight| Packed::of_rows(4 * self.inputs, n, |row| &weight[row * n..][..n]))
            .collect()
    }

    /// Those by which each kind's gradient is convolved.
    fn packed_transposes(&self, kinds: &[f32]) -> Option<Vec<Packed>> {
        let (c, n) = (self.inputs, self.outputs);
        let slabs: Vec<Vec<f32>> =
            kinds.chunks_exact(c * n).map(|slab| transposed(slab, [c, n])).collect();
        let kinds = slabs.chunks_exact(4);
        kinds
            .map(|taps| Packed::of_rows(4 * n, c, |row| &taps[3 - row / n][row % n * c..][..c]))
            .collect()
    }

    /// The result, by these products.
    fn convolve(&self, x: &[f32], weights: &[Packed], bias: &[f32]) -> Vec<f32> {
        let (n, any) = (self.outputs, self.patches(KINDS[0]));
        let task = rows_of_task(&any, self.batch * self.height);
        let mut y = vec![0.0; self.batch * 4 * self.height * self.width * n];
        let tasks = y.par_chunks_mut(4 * task * self.width * n).enumerate();
        tasks.for_each_init(
            || (Padded::default(), vec![0.0; task * self.width * n]),
            |(padded, out), (number, y)| {
                let pixels = y.len() / (4 * n);
                let rows = number * task..number * task + pixels / self.width;
                let out = &mut out[..pixels * n];
                for (kind, weight) in KINDS.into_iter().zip(weights) {
                    let patches = self.patches(kind);
                    padded.fill(&patches, x, rows.clone());
                    fill_rows(out, bias);
                    weight.multiply(padded.left(&patches), 1.0, WriteMode::Accumulate, out, n);
                    self.each_pixel(kind, pixels, |from, to| {
                        y[to..to + n].copy_from_slice(&out[from..from + n]);
                    });
                }
            },
        );
        y
    }

    /// The image's gradient from those of each kind's pixels, `[kind, pixel, outputs]`, by these
    /// products.
    fn convolve_back(&self, douts: &[f32], weights: &[Packed]) -> Vec<f32> {
        let (c, pixels) = (self.inputs, self.batch * self.height * self.width);
        let mut dx = vec![0.0; pixels * c];
        let task = rows_of_task(&self.patches(KINDS[0]), self.batch * self.height);
        let tasks = dx.par_chunks_mut(task * self.width * c).enumerate();
        tasks.for_each_init(Padded::default, |padded, (number, dx)| {
            let rows = number * task..number * task + dx.len() / (self.width * c);
            let douts = douts.chunks_exact(pixels * self.outputs);
            for (kind, (dout, weight)) in douts.zip(weights).enumerate() {
                let patches = self.patches(KINDS[kind]).transposed(self.outputs);
                padded.fill(&patches, dout, rows.clone());
                weight.multiply(padded.left(&patches), 1.0, WriteMode::Accumulate, dx, c);
            }
        });
        dx
    }

    /// The image's gradient from those of each kind's pixels, `[kind, pixel, outputs]`.
    fn image_gradient(&self, weight: &[f32], douts: &[f32]) -> Vec<f32> {
        let weights = self.by_kind(weight);
        if self.reads_patches()
            && let Some(weights) = self.packed_transposes(&weights)
        {
            return self.convolve_back(douts, &weights);
        }
        let (n, any) = (self.outputs, self.patches(KINDS[0]));
        let weights: Vec<RightFactor> = weights
            .chunks_exact(self.weights())
            .map(|weight| MatrixView::rows(weight, n).t())
            .map(|weight| self.precision.right(weight, [n, 4 * self.inputs]))
            .collect();
        let pixels = self.batch * any.pixels();
        let mut dx = vec![0.0; self.batch * any.image()];
        let group = any.group();
        dx.par_chunks_mut(group * any.image()).enumerate().for_each_init(
            || any.buffer(),
            |unfolded, (number, dx)| {
                let first = number * group * any.pixels();
                let those = dx.len() / any.image() * any.pixels();
                for (kind, weight) in weights.iter().enumerate() {
                    let patches = self.patches(KINDS[kind]);
                    let dout = &douts[(kind * pixels + first) * n..][..those * n];
                    for (band, dout) in dout.chunks(patches.band() * self.width * n).enumerate() {
                        let (pixels, dout) = (dout.len() / n, MatrixView::rows(dout, n));
                        let (mode, width) = (WriteMode::Overwrite, patches.len());
                        weight.multiply(pixels, 1.0, dout, mode, unfolded, width);
                        patches.fold(unfolded, patches.rows_of(band, pixels), dx);
                    }
                }
            },
        );
        dx
    }

    /// The weight's gradient from the same.
    fn weight_gradient(&self, x: &[f32], douts: &[f32]) -> Vec<f32> {
        let (n, any) = (self.outputs, self.patches(KINDS[0]));
        let douts = douts.chunks_exact(self.batch * any.pixels() * n);
        if self.precision == MatmulPrecision::F32 {
            let of_kind = |(kind, dout)| padded::weight_gradient(&self.patches(kind), x, dout, n);
            let kinds = KINDS.into_iter().zip(douts.clone()).map(of_kind);
            if let Some(kinds) = kinds.collect::<Option<Vec<_>>>() {
                return self.whole_weight(&kinds.concat());
            }
        }
        let mut kinds = vec![0.0; KINDS.len() * self.weights()];
        let tasks: Vec<_> = kinds
            .chunks_mut(self.weights())
            .enumerate()
            .flat_map(|(kind, dw)| {
                let patches = self.patches(KINDS[kind]);
                patches.tap_blocks(dw, n).into_iter().map(move |task| (kind, patches, task))
            })
            .collect();
        let parts: Vec<Vec<RightFactor>> =
            douts.map(|dout| any.gradient_parts(self.precision, dout, n)).collect();
        tasks.into_par_iter().for_each(|(kind, patches, task)| {
            task.add_up(&patches, x, n, &parts[kind]);
        });
        self.whole_weight(&kinds)
    }

    /// Calls `f` with the ranges of each pixel of one kind, among those of some rows of small
    /// images and in the rows of large ones that they become.
    fn each_pixel(
        &self,
        [odd_row, odd_column]: [usize; 2],
        pixels: usize,
        mut f: impl FnMut(usize, usize),
    ) {
        let n = self.outputs;
        for pixel in 0..pixels {
            let (y, x) = (pixel / self.width, pixel % self.width);
            let large = (2 * y + odd_row) * 2 * self.width + 2 * x + odd_column;
            f(pixel * n, large * n);
        }
    }
}

impl Kernel<3> for UpsampleConv {
    fn shape(&self) -> Shape {
        [self.batch, 2 * self.height, 2 * self.width, self.outputs].into()
    }

    fn forward(&self, [x, weight, bias]: [&[f32]; 3], _keep: bool) -> (Vec<f32>, Vec<f32>) {
        let weights = self.by_kind(weight);
        if self.reads_patches()
            && let Some(weights) = self.packed(&weights)
        {
            return (self.convolve(x, &weights, bias), Vec::new());
        }
        let n = self.outputs;
        let weights: Vec<RightFactor> = weights
            .chunks_exact(self.weights())
            .map(|weight| self.precision.right(MatrixView::rows(weight, n), [4 * self.inputs, n]))
            .collect();
        let mut y = vec![0.0; self.batch * 4 * self.height * self.width * n];
        let any = self.patches(KINDS[0]);
        let band_pixels = any.band() * self.width;
        y.par_chunks_mut(4 * band_pixels * n).enumerate().for_each_init(
            || (any.buffer(), vec![0.0; band_pixels * n]),
            |(unfolded, out), (band, y)| {
                let pixels = y.len() / (4 * n);
                let out = &mut out[..pixels * n];
                for (kind, weight) in KINDS.into_iter().zip(&weights) {
                    let patches = self.patches(kind);
                    patches.unfold(x, patches.rows_of(band, pixels), unfolded);
                    fill_rows(out, bias);
                    let unfolded = MatrixView::rows(unfolded, patches.len());
                    weight.multiply(pixels, 1.0, unfolded, WriteMode::Accumulate, out, n);
                    self.each_pixel(kind, pixels, |from, to| {
                        y[to..to + n].copy_from_slice(&out[from..from + n]);
                    });
                }
            },
        );
        (y, Vec::new())
    }

    fn backward(
        &self,
        [x, weight, _]: [&[f32]; 3],
        _kept: &[f32],
        dy: &[f32],
        wanted: [bool; 3],
    ) -> [Option<Vec<f32>>; 3] {
        let n = self.outputs;
        // The gradient of each kind's pixels, side by side: `[kind, pixel, outputs]`.
        let pixels = dy.len() / (4 * n);
        let mut douts = vec![0.0; dy.len()];
        douts.par_chunks_mut(pixels * n).zip(KINDS).for_each(|(dout, kind)| {
            self.each_pixel(kind, pixels, |to, from| {
                dout[to..to + n].copy_from_slice(&dy[from..from + n]);
            });
        });
        let image = || wanted[0].then(|| self.image_gradient(weight, &douts));
        let weights = || wanted[1].then(|| self.weight_gradient(x, &douts));
        let bias = || wanted[2].then(|| sum_columns(dy, n));
        // Side by side, so that no core waits where one of them ends.
        let (dx, (dw, db)) = rayon::join(image, || rayon::join(weights, bias));
        [dx, dw, db]
    }
}

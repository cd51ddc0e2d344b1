//! Convolution as a matrix product over patches: read from padded images where a product of this
//! crate's own does that, unfolded elsewhere.

use burn::tensor::Shape;
use rayon::prelude::*;

use super::autodiff_op::Kernel;
use super::im2col::Patches;
use super::matmul::MatmulPrecision;
use super::padded;
use super::partition::{fill_rows, sum_columns};
use super::product::{self, Packed};
use super::simd::{MatrixView, WriteMode};
use super::taps::Taps;

/// `x [batch, height, width, inputs]`, `weight [outputs, inputs, kernel, kernel]`, `bias
/// [outputs]`.
#[derive(Debug, Clone)]
pub(super) struct Conv {
    pub batch: usize,
    pub outputs: usize,
    pub patches: Patches,
    pub precision: MatmulPrecision,
}

impl Conv {
    fn taps(&self) -> Taps {
        Taps {
            outputs: self.outputs,
            inputs: self.patches.channels,
            taps: self.patches.kernel.pow(2),
        }
    }

    /// The weight, for the processor's own products of `f32`.
    fn packed(&self, sorted: &[f32]) -> Option<Packed> {
        let (n, is_plain) = (self.outputs, self.precision == MatmulPrecision::F32);
        let packed = || Packed::of_rows(self.patches.len(), n, |row| &sorted[row * n..][..n]);
        is_plain.then(packed).flatten()
    }

    /// The weight by which the gradient is convolved, for the same products.
    fn packed_transpose(&self, weight: &[f32]) -> Option<Packed> {
        let (Taps { outputs, inputs, taps }, patches) = (self.taps(), &self.patches);
        let is_plain = self.precision == MatmulPrecision::F32 && patches.stride == 1;
        if !is_plain || !product::is_supported() {
            return None;
        }
        let sorted = self.taps().sort_within_outputs(weight);
        Packed::of_rows(taps * outputs, inputs, |row| {
            let (tap, output) = (taps - 1 - row / outputs, row % outputs);
            &sorted[(output * taps + tap) * inputs..][..inputs]
        })
    }

    fn image_gradient(&self, len: usize, weight: &[f32], dy: &[f32]) -> Vec<f32> {
        let (patches, n) = (&self.patches, self.outputs);
        if let Some(weight) = self.packed_transpose(weight) {
            return padded::convolve(&patches.transposed(n), dy, &weight, &[0.0]);
        }
        let weight = self.taps().sort_within_outputs(weight); // [outputs, patch]
        let weight = MatrixView::rows(&weight, patches.len());
        let weight = self.precision.right(weight, [n, patches.len()]);
        let mut dx = vec![0.0; len];
        let group = patches.group();
        let groups = dx
            .par_chunks_mut(group * patches.image())
            .zip(dy.par_chunks(group * patches.pixels() * n));
        groups.for_each_init(
            || patches.buffer(),
            |unfolded, (dx, dy)| {
                let bands = dy.chunks(patches.band() * patches.out_width * n).enumerate();
                for (band, dy) in bands {
                    let (pixels, dy) = (dy.len() / n, MatrixView::rows(dy, n));
                    let (mode, width) = (WriteMode::Overwrite, patches.len());
                    weight.multiply(pixels, 1.0, dy, mode, unfolded, width);
                    patches.fold(unfolded, patches.rows_of(band, pixels), dx);
                }
            },
        );
        dx
    }

    fn weight_gradient(&self, x: &[f32], dy: &[f32]) -> Vec<f32> {
        let (patches, n) = (&self.patches, self.outputs);
        let is_plain = self.precision == MatmulPrecision::F32;
        let direct = is_plain.then(|| padded::weight_gradient(patches, x, dy, n)).flatten();
        let dw = direct.unwrap_or_else(|| {
            let mut dw = vec![0.0; patches.len() * n];
            let tasks = patches.tap_blocks(&mut dw, n);
            let parts = patches.gradient_parts(self.precision, dy, n);
            tasks.into_par_iter().for_each(|task| task.add_up(patches, x, n, &parts));
            dw
        });
        self.taps().unsort(&dw)
    }
}

impl Kernel<3> for Conv {
    fn shape(&self) -> Shape {
        [self.batch, self.patches.out_height, self.patches.out_width, self.outputs].into()
    }

    fn forward(&self, [x, weight, bias]: [&[f32]; 3], _keep: bool) -> (Vec<f32>, Vec<f32>) {
        let weight = self.taps().sort(weight); // [patch, outputs]
        let (patches, n) = (&self.patches, self.outputs);
        if let Some(weight) = self.packed(&weight) {
            return (padded::convolve(patches, x, &weight, bias), Vec::new());
        }
        let weight = self.precision.right(MatrixView::rows(&weight, n), [patches.len(), n]);
        let mut y = vec![0.0; self.batch * patches.pixels() * n];
        let bands = y.par_chunks_mut(patches.band() * patches.out_width * n).enumerate();
        bands.for_each_init(
            || patches.buffer(),
            |unfolded, (band, y)| {
                patches.unfold(x, patches.rows_of(band, y.len() / n), unfolded);
                fill_rows(y, bias);
                let unfolded = MatrixView::rows(unfolded, patches.len());
                weight.multiply(y.len() / n, 1.0, unfolded, WriteMode::Accumulate, y, n);
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
        let image = || wanted[0].then(|| self.image_gradient(x.len(), weight, dy));
        let weights = || wanted[1].then(|| self.weight_gradient(x, dy));
        let bias = || wanted[2].then(|| sum_columns(dy, self.outputs));
        // Side by side, so that no core waits where one of them ends.
        let (dx, (dw, db)) = rayon::join(image, || rayon::join(weights, bias));
        [dx, dw, db]
    }
}

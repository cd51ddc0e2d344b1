//! Convolution as a matrix product over unfolded patches.

use burn::tensor::Shape;
use rayon::prelude::*;

use super::autodiff_op::Kernel;
use super::im2col::Patches;
use super::matmul::MatmulPrecision;
use super::partition::{fill_rows, sum_columns};
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
}

impl Kernel<3> for Conv {
    fn shape(&self) -> Shape {
        [self.batch, self.patches.out_height, self.patches.out_width, self.outputs].into()
    }

    fn forward(&self, [x, weight, bias]: [&[f32]; 3], _keep: bool) -> (Vec<f32>, Vec<f32>) {
        let weight = self.taps().sort(weight); // [patch, outputs]
        let (patches, n) = (&self.patches, self.outputs);
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
        let (patches, n) = (&self.patches, self.outputs);
        let dx = wanted[0].then(|| {
            let weight = self.taps().sort_within_outputs(weight); // [outputs, patch]
            let weight = MatrixView::rows(&weight, patches.len());
            let weight = self.precision.right(weight, [n, patches.len()]);
            let mut dx = vec![0.0; x.len()];
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
        });
        let dw = wanted[1].then(|| {
            let mut dw = vec![0.0; weight.len()];
            let tasks = patches.tap_blocks(&mut dw, n);
            let parts = patches.gradient_parts(self.precision, dy, n);
            tasks.into_par_iter().for_each(|task| task.add_up(patches, x, n, &parts));
            self.taps().unsort(&dw)
        });
        [dx, dw, wanted[2].then(|| sum_columns(dy, n))]
    }
}

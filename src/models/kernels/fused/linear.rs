//! Projections of rows: `x Wᵀ + b`.

use burn::tensor::Shape;
use rayon::prelude::*;

use super::autodiff_op::Kernel;
use super::matmul::MatmulPrecision;
use super::partition::{fill_rows, sum_columns, task_rows, weight_gradient};
use super::simd::{MatrixView, WriteMode};
use super::taps::transposed;

/// Rows that one task takes at most.
const ROWS: usize = 512;
/// From so many rows on, transposing the weight first pays.
const MANY: usize = 64;

/// `x [rows, inputs]`, `weight [outputs, inputs]`, and as a third input `bias [outputs]`.
#[derive(Debug, Clone)]
pub(super) struct Linear {
    pub shape: Shape,
    pub inputs: usize,
    pub outputs: usize,
    pub precision: MatmulPrecision,
}

impl Linear {
    fn run(&self, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        let (k, n) = (self.inputs, self.outputs);
        let rows = x.len() / k;
        let mut y = vec![0.0; rows * n];
        let task = task_rows(rows, ROWS);
        let turned = if rows >= MANY { transposed(weight, [n, k]) } else { Vec::new() };
        let weight = if turned.is_empty() {
            MatrixView::rows(weight, k).t()
        } else {
            MatrixView::rows(&turned, n)
        };
        let weight = self.precision.right(weight, [k, n]);
        y.par_chunks_mut(task * n).zip(x.par_chunks(task * k)).for_each(|(y, x)| {
            let mode = match bias {
                Some(bias) => {
                    fill_rows(y, bias);
                    WriteMode::Accumulate
                }
                None => WriteMode::Overwrite,
            };
            weight.multiply(x.len() / k, 1.0, MatrixView::rows(x, k), mode, y, n);
        });
        y
    }

    /// Gradients of `x`, `weight` and the bias.
    fn gradients(
        &self,
        x: &[f32],
        weight: &[f32],
        dy: &[f32],
        wanted: [bool; 3],
    ) -> [Option<Vec<f32>>; 3] {
        let (k, n) = (self.inputs, self.outputs);
        let task = task_rows(x.len() / k, ROWS);
        let dx = wanted[0].then(|| {
            let mut dx = vec![0.0; x.len()];
            let weight = self.precision.right(MatrixView::rows(weight, k), [n, k]);
            dx.par_chunks_mut(task * k).zip(dy.par_chunks(task * n)).for_each(|(dx, dy)| {
                let dy = MatrixView::rows(dy, n);
                weight.multiply(dx.len() / k, 1.0, dy, WriteMode::Overwrite, dx, k);
            });
            dx
        });
        let dw = wanted[1].then(|| weight_gradient(self.precision, x, dy, [n, k]));
        let db = wanted[2].then(|| sum_columns(dy, n));
        [dx, dw, db]
    }
}

impl Kernel<2> for Linear {
    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn forward(&self, [x, weight]: [&[f32]; 2], _keep: bool) -> (Vec<f32>, Vec<f32>) {
        (self.run(x, weight, None), Vec::new())
    }

    fn backward(
        &self,
        [x, weight]: [&[f32]; 2],
        _kept: &[f32],
        dy: &[f32],
        wanted: [bool; 2],
    ) -> [Option<Vec<f32>>; 2] {
        let [dx, dw, _] = self.gradients(x, weight, dy, [wanted[0], wanted[1], false]);
        [dx, dw]
    }
}

impl Kernel<3> for Linear {
    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn forward(&self, [x, weight, bias]: [&[f32]; 3], _keep: bool) -> (Vec<f32>, Vec<f32>) {
        (self.run(x, weight, Some(bias)), Vec::new())
    }

    fn backward(
        &self,
        [x, weight, _]: [&[f32]; 3],
        _kept: &[f32],
        dy: &[f32],
        wanted: [bool; 3],
    ) -> [Option<Vec<f32>>; 3] {
        self.gradients(x, weight, dy, wanted)
    }
}

//! Projections of rows: `x Wᵀ + b`.

use burn::tensor::Shape;

use super::autodiff_op::Kernel;
use super::fresh::{in_pieces, in_pieces_of};
use super::matmul::MatmulPrecision;
use super::partition::{sum_columns, task_rows, weight_gradient};
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
        let task = task_rows(rows, ROWS);
        let turned = if rows >= MANY { transposed(weight, [n, k]) } else { Vec::new() };
        let weight = if turned.is_empty() {
            MatrixView::rows(weight, k).t()
        } else {
            MatrixView::rows(&turned, n)
        };
        let weight = self.precision.right(weight, [k, n]);
        let make = |(): &mut (), number: usize, y: &mut [f32]| {
            let (rows, x) = (y.len() / n, MatrixView::rows(&x[number * task * k..], k));
            weight.multiply(rows, 1.0, x, WriteMode::Accumulate, y, n);
        };
        in_pieces_of(bias.unwrap_or(&[0.0]), rows * n, task * n, || (), make).0
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
        let input = || {
            wanted[0].then(|| {
                let weight = self.precision.right(MatrixView::rows(weight, k), [n, k]);
                let make = |number: usize, dx: &mut [f32]| {
                    let dy = MatrixView::rows(&dy[number * task * n..], n);
                    weight.multiply(dx.len() / k, 1.0, dy, WriteMode::Overwrite, dx, k);
                };
                in_pieces(x.len(), task * k, make).0
            })
        };
        let weights = || wanted[1].then(|| weight_gradient(self.precision, x, dy, [n, k]));
        let bias = || wanted[2].then(|| sum_columns(dy, n));
        // Side by side, so that no core waits where one of them ends.
        let (dx, (dw, db)) = rayon::join(input, || rayon::join(weights, bias));
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

//! Projections of rows: `x Wᵀ + b`.

use burn::tensor::Shape;
use rayon::prelude::*;

use super::machine::{Onto, View, product};
use super::op::Kernel;
use super::parts::{add_rows, fill_rows, sum_over_parts};

/// Rows that one task takes.
const ROWS: usize = 512;

/// `x [rows, inputs]`, `weight [outputs, inputs]`, and as a third input `bias [outputs]`.
#[derive(Debug, Clone)]
pub(super) struct Linear {
    pub shape: Shape,
    pub inputs: usize,
    pub outputs: usize,
}

impl Linear {
    fn run(&self, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        let (k, n) = (self.inputs, self.outputs);
        let mut y = vec![0.0; x.len() / k * n];
        y.par_chunks_mut(ROWS * n).zip(x.par_chunks(ROWS * k)).for_each(|(y, x)| {
            let onto = match bias {
                Some(bias) => {
                    fill_rows(y, bias);
                    Onto::Sum
                }
                None => Onto::Nothing,
            };
            let sizes = [x.len() / k, k, n];
            product(sizes, 1.0, View::rows(x, k), View::rows(weight, k).t(), onto, y, n);
        });
        y
    }

    /// Gradients of `x`, `weight` and the bias.
    fn gradients(&self, x: &[f32], weight: &[f32], dy: &[f32], wanted: [bool; 3]) -> [Option<Vec<f32>>; 3] {
        let (k, n) = (self.inputs, self.outputs);
        let rows = x.len() / k;
        let dx = wanted[0].then(|| {
            let mut dx = vec![0.0; x.len()];
            dx.par_chunks_mut(ROWS * k).zip(dy.par_chunks(ROWS * n)).for_each(|(dx, dy)| {
                let sizes = [dx.len() / k, n, k];
                product(sizes, 1.0, View::rows(dy, n), View::rows(weight, k), Onto::Nothing, dx, k);
            });
            dx
        });
        let (dw, db) = match wanted[1] || wanted[2] {
            false => (None, None),
            true => {
                let [dw, db] = sum_over_parts(rows, |part| {
                    let (x, dy) = (&x[part.start * k..part.end * k], &dy[part.start * n..part.end * n]);
                    let mut dw = vec![0.0; n * k];
                    let sizes = [n, part.len(), k];
                    product(sizes, 1.0, View::rows(dy, n).t(), View::rows(x, k), Onto::Nothing, &mut dw, k);
                    let mut db = vec![0.0; n];
                    add_rows(&mut db, dy);
                    [dw, db]
                });
                (wanted[1].then_some(dw), wanted[2].then_some(db))
            }
        };
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

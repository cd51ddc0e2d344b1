//! The perceptron of a transformer block: two projections with a GELU between them, a few rows at a
//! time, so that the wide hidden rows stay in the cache. Only what enters the GELU is kept for the
//! gradient.

use burn::tensor::Shape;
use rayon::prelude::*;

use super::autodiff_op::Kernel;
use super::math;
use super::matmul::{MatmulPrecision, RightFactor};
use super::partition::{
    add_rows, add_up, fill_rows, is_large, part_len, sum_columns, task_rows, weight_gradient,
    zeros_if,
};
use super::simd::{MatrixView, WriteMode, with_simd};
use super::taps::transposed;

/// Rows that are worked on together.
const ROWS: usize = 128;

/// `x [rows, width]`, `w1 [hidden, width]`, `b1 [hidden]`, `w2 [width, hidden]`, `b2 [width]`.
#[derive(Debug, Clone)]
pub(super) struct Mlp {
    pub shape: Shape,
    pub width: usize,
    pub hidden: usize,
    pub precision: MatmulPrecision,
}

impl Kernel<5> for Mlp {
    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn forward(&self, [x, w1, b1, w2, b2]: [&[f32]; 5], keep: bool) -> (Vec<f32>, Vec<f32>) {
        let (c, hidden) = (self.width, self.hidden);
        let rows = x.len() / c;
        let mut y = vec![0.0; x.len()];
        let mut kept = vec![0.0; if keep { rows * hidden } else { 0 }];
        let (w1, w2) = (transposed(w1, [hidden, c]), transposed(w2, [c, hidden]));
        let w1 = self.precision.right(MatrixView::rows(&w1, hidden), [c, hidden]);
        let w2 = self.precision.right(MatrixView::rows(&w2, c), [hidden, c]);
        let run = |x: &[f32], y: &mut [f32], u: &mut [f32], h: &mut [f32]| {
            let rows = x.len() / c;
            fill_rows(u, b1);
            w1.multiply(rows, 1.0, MatrixView::rows(x, c), WriteMode::Accumulate, u, hidden);
            with_simd(
                #[inline(always)]
                || h.iter_mut().zip(&*u).for_each(|(h, u)| *h = u * math::normal_below(*u)),
            );
            fill_rows(y, b2);
            w2.multiply(rows, 1.0, MatrixView::rows(h, hidden), WriteMode::Accumulate, y, c);
        };
        let task = task_rows(rows, ROWS);
        let blocks = y.par_chunks_mut(task * c).zip(x.par_chunks(task * c));
        if keep {
            blocks.zip(kept.par_chunks_mut(task * hidden)).for_each(|((y, x), u)| {
                let mut h = vec![0.0; u.len()];
                run(x, y, u, &mut h);
            });
        } else {
            blocks.for_each(|(y, x)| {
                let mut u = vec![0.0; x.len() / c * hidden];
                let mut h = vec![0.0; u.len()];
                run(x, y, &mut u, &mut h);
            });
        }
        (y, kept)
    }

    fn backward(
        &self,
        [x, w1, _, w2, _]: [&[f32]; 5],
        kept: &[f32],
        dy: &[f32],
        wanted: [bool; 5],
    ) -> [Option<Vec<f32>>; 5] {
        let (c, hidden) = (self.width, self.hidden);
        if is_large(c * hidden, x.len() / c) {
            return self.weight_first_backward([x, w1, w2], kept, dy, wanted);
        }
        let [w1, w2] = self.right_factors([w1, w2]);
        let part = part_len(x.len() / c);
        let mut dx = vec![0.0; x.len()];
        let rows =
            dx.par_chunks_mut(part * c).zip(x.par_chunks(part * c)).zip(dy.par_chunks(part * c));
        let sums: Vec<[Vec<f32>; 4]> = rows
            .zip(kept.par_chunks(part * hidden))
            .map(|(((dx, x), dy), u)| {
                let [mut dw1, mut dw2] =
                    [wanted[1], wanted[3]].map(|wanted| zeros_if(wanted, c * hidden));
                let (mut db1, mut db2) = (zeros_if(wanted[2], hidden), zeros_if(wanted[4], c));
                let [mut h, mut du] = [(); 2].map(|()| vec![0.0; ROWS * hidden]);
                let blocks =
                    dx.chunks_mut(ROWS * c).zip(x.chunks(ROWS * c)).zip(dy.chunks(ROWS * c));
                for (((dx, x), dy), u) in blocks.zip(u.chunks(ROWS * hidden)) {
                    let rows = x.len() / c;
                    let (h, du) = (&mut h[..u.len()], &mut du[..u.len()]);
                    self.gelu_backward(dy, u, &w2, h, du);
                    let (h, du) = (&*h, &*du);
                    if wanted[4] {
                        add_rows(&mut db2, dy);
                    }
                    if wanted[2] {
                        add_rows(&mut db1, du);
                    }
                    let (h_rows, du_rows) =
                        (MatrixView::rows(h, hidden), MatrixView::rows(du, hidden));
                    if wanted[3] {
                        let dy = MatrixView::rows(dy, c);
                        self.precision.add_transposed([c, rows, hidden], dy, h_rows, &mut dw2);
                    }
                    if wanted[1] {
                        let x = MatrixView::rows(x, c);
                        self.precision.add_transposed([hidden, rows, c], du_rows, x, &mut dw1);
                    }
                    w1.multiply(rows, 1.0, du_rows, WriteMode::Overwrite, dx, c);
                }
                [dw1, db1, dw2, db2]
            })
            .collect();
        let [dw1, db1, dw2, db2] = add_up(sums);
        let mut found = [dx, dw1, db1, dw2, db2]
            .into_iter()
            .zip(wanted)
            .map(|(grad, wanted)| wanted.then_some(grad));
        std::array::from_fn(|_| found.next().flatten())
    }
}

impl Mlp {
    /// Both weights as the gradient multiplies with them.
    fn right_factors<'a>(&self, [w1, w2]: [&'a [f32]; 2]) -> [RightFactor<'a>; 2] {
        let (c, hidden) = (self.width, self.hidden);
        [
            self.precision.right(MatrixView::rows(w1, c), [hidden, c]),
            self.precision.right(MatrixView::rows(w2, hidden), [c, hidden]),
        ]
    }

    /// For some rows: what left the GELU, `h`, and the gradient of what entered it, `du`.
    fn gelu_backward(
        &self,
        dy: &[f32],
        u: &[f32],
        w2: &RightFactor,
        h: &mut [f32],
        du: &mut [f32],
    ) {
        let (c, hidden) = (self.width, self.hidden);
        let dy_rows = MatrixView::rows(dy, c);
        w2.multiply(dy.len() / c, 1.0, dy_rows, WriteMode::Overwrite, du, hidden);
        with_simd(
            #[inline(always)]
            || {
                for ((h, du), u) in h.iter_mut().zip(&mut *du).zip(u) {
                    let below = math::normal_below(*u);
                    *h = u * below;
                    *du *= below + u * math::normal_density(*u);
                }
            },
        );
    }

    /// The gradients where the weights are large beside the rows: the hidden rows of all of them
    /// first, then each weight's gradient in one go.
    fn weight_first_backward(
        &self,
        [x, w1, w2]: [&[f32]; 3],
        kept: &[f32],
        dy: &[f32],
        wanted: [bool; 5],
    ) -> [Option<Vec<f32>>; 5] {
        let (c, hidden) = (self.width, self.hidden);
        let factors = self.right_factors([w1, w2]);
        let [w1, w2] = &factors;
        let task = task_rows(x.len() / c, ROWS);
        let [mut h, mut du] = [(); 2].map(|()| vec![0.0; kept.len()]);
        let mut dx = vec![0.0; x.len()];
        let hiddens = h.par_chunks_mut(task * hidden).zip(du.par_chunks_mut(task * hidden));
        let rows = dx.par_chunks_mut(task * c).zip(dy.par_chunks(task * c));
        hiddens.zip(rows).zip(kept.par_chunks(task * hidden)).for_each(
            |(((h, du), (dx, dy)), u)| {
                self.gelu_backward(dy, u, w2, h, du);
                let du = MatrixView::rows(du, hidden);
                w1.multiply(dy.len() / c, 1.0, du, WriteMode::Overwrite, dx, c);
            },
        );
        [
            wanted[0].then_some(dx),
            wanted[1].then(|| weight_gradient(self.precision, x, &du, [hidden, c])),
            wanted[2].then(|| sum_columns(&du, hidden)),
            wanted[3].then(|| weight_gradient(self.precision, &h, dy, [c, hidden])),
            wanted[4].then(|| sum_columns(dy, c)),
        ]
    }
}

//! Self-attention in windows, one window at a time: the time token's share is added, scores,
//! softmax and the mix are made and used in the cache. Only the input is kept; the gradient makes
//! the scores again.

use burn::tensor::Shape;
use rayon::prelude::*;

use super::autodiff_op::Kernel;
use super::math::{self, largest};
use super::matmul::MatmulPrecision;
use super::partition::{add_rows, add_up, part_len};
use super::simd::{MatrixView, WriteMode, with_simd};
use crate::kernels::definitions::relative_position;

/// `qkv [batch, height, width, 3 dim]`, `qkv_t [batch, 3 dim]`, `table [(2 window - 1)², heads]`.
#[derive(Debug, Clone)]
pub(super) struct Attention {
    pub batch: usize,
    pub height: usize,
    pub width: usize,
    pub dim: usize,
    pub heads: usize,
    pub window: usize,
    pub precision: MatmulPrecision,
}

impl Attention {
    /// Pixels of a window.
    fn n(&self) -> usize {
        self.window * self.window
    }

    /// Bias of each (head, query, key).
    fn bias(&self, table: &[f32]) -> Vec<f32> {
        let rows = relative_position(self.window);
        (0..self.heads)
            .flat_map(|head| rows.iter().map(move |row| table[row * self.heads + head]))
            .collect()
    }

    /// First pixel of every window of an image, as an index into its pixels.
    fn windows(&self) -> impl Iterator<Item = usize> {
        let (side, width, columns) = (self.window, self.width, self.width / self.window);
        (0..self.height / side * columns).map(move |i| (i / columns * width + i % columns) * side)
    }

    /// Queries, keys and values of the window at `first`, time token included: `[n, 3 dim]`.
    #[inline(always)]
    fn gather(&self, image: &[f32], token: &[f32], first: usize, out: &mut [f32]) {
        let row = self.window * 3 * self.dim;
        for (y, out) in out.chunks_exact_mut(row).enumerate() {
            let image = &image[(first + y * self.width) * 3 * self.dim..][..row];
            for (out, image) in
                out.chunks_exact_mut(token.len()).zip(image.chunks_exact(token.len()))
            {
                for ((out, v), t) in out.iter_mut().zip(image).zip(token) {
                    *out = v + t;
                }
            }
        }
    }

    /// Puts a window's rows `[n, width]` back into the image.
    fn scatter(&self, window: &[f32], first: usize, image: &mut [f32]) {
        let pixel = window.len() / self.n();
        let row = self.window * pixel;
        for (y, window) in window.chunks_exact(row).enumerate() {
            image[(first + y * self.width) * pixel..][..row].copy_from_slice(window);
        }
    }

    /// One head's queries, keys and values in a window's rows.
    fn head<'a>(&self, qkv: &'a [f32], head: usize) -> [MatrixView<'a>; 3] {
        [0, 1, 2].map(|part| MatrixView::rows(&qkv[self.place(part, head)..], 3 * self.dim))
    }

    /// Where a head's queries (0), keys (1) or values (2) begin in a row.
    fn place(&self, part: usize, head: usize) -> usize {
        part * self.dim + head * (self.dim / self.heads)
    }

    fn scale(&self) -> f32 {
        1.0 / ((self.dim / self.heads) as f32).sqrt()
    }

    /// The attention weights of each query (row) over the keys: softmax of the scaled scores plus
    /// `bias`.
    fn attention_weights(&self, q: MatrixView, k: MatrixView, bias: &[f32], out: &mut [f32]) {
        let n = self.n();
        self.precision.gemm(
            [n, self.dim / self.heads, n],
            self.scale(),
            q,
            k.t(),
            WriteMode::Overwrite,
            out,
            n,
        );
        with_simd(
            #[inline(always)]
            || {
                for (row, bias) in out.chunks_exact_mut(n).zip(bias.chunks_exact(n)) {
                    row.iter_mut().zip(bias).for_each(|(v, b)| *v += b);
                    let top = largest(row);
                    row.iter_mut().for_each(|v| *v = math::exp(*v - top));
                    let share = 1.0 / math::sum(row, |v| v);
                    row.iter_mut().for_each(|v| *v *= share);
                }
            },
        );
    }
}

impl Kernel<3> for Attention {
    fn shape(&self) -> Shape {
        [self.batch, self.height, self.width, self.dim].into()
    }

    fn forward(&self, [qkv, qkv_t, table]: [&[f32]; 3], _keep: bool) -> (Vec<f32>, Vec<f32>) {
        let (n, c, d) = (self.n(), self.dim, self.dim / self.heads);
        let bias = self.bias(table);
        let image = self.height * self.width * c;
        let mut mixed = vec![0.0; self.batch * image];
        let images =
            mixed.par_chunks_mut(image).zip(qkv.par_chunks(3 * image)).zip(qkv_t.par_chunks(3 * c));
        images.for_each(|((mixed, qkv), token)| {
            let (mut rows, mut weights, mut out) =
                (vec![0.0; n * 3 * c], vec![0.0; n * n], vec![0.0; n * c]);
            for first in self.windows() {
                with_simd(
                    #[inline(always)]
                    || self.gather(qkv, token, first, &mut rows),
                );
                for (head, bias) in bias.chunks_exact(n * n).enumerate() {
                    let [q, k, v] = self.head(&rows, head);
                    self.attention_weights(q, k, bias, &mut weights);
                    let weights = MatrixView::rows(&weights, n);
                    self.precision.gemm(
                        [n, n, d],
                        1.0,
                        weights,
                        v,
                        WriteMode::Overwrite,
                        &mut out[head * d..],
                        c,
                    );
                }
                self.scatter(&out, first, mixed);
            }
        });
        (mixed, Vec::new())
    }

    fn backward(
        &self,
        [qkv, qkv_t, table]: [&[f32]; 3],
        _kept: &[f32],
        dmixed: &[f32],
        wanted: [bool; 3],
    ) -> [Option<Vec<f32>>; 3] {
        let (n, c, d) = (self.n(), self.dim, self.dim / self.heads);
        let bias = self.bias(table);
        let image = self.height * self.width * c;
        let part = part_len(self.batch);
        let (mut dqkv, mut dqkv_t) = (vec![0.0; qkv.len()], vec![0.0; qkv_t.len()]);
        let grads = dqkv.par_chunks_mut(part * 3 * image).zip(dqkv_t.par_chunks_mut(part * 3 * c));
        let inputs = qkv.par_chunks(part * 3 * image).zip(qkv_t.par_chunks(part * 3 * c));
        let sums: Vec<[Vec<f32>; 1]> = grads
            .zip(inputs)
            .zip(dmixed.par_chunks(part * image))
            .map(|(((dqkv, dqkv_t), (qkv, qkv_t)), dmixed)| {
                let mut dbias = vec![0.0; bias.len()];
                let [mut rows, mut drows] = [(); 2].map(|()| vec![0.0; n * 3 * c]);
                let [mut weights, mut dweights] = [(); 2].map(|()| vec![0.0; n * n]);
                let mut dout = vec![0.0; n * c];
                let grads = dqkv.chunks_exact_mut(3 * image).zip(dqkv_t.chunks_exact_mut(3 * c));
                let inputs = qkv.chunks_exact(3 * image).zip(qkv_t.chunks_exact(3 * c));
                for (((dqkv, dtoken), (qkv, token)), dmixed) in
                    grads.zip(inputs).zip(dmixed.chunks_exact(image))
                {
                    for first in self.windows() {
                        with_simd(
                            #[inline(always)]
                            || self.gather(qkv, token, first, &mut rows),
                        );
                        for (y, out) in dout.chunks_exact_mut(self.window * c).enumerate() {
                            let from = (first + y * self.width) * c;
                            out.copy_from_slice(&dmixed[from..from + self.window * c]);
                        }
                        let heads = bias.chunks_exact(n * n).zip(dbias.chunks_exact_mut(n * n));
                        for (head, (bias, dbias)) in heads.enumerate() {
                            let [q, k, v] = self.head(&rows, head);
                            let dout = MatrixView::rows(&dout[head * d..], c);
                            self.attention_weights(q, k, bias, &mut weights);
                            self.precision.gemm(
                                [n, d, n],
                                1.0,
                                dout,
                                v.t(),
                                WriteMode::Overwrite,
                                &mut dweights,
                                n,
                            );
                            let dv = &mut drows[self.place(2, head)..];
                            self.precision.gemm(
                                [n, n, d],
                                1.0,
                                MatrixView::rows(&weights, n).t(),
                                dout,
                                WriteMode::Overwrite,
                                dv,
                                3 * c,
                            );
                            softmax_backward(&weights, &mut dweights, dbias, n);
                            let dscores = MatrixView::rows(&dweights, n);
                            let dq = &mut drows[self.place(0, head)..];
                            self.precision.gemm(
                                [n, n, d],
                                self.scale(),
                                dscores,
                                k,
                                WriteMode::Overwrite,
                                dq,
                                3 * c,
                            );
                            let dk = &mut drows[self.place(1, head)..];
                            self.precision.gemm(
                                [n, n, d],
                                self.scale(),
                                dscores.t(),
                                q,
                                WriteMode::Overwrite,
                                dk,
                                3 * c,
                            );
                        }
                        add_rows(dtoken, &drows);
                        self.scatter(&drows, first, dqkv);
                    }
                }
                [dbias]
            })
            .collect();
        let [dbias] = add_up(sums);
        let dtable = wanted[2].then(|| {
            let mut dtable = vec![0.0; table.len()];
            for (head, dbias) in dbias.chunks_exact(n * n).enumerate() {
                for (row, grad) in relative_position(self.window).into_iter().zip(dbias) {
                    dtable[row * self.heads + head] += grad;
                }
            }
            dtable
        });
        [wanted[0].then_some(dqkv), wanted[1].then_some(dqkv_t), dtable]
    }
}

/// Turns gradients of the attention weights into gradients of the scores, and adds them to the
/// bias's.
fn softmax_backward(weights: &[f32], dweights: &mut [f32], dbias: &mut [f32], n: usize) {
    with_simd(
        #[inline(always)]
        || {
            let rows = weights
                .chunks_exact(n)
                .zip(dweights.chunks_exact_mut(n))
                .zip(dbias.chunks_exact_mut(n));
            for ((share, dshare), dbias) in rows {
                let along = math::sum_pairs(share, dshare, |p, d| p * d);
                for ((share, dshare), dbias) in share.iter().zip(dshare).zip(dbias) {
                    *dshare = share * (*dshare - along);
                    *dbias += *dshare;
                }
            }
        },
    );
}

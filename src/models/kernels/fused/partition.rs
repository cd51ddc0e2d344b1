//! How sums over many rows are partitioned among threads without the bits depending on them.

use std::ops::Range;

use rayon::prelude::*;

use super::matmul::MatmulPrecision;
use super::simd::{MatrixView, with_simd};

/// Parts that a sum is cut into. More would cost memory traffic, fewer would leave cores idle.
const PARTS: usize = 8;

/// Rows in each part but the last.
pub(super) fn part_len(rows: usize) -> usize {
    rows.div_ceil(PARTS).max(1)
}

/// Rows that one task takes: `most`, or fewer where there are few, so that every core has some.
pub(super) fn task_rows(rows: usize, most: usize) -> usize {
    const LEAST: usize = 64;
    part_len(rows).clamp(LEAST.min(most), most)
}

/// The parts of `rows`, in order. Only `rows` decides them.
fn parts(rows: usize) -> Vec<Range<usize>> {
    let len = part_len(rows);
    (0..rows.div_ceil(len)).map(|part| part * len..rows.min((part + 1) * len)).collect()
}

/// Runs `work` on every part and adds up the arrays it returns, part after part.
fn sum_over_parts<const N: usize>(
    rows: usize,
    work: impl Fn(Range<usize>) -> [Vec<f32>; N] + Send + Sync,
) -> [Vec<f32>; N] {
    add_up(parts(rows).into_par_iter().map(work).collect())
}

/// Whether a weight of so many numbers is so large beside the rows that its gradient is better not
/// kept once for each part.
pub(super) fn is_large(weight: usize, rows: usize) -> bool {
    weight > 32 * rows
}

/// `dyᵀ x`: the gradient `[n, k]` of a projection's weight, from `x [rows, k]` and `dy [rows, n]`.
pub(super) fn weight_gradient(
    precision: MatmulPrecision,
    x: &[f32],
    dy: &[f32],
    [n, k]: [usize; 2],
) -> Vec<f32> {
    let rows = x.len() / k;
    if is_large(n * k, rows) {
        // By outputs: each task reads all rows.
        let outputs = part_len(n).next_multiple_of(16);
        let mut dw = vec![0.0; n * k];
        dw.par_chunks_mut(outputs * k).enumerate().for_each(|(task, dw)| {
            let (dy, x) = (MatrixView::rows(&dy[task * outputs..], n), MatrixView::rows(x, k));
            precision.add_transposed([dw.len() / k, rows, k], dy, x, dw);
        });
        return dw;
    }
    let [dw] = sum_over_parts(rows, |part| {
        let (x, dy) = (&x[part.start * k..part.end * k], &dy[part.start * n..part.end * n]);
        let mut dw = vec![0.0; n * k];
        let sizes = [n, part.len(), k];
        precision.add_transposed(sizes, MatrixView::rows(dy, n), MatrixView::rows(x, k), &mut dw);
        [dw]
    });
    dw
}

/// Room for a sum, if it is wanted.
pub(super) fn zeros_if(wanted: bool, len: usize) -> Vec<f32> {
    vec![0.0; if wanted { len } else { 0 }]
}

/// Adds up the arrays of each part, in order.
pub(super) fn add_up<const N: usize>(parts: Vec<[Vec<f32>; N]>) -> [Vec<f32>; N] {
    let mut parts = parts.into_iter();
    let Some(mut total) = parts.next() else { return std::array::from_fn(|_| Vec::new()) };
    let rest: Vec<[Vec<f32>; N]> = parts.collect();
    for (array, total) in total.iter_mut().enumerate() {
        const BLOCK: usize = 16_384;
        total.par_chunks_mut(BLOCK).enumerate().for_each(|(block, total)| {
            for part in &rest {
                add(total, &part[array][block * BLOCK..][..total.len()]);
            }
        });
    }
    total
}

/// `total += row`, element by element.
pub(super) fn add(total: &mut [f32], row: &[f32]) {
    with_simd(
        #[inline(always)]
        || total.iter_mut().zip(row).for_each(|(total, v)| *total += v),
    );
}

/// `total += ` the sum of the rows of `rows`, each as long as `total`.
pub(super) fn add_rows(total: &mut [f32], rows: &[f32]) {
    with_simd(
        #[inline(always)]
        || {
            for row in rows.chunks_exact(total.len()) {
                total.iter_mut().zip(row).for_each(|(total, v)| *total += v);
            }
        },
    );
}

/// The sum of the rows of `rows`, `width` wide.
pub(super) fn sum_columns(rows: &[f32], width: usize) -> Vec<f32> {
    let [total] = sum_over_parts(rows.len() / width, |part| {
        let mut total = vec![0.0; width];
        add_rows(&mut total, &rows[part.start * width..part.end * width]);
        [total]
    });
    total
}

/// Puts `row` into every row of `out`.
pub(super) fn fill_rows(out: &mut [f32], row: &[f32]) {
    out.chunks_exact_mut(row.len()).for_each(|out| out.copy_from_slice(row));
}

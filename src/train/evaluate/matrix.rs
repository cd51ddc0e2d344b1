//! Products of matrices of 64-bit floats, and sums over their rows.

use rayon::prelude::*;

use crate::kernels::{MatrixView, WriteMode, gemm};

/// Rows of a product that one thread computes.
const ROWS: usize = 128;

/// Matrices of 64-bit floats.
pub(super) type View<'a> = MatrixView<'a, f64>;

/// `out = a b`, or `out += a b`, on this thread: `a` is `m` by `k`, `b` is `k` by `n`, `out` holds
/// `m` rows of `n`. Each number is summed in an order that only the sizes decide.
pub(super) fn product_here([m, k, n]: [usize; 3], a: View, b: View, add: bool, out: &mut [f64]) {
    assert!(out.len() == m * n, "the product has another size");
    if k == 0 && !add {
        out.fill(0.0);
    }
    let mode = if add { WriteMode::Accumulate } else { WriteMode::Overwrite };
    gemm([m, k, n], 1.0, a, b, mode, out, n);
}

/// [`product_here`] on all threads, a fixed number of rows on each.
pub(super) fn product([m, k, n]: [usize; 3], a: View, b: View, add: bool, out: &mut [f64]) {
    assert!(out.len() == m * n, "the product has another size");
    if n == 0 {
        return;
    }
    out.par_chunks_mut(ROWS * n).enumerate().for_each(|(index, out)| {
        let below = a.data.get(index * ROWS * a.rows..).unwrap_or_default();
        product_here([out.len() / n, k, n], View { data: below, ..a }, b, add, out);
    });
}

/// How many sums a dot product keeps, so that they can be computed beside each other.
const LANES: usize = 16;

/// The dot product, summed in an order that only the length decides.
#[inline(always)]
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; LANES];
    let (a_parts, b_parts) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f64 = a_parts.remainder().iter().zip(b_parts.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_parts.zip(b_parts) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f64>() + rest
}

/// `y += scale * x`.
#[inline(always)]
pub(super) fn add_scaled(y: &mut [f64], scale: f64, x: &[f64]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += scale * x;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_the_sums_that_define_them() {
        let (m, k, n) = (301, 37, 23);
        let number = |i: usize| ((i * 7919) % 101) as f64 - 50.0;
        let a: Vec<f64> = (0..m * k).map(number).collect();
        let b: Vec<f64> = (0..n * k).map(number).collect();
        let mut out = vec![1.0; m * n];
        product([m, k, n], View::rows(&a, k), View::rows(&b, k).t(), true, &mut out);
        for i in 0..m {
            for j in 0..n {
                let sum = dot(&a[i * k..][..k], &b[j * k..][..k]);
                assert_eq!(out[i * n + j], 1.0 + sum, "whole numbers have no rounding");
            }
        }
    }
}

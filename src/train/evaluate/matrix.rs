//! Products of matrices of 64-bit floats, and loops compiled for wide vector instructions.
//!
//! These are the places where this module leaves safe Rust. Everything is checked before the call.
#![allow(unsafe_code)]

use rayon::prelude::*;

/// Rows of a product that one thread computes.
const ROWS: usize = 128;

/// A matrix inside a slice: element (i, j) stands at `i * rows + j * columns`.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    data: &'a [f64],
    rows: usize,
    columns: usize,
}

impl<'a> View<'a> {
    /// A matrix whose rows stand one after another, `width` apart.
    pub fn rows(data: &'a [f64], width: usize) -> Self {
        Self { data, rows: width, columns: 1 }
    }

    /// The transpose.
    pub fn t(self) -> Self {
        Self { data: self.data, rows: self.columns, columns: self.rows }
    }

    fn holds(&self, m: usize, n: usize) -> bool {
        m == 0 || n == 0 || (m - 1) * self.rows + (n - 1) * self.columns < self.data.len()
    }

    /// Without its first rows.
    fn skip(self, rows: usize) -> Self {
        Self { data: self.data.get(rows * self.rows..).unwrap_or_default(), ..self }
    }
}

/// `out = a b`, or `out += a b`, on this thread: `a` is `m` by `k`, `b` is `k` by `n`, `out` holds
/// `m` rows of `n`. Each number is summed in an order that only the sizes decide.
pub(super) fn product_here([m, k, n]: [usize; 3], a: View, b: View, add: bool, out: &mut [f64]) {
    assert!(a.holds(m, k) && b.holds(k, n), "a matrix is smaller than its product needs");
    assert!(out.len() == m * n, "the product has another size");
    if k == 0 || m == 0 || n == 0 {
        if !add {
            out.fill(0.0);
        }
        return;
    }
    // SAFETY: the assertions above keep every element that is read or written inside its slice,
    // `out` is borrowed exclusively, its rows do not overlap, and a slice's length keeps each
    // stride within isize.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            add,
            a.data.as_ptr(),
            a.columns as isize,
            a.rows as isize,
            b.data.as_ptr(),
            b.columns as isize,
            b.rows as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// [`product_here`] on all threads, a fixed number of rows on each.
pub(super) fn product([m, k, n]: [usize; 3], a: View, b: View, add: bool, out: &mut [f64]) {
    assert!(out.len() == m * n, "the product has another size");
    if n == 0 {
        return;
    }
    out.par_chunks_mut(ROWS * n).enumerate().for_each(|(index, out)| {
        product_here([out.len() / n, k, n], a.skip(index * ROWS), b, add, out);
    });
}

/// Runs `work` compiled for AVX2 where the processor has it. Loops in `work` must be inlined into
/// it. No result changes: multiplications and additions stay separate.
#[inline]
pub(super) fn with_simd<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        fn compiled_wider<R>(work: impl FnOnce() -> R) -> R {
            work()
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has what the function is compiled for.
            return unsafe { compiled_wider(work) };
        }
    }
    work()
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

//! Wide vector instructions and the matrix product, the two places where the CPU kernels leave safe
//! Rust: calling the matrix product, and calling code compiled for wider vector instructions.
//! Everything is checked before the call.
#![allow(unsafe_code)]

/// A matrix inside a slice: element (i, j) stands at `i * rows + j * columns`.
#[derive(Clone, Copy)]
pub struct MatrixView<'a, T = f32> {
    pub data: &'a [T],
    pub rows: usize,
    pub columns: usize,
}

impl<'a, T> MatrixView<'a, T> {
    /// A matrix whose rows stand one after another, `width` apart.
    pub fn rows(data: &'a [T], width: usize) -> Self {
        Self { data, rows: width, columns: 1 }
    }

    /// The transpose.
    pub fn t(self) -> Self {
        Self { data: self.data, rows: self.columns, columns: self.rows }
    }

    /// Where element (i, j) stands.
    pub fn index(&self, i: usize, j: usize) -> usize {
        i * self.rows + j * self.columns
    }

    /// Whether all elements of an `m` by `n` matrix are there.
    pub fn holds(&self, m: usize, n: usize) -> bool {
        m == 0 || n == 0 || self.index(m - 1, n - 1) < self.data.len()
    }
}

/// What stands in the destination of a product before it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum WriteMode {
    /// Anything: it is overwritten.
    Overwrite,
    /// Numbers to add to.
    Accumulate,
}

/// `out (+)= scale * a b` on this thread: `a` is `m` by `k`, `b` is `k` by `n`, rows of `out` stand
/// `width` apart.
///
/// One thread computes each number, in an order that only the sizes decide.
pub fn gemm<T: From<f32> + Copy + 'static>(
    [m, k, n]: [usize; 3],
    scale: T,
    a: MatrixView<T>,
    b: MatrixView<T>,
    mode: WriteMode,
    out: &mut [T],
    width: usize,
) {
    assert!(a.holds(m, k) && b.holds(k, n), "a matrix is smaller than its product needs");
    assert!(m == 0 || n == 0 || (n <= width && (m - 1) * width + n <= out.len()));
    if k == 0 || m == 0 || n == 0 {
        return;
    }
    // SAFETY: the assertions above keep every element that is read or written inside its slice,
    // `out` is borrowed exclusively, its rows do not overlap (n <= width), and a slice's length
    // keeps each stride within isize.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            width as isize,
            mode == WriteMode::Accumulate,
            a.data.as_ptr(),
            a.columns as isize,
            a.rows as isize,
            b.data.as_ptr(),
            b.columns as isize,
            b.rows as isize,
            T::from(1.0),
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Runs `work` compiled for AVX-512, or for AVX2 and FMA, where the processor has them. Loops in
/// `work` must be inlined into it. None of them changes a result: multiplications and additions
/// stay separate.
#[inline]
pub fn with_simd<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
        fn compiled_wider<R>(work: impl FnOnce() -> R) -> R {
            work()
        }
        #[target_feature(enable = "avx2,fma")]
        fn compiled_wide<R>(work: impl FnOnce() -> R) -> R {
            work()
        }
        if has!("avx2") && has!("fma") {
            if has!("avx512f") && has!("avx512vl") && has!("avx512bw") && has!("avx512dq") {
                // SAFETY: the processor has the instructions, as just checked.
                return unsafe { compiled_wider(work) };
            }
            // SAFETY: the processor has the instructions, as just checked.
            return unsafe { compiled_wide(work) };
        }
    }
    work()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_reads_any_strides_and_adds_when_asked() {
        let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]; // 2 by 3
        let b = [1.0, 0.0, 2.0, 1.0, 0.0, 1.0]; // 2 by 3: its transpose is 3 by 2
        let mut out = [10.0; 6];
        gemm(
            [2, 3, 2],
            2.0,
            MatrixView::rows(&a, 3),
            MatrixView::rows(&b, 3).t(),
            WriteMode::Accumulate,
            &mut out,
            3,
        );
        assert_eq!(out, [24.0, 18.0, 10.0, 42.0, 30.0, 10.0]);
        gemm(
            [2, 3, 2],
            1.0,
            MatrixView::rows(&a, 3),
            MatrixView::rows(&b, 3).t(),
            WriteMode::Overwrite,
            &mut out,
            3,
        );
        assert_eq!(out, [7.0, 4.0, 10.0, 16.0, 10.0, 10.0]);
    }

    #[test]
    #[should_panic(expected = "a matrix is smaller")]
    fn a_product_beyond_its_slices_is_refused() {
        gemm(
            [2, 3, 2],
            1.0,
            MatrixView::rows(&[0.0; 5], 3),
            MatrixView::rows(&[0.0; 6], 2),
            WriteMode::Overwrite,
            &mut [0.0; 4],
            2,
        );
    }
}

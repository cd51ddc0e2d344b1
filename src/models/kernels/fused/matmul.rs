//! Matrix products of `f32` numbers, as they are or rounded to bf16 first.

#[cfg(target_arch = "x86_64")]
use super::bf16;
use super::product::{self, Left, Packed};
use super::simd::{MatrixView, WriteMode, gemm};

/// What the factors of a matrix product are rounded to. Sums, and everything else, are f32: what
/// PyTorch calls autocast.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MatmulPrecision {
    /// They are taken as they are.
    #[default]
    F32,
    /// To bf16, ties to even: about three digits. Twice as fast on processors with AVX-512's
    /// instruction for it (AMD since Zen 4, Intel Xeon since Cooper Lake), and a little slower
    /// than f32 on others.
    Bf16,
}

/// A product's right factor `[k, n]`, prepared for many left ones.
pub(super) struct RightFactor<'a> {
    form: Form<'a>,
    k: usize,
    n: usize,
}

enum Form<'a> {
    /// As it is, and packed where the processor has products for that.
    Plain(MatrixView<'a>, Option<Packed>),
    /// Rounded; the left factor is to be rounded too.
    Rounded(Vec<f32>, [usize; 2]),
    #[cfg(target_arch = "x86_64")]
    Packed(bf16::Packed),
}

impl MatmulPrecision {
    /// Prepares a right factor `[k, n]`, which must be contiguous along one axis.
    pub(super) fn right(self, b: MatrixView<'_>, [k, n]: [usize; 2]) -> RightFactor<'_> {
        assert!(b.holds(k, n), "a matrix is smaller than its product needs");
        assert!(b.columns == 1 || b.rows == 1, "neither axis is contiguous");
        let form = match self {
            // Packing columns costs more than it gains: few rows are multiplied with such a factor.
            Self::F32 if b.columns == 1 => Form::Plain(b, Packed::new(b, [k, n])),
            Self::F32 => Form::Plain(b, None),
            Self::Bf16 => rounded_form(b, [k, n]),
        };
        RightFactor { form, k, n }
    }

    /// [`gemm`] in this precision.
    #[allow(clippy::too_many_arguments, reason = "those of BLAS's gemm")]
    pub(super) fn gemm(
        self,
        sizes @ [m, k, n]: [usize; 3],
        scale: f32,
        a: MatrixView,
        b: MatrixView,
        mode: WriteMode,
        out: &mut [f32],
        width: usize,
    ) {
        match self {
            // What is used once is not worth packing.
            Self::F32 => gemm(sizes, scale, a, b, mode, out, width),
            Self::Bf16 => self.right(b, [k, n]).multiply(m, scale, a, mode, out, width),
        }
    }

    /// `out += aᵀ b`, `[m, n]`, of the `k` rows of `a` and `b`, which are contiguous each.
    pub(super) fn add_transposed(
        self,
        [m, k, n]: [usize; 3],
        a: MatrixView,
        b: MatrixView,
        out: &mut [f32],
    ) {
        assert!(a.holds(k, m) && b.holds(k, n), "a matrix is smaller than its product needs");
        assert!(a.columns == 1 && b.columns == 1, "rows are not contiguous");
        let at = |matrix: MatrixView| -> Vec<usize> { (0..k).map(|i| i * matrix.rows).collect() };
        if self == Self::F32 && product::adds_transposed(a.rows) {
            let left = Left { data: a.data, at: &at(a), runs: 1, run: m, step: 0 };
            return product::add_transposed(left, b.data, &at(b), n, out, n);
        }
        self.gemm([m, k, n], 1.0, a.t(), b, WriteMode::Accumulate, out, n);
    }
}

impl RightFactor<'_> {
    /// How many numbers a sum has: `k`.
    pub fn depth(&self) -> usize {
        self.k
    }

    /// [`gemm`] of `a` and this factor: `a` is `[m, k]` and contiguous along one axis.
    pub fn multiply(
        &self,
        m: usize,
        scale: f32,
        a: MatrixView,
        mode: WriteMode,
        out: &mut [f32],
        width: usize,
    ) {
        let sizes @ [_, k, n] = [m, self.k, self.n];
        match &self.form {
            Form::Plain(_, Some(b)) if a.columns == 1 => {
                let at: Vec<usize> = (0..m).map(|row| row * a.rows).collect();
                let left = Left { data: a.data, at: &at, runs: 1, run: k, step: 0 };
                b.multiply(left, scale, mode, out, width);
            }
            Form::Plain(b, _) => gemm(sizes, scale, a, *b, mode, out, width),
            Form::Rounded(data, [rows, columns]) => {
                assert!(a.holds(m, k), "a matrix is smaller than its product needs");
                let b = MatrixView { data, rows: *rows, columns: *columns };
                let data = rounded(a, [m, k]);
                gemm(sizes, scale, MatrixView { data: &data, ..a }, b, mode, out, width);
            }
            #[cfg(target_arch = "x86_64")]
            Form::Packed(b) => {
                assert!(a.holds(m, k), "a matrix is smaller than its product needs");
                assert!(a.columns == 1 || a.rows == 1, "neither axis is contiguous");
                assert!(m == 0 || n == 0 || (n <= width && (m - 1) * width + n <= out.len()));
                b.multiply(m, scale, a, mode, out, width);
            }
        }
    }
}

fn rounded_form(b: MatrixView<'_>, sizes: [usize; 2]) -> Form<'_> {
    #[cfg(target_arch = "x86_64")]
    if let Some(packed) = bf16::Packed::new(b, sizes) {
        return Form::Packed(packed);
    }
    Form::Rounded(rounded(b, sizes), [b.rows, b.columns])
}

/// The numbers of a matrix `[m, n]`, rounded, in the places in which they stood.
fn rounded(matrix: MatrixView, [m, n]: [usize; 2]) -> Vec<f32> {
    let len = if m * n == 0 { 0 } else { matrix.index(m - 1, n - 1) + 1 };
    matrix.data[..len].iter().map(|v| round_to_bf16(*v)).collect()
}

/// The nearest number with an 8-bit significand, ties to even.
fn round_to_bf16(value: f32) -> f32 {
    if value.is_nan() {
        return value;
    }
    let bits = value.to_bits();
    f32::from_bits(bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) & 0xFFFF_0000)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fixed numbers in [-1, 1).
    fn numbers(len: usize, stream: u64) -> Vec<f32> {
        let hash =
            |i: u64| (i * 747_796_405 + stream * 2_891_336_453 + 1) as u32 as u64 * 0x45D_9F3B;
        (0..len as u64).map(|i| (hash(i) >> 7 & 0xFFFF) as f32 / 32_768.0 - 1.0).collect()
    }

    /// What stands in front of each result and behind it.
    const UNTOUCHED: f32 = 7.5;

    /// A product `[m, n]` with rows of `n + 1` numbers, by a prepared right factor.
    fn product(
        right: &RightFactor,
        [m, n]: [usize; 2],
        a: MatrixView,
        mode: WriteMode,
    ) -> Vec<f32> {
        let mut out = vec![UNTOUCHED; m * (n + 1)];
        right.multiply(m, 0.5, a, mode, &mut out, n + 1);
        out
    }

    #[test]
    fn a_product_in_bf16_is_that_of_the_rounded_factors() {
        for [m, k, n] in [
            [1, 1, 1],
            [8, 2, 32],
            [9, 3, 33],
            [70, 300, 50],
            [64, 16, 64],
            [17, 27, 3],
            [130, 515, 16],
            [5, 7, 100],
            [3, 256, 48],
        ] {
            let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
            let of = |i: usize, j: usize| -> f64 {
                let term = |p: usize| {
                    f64::from(round_to_bf16(a[i * k + p])) * f64::from(round_to_bf16(b[p * n + j]))
                };
                0.5 * (0..k).map(term).sum::<f64>()
            };
            let turn = |matrix: &[f32], [m, n]: [usize; 2]| -> Vec<f32> {
                (0..m * n).map(|at| matrix[at % m * n + at / m]).collect()
            };
            let (a_columns, b_columns) = (turn(&a, [m, k]), turn(&b, [k, n]));
            for a in [MatrixView::rows(&a, k), MatrixView::rows(&a_columns, m).t()] {
                for b in [MatrixView::rows(&b, n), MatrixView::rows(&b_columns, k).t()] {
                    let rounded = Form::Rounded(rounded(b, [k, n]), [b.rows, b.columns]);
                    for right in [
                        MatmulPrecision::Bf16.right(b, [k, n]),
                        RightFactor { form: rounded, k, n },
                    ] {
                        for mode in [WriteMode::Overwrite, WriteMode::Accumulate] {
                            let before =
                                if mode == WriteMode::Accumulate { UNTOUCHED.into() } else { 0.0 };
                            let found = product(&right, [m, n], a, mode);
                            for (i, row) in found.chunks_exact(n + 1).enumerate() {
                                assert_eq!(row[n], UNTOUCHED);
                                for (j, found) in row[..n].iter().enumerate() {
                                    let apart = f64::from(*found) - before - of(i, j);
                                    assert!(apart.abs() < 3e-5, "{m} {k} {n} at {i} {j}: {apart}");
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn rounding_goes_to_the_nearest_and_keeps_what_is_no_number() {
        let near = |value: f32| round_to_bf16(value);
        assert_eq!([near(1.0), near(-0.0), near(1.0 + 1.0 / 512.0)], [1.0, 0.0, 1.0]);
        assert_eq!(near(1.0 + 3.0 / 256.0), 1.0 + 1.0 / 64.0, "ties go to even");
        assert_eq!(near(1.0 + 1.0 / 256.0), 1.0, "ties go to even");
        assert_eq!(near(1.0 + 1.01 / 256.0), 1.0 + 1.0 / 128.0);
        assert_eq!([near(f32::MAX), near(f32::NEG_INFINITY)], [f32::INFINITY, f32::NEG_INFINITY]);
        assert!(near(f32::NAN).is_nan() && near(f32::from_bits(0x7F80_0001)).is_nan());
    }

    #[test]
    fn what_is_no_number_stays_visible_in_a_product() {
        for bad in [f32::NAN, f32::INFINITY] {
            let (mut a, b) = (numbers(8 * 40, 1), numbers(40 * 32, 2));
            a[3 * 40 + 39] = bad;
            let right = MatmulPrecision::Bf16.right(MatrixView::rows(&b, 32), [40, 32]);
            let out = product(&right, [8, 32], MatrixView::rows(&a, 40), WriteMode::Overwrite);
            for (i, row) in out.chunks_exact(33).enumerate() {
                assert_eq!(row[..32].iter().all(|v| v.is_finite()), i != 3, "row {i}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "a matrix is smaller")]
    fn a_product_beyond_its_slices_is_refused() {
        let right = MatmulPrecision::Bf16.right(MatrixView::rows(&[0.0; 6], 2), [3, 2]);
        right.multiply(
            2,
            1.0,
            MatrixView::rows(&[0.0; 5], 3),
            WriteMode::Overwrite,
            &mut [0.0; 4],
            2,
        );
    }
}

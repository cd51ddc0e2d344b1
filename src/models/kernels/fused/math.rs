//! Elementary functions on `f32` without branches or calls, so that loops over them become vector
//! instructions.
//!
//! NaN stays NaN, so that a diverged training shows.

use std::f32::consts::{FRAC_1_SQRT_2, LOG2_E};

/// e^x; the relative error is below 3e-7. Below -87 it is e^-87, above 88 it is e^88.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // x = n ln 2 + r: adding this number rounds to an integer in the low bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts, the first short enough for an exact product (Cody and Waite).
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let bounded = if x < -87.0 { -87.0 } else { x };
    let bounded = if bounded > 88.0 { 88.0 } else { bounded };
    let shifted = bounded * LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = bounded - n * LN_2_HIGH - n * LN_2_LOW;
    // Taylor series to the seventh power: |r| <= ln 2 / 2 leaves less than 1e-8.
    let tail = 1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0));
    let series = 1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * tail))));
    series * f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3F80_0000))
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The error function; the absolute error is below 5e-7. Rational approximation with the
/// coefficients that Eigen uses for `f32` (`generic_fast_erf_float`).
#[inline(always)]
pub(super) fn erf(x: f32) -> f32 {
    let bounded = if x < -4.0 { -4.0 } else { x };
    let x = if bounded > 4.0 { 4.0 } else { bounded };
    let s = x * x;
    let p = -2.726_142_4e-10 * s + 2.770_681_3e-8;
    let p = p * s - 2.101_024e-6;
    let p = p * s - 5.692_506_5e-5;
    let p = p * s - 7.349_906_3e-4;
    let p = p * s - 2.954_6e-3;
    let p = p * s - 1.609_603_3e-2;
    let q = -1.456_607_2e-5 * s - 2.133_740_6e-4;
    let q = q * s - 1.682_827e-3;
    let q = q * s - 7.373_329e-3;
    let q = q * s - 1.426_474e-2;
    x * p / q
}

/// Φ(x), the normal distribution function: the share of x that GELU lets through.
#[inline(always)]
pub(super) fn normal_below(x: f32) -> f32 {
    0.5 + 0.5 * erf(x * FRAC_1_SQRT_2)
}

/// φ(x), the normal density.
#[inline(always)]
pub(super) fn normal_density(x: f32) -> f32 {
    const AT_ZERO: f32 = 0.398_942_3; // 1 / √(2π)
    AT_ZERO * exp(-0.5 * x * x)
}

const LANES: usize = 16;

/// Sum over two rows of `f(a, b)`, in [`LANES`] interleaved partial sums that are added in a fixed
/// order.
#[inline(always)]
pub(super) fn sum_pairs(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            lanes[lane] += f(a[lane], b[lane]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| f(*a, *b)).sum();
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0] + rest
}

/// Sum of a row of `f(a)`, in the order of [`sum_pairs`].
#[inline(always)]
pub(super) fn sum(a: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    sum_pairs(a, a, |a, _| f(a))
}

/// The largest number of a row; a NaN may or may not show.
#[inline(always)]
pub(super) fn largest(a: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = a.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = if chunk[lane] > lanes[lane] { chunk[lane] } else { lanes[lane] };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |max, v| if *v > max { *v } else { max })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// erf by its Taylor series, which converges everywhere.
    fn erf_series(x: f64) -> f64 {
        let mut term = x;
        let mut total = x;
        for n in 1..200 {
            term *= -x * x / n as f64;
            total += term / (2 * n + 1) as f64;
        }
        total * std::f64::consts::FRAC_2_SQRT_PI
    }

    #[test]
    fn exp_is_accurate_and_keeps_nan() {
        for i in -8700..8800 {
            let x = i as f32 * 0.01;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) / exact - 1.0).abs() < 3e-7, "{x}");
        }
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(f32::NEG_INFINITY) < 1e-37 && exp(1e9).is_finite());
    }

    #[test]
    fn erf_and_the_normal_density_are_accurate_and_keep_nan() {
        for i in -500..=500 {
            let x = i as f32 * 0.01;
            let exact = erf_series(f64::from(x));
            assert!((f64::from(erf(x)) - exact).abs() < 5e-7, "{x}: {} {exact}", erf(x));
            let density = (-0.5 * f64::from(x).powi(2)).exp() / std::f64::consts::TAU.sqrt();
            assert!((f64::from(normal_density(x)) - density).abs() < 2e-7, "{x}");
        }
        assert!(erf(f32::NAN).is_nan() && normal_density(f32::NAN).is_nan());
    }
}

//! FID: the Fréchet distance between two normal distributions (Heusel et al. 2017, arXiv
//! 1706.08500, equation 6): `|m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½)`.
//!
//! With `C = L Lᵀ` the eigenvalues of `C1 C2` are the squares of the singular values of `L1ᵀ L2`,
//! so that the trace of its square root is their sum. No square root of a nearly singular product
//! is taken, which is where scipy's `sqrtm` loses digits. The factors are Cholesky's with pivots:
//! they have as many columns as the covariance has rank, so that few pictures cost little.
//!
//! Each number is computed by one thread, in an order that only the sizes decide.

use rayon::prelude::*;

use super::matrix::{View, add_scaled, dot, product};
use super::statistics::Statistics;
use crate::kernels::with_simd;

/// Rows that one thread computes at a time.
const ROWS: usize = 64;

/// Why there is no distance.
#[derive(Debug, thiserror::Error)]
pub enum FrechetError {
    #[error("one set has {0} features and the other {1}: both must come from the same network")]
    Width(usize, usize),
    #[error("a covariance holds numbers that are not finite")]
    NotFinite,
    #[error("the singular values were not found after {0} steps")]
    NotConverged(usize),
}

/// The Fréchet distance between two sets of features. Zero of the same set, up to rounding, and
/// never below.
///
/// # Errors
/// The widths differ, numbers are not finite, or an iteration does not end.
pub fn frechet_distance(a: &Statistics, b: &Statistics) -> Result<f64, FrechetError> {
    let d = a.width();
    if d != b.width() {
        return Err(FrechetError::Width(d, b.width()));
    }
    let numbers = [&a.mean, &a.covariance, &b.mean, &b.covariance];
    if numbers.iter().any(|numbers| numbers.iter().any(|v| !v.is_finite())) {
        return Err(FrechetError::NotFinite);
    }
    let apart: f64 = a.mean.iter().zip(&b.mean).map(|(a, b)| (a - b).powi(2)).sum();
    let trace = |c: &[f64]| (0..d).map(|i| c[i * d + i]).sum::<f64>();
    let (first, second) = (Factor::of(&a.covariance, d), Factor::of(&b.covariance, d));
    let (m, n) = (first.rank, second.rank);
    let mut between = vec![0.0; m * n];
    let (left, right) = (View::rows(&first.rows, d).t(), View::rows(&second.rows, d));
    product([m, d, n], left, right, false, &mut between);
    let root = if m >= n {
        sum_of_singular_values(between, m, n)?
    } else {
        let turned = (0..m * n).map(|i| between[i % m * n + i / m]).collect();
        sum_of_singular_values(turned, n, m)?
    };
    let distance = apart + trace(&a.covariance) + trace(&b.covariance) - 2.0 * root;
    Ok(distance.max(0.0))
}

/// `L` with `C = L Lᵀ`: rows of `width`, of which the first `rank` numbers are not zero.
struct Factor {
    rows: Vec<f64>,
    rank: usize,
}

impl Factor {
    /// Cholesky's factor with the largest pivot first (Higham 2002, Accuracy and Stability of
    /// Numerical Algorithms, section 10.3). It ends where what is left is rounding alone.
    fn of(covariance: &[f64], width: usize) -> Self {
        let mut left: Vec<f64> = (0..width).map(|i| covariance[i * width + i]).collect();
        let largest = left.iter().copied().fold(0.0, f64::max);
        let least = largest * width as f64 * f64::EPSILON;
        let mut rows = vec![0.0; width * width];
        for column in 0..width {
            let pivot = (0..width).fold(0, |best, i| if left[i] > left[best] { i } else { best });
            if left[pivot] <= least {
                return Self { rows, rank: column };
            }
            let root = left[pivot].sqrt();
            let above = rows[pivot * width..][..column].to_vec();
            let entries = &covariance[pivot * width..][..width];
            let parts = rows.par_chunks_mut(ROWS * width).zip(left.par_chunks_mut(ROWS));
            parts.zip(entries.par_chunks(ROWS)).for_each(|((rows, left), entries)| {
                with_simd(
                    #[inline(always)]
                    || {
                        let rows = rows.chunks_exact_mut(width);
                        for ((row, left), entry) in rows.zip(left).zip(entries) {
                            // Below zero stands what was a pivot.
                            if *left >= 0.0 {
                                let value = (entry - dot(&row[..column], &above)) / root;
                                row[column] = value;
                                *left = (*left - value * value).max(0.0);
                            }
                        }
                    },
                );
            });
            rows[pivot * width + column] = root;
            left[pivot] = -1.0;
        }
        Self { rows, rank: width }
    }
}

/// The sum of the singular values of a matrix of `m` rows of `n`, `m >= n`.
fn sum_of_singular_values(matrix: Vec<f64>, m: usize, n: usize) -> Result<f64, FrechetError> {
    if n == 0 {
        return Ok(0.0);
    }
    let (diagonal, beside) = bidiagonal(matrix, m, n);
    // The matrix [0 Bᵀ; B 0], with rows and columns shuffled, has nothing but these numbers beside
    // its diagonal; its eigenvalues are the singular values and their negatives (Golub and Kahan
    // 1965).
    let mut off = Vec::with_capacity(2 * n);
    for (i, value) in diagonal.iter().enumerate() {
        off.push(*value);
        off.extend(beside.get(i));
    }
    let values = tridiagonal_eigenvalues(vec![0.0; 2 * n], off)?;
    let mut values: Vec<f64> = values.into_iter().map(f64::abs).collect();
    values.sort_by(f64::total_cmp);
    Ok(values.iter().sum::<f64>() / 2.0)
}

/// Householder's reflection of `x`: turns it into one number, which it returns, with the factor
/// `tau` of `I - tau v vᵀ`; `x` becomes `v`, which begins with one.
fn reflect(x: &mut [f64]) -> (f64, f64) {
    let Some((first, rest)) = x.split_first_mut() else { return (0.0, 0.0) };
    let largest = rest.iter().fold(0.0, |most: f64, v| most.max(v.abs()));
    let begin = std::mem::replace(first, 1.0);
    if largest == 0.0 {
        return (begin, 0.0);
    }
    let scale = largest.max(begin.abs());
    let squares: f64 = rest.iter().map(|v| (v / scale).powi(2)).sum();
    let norm = scale * ((begin / scale).powi(2) + squares).sqrt();
    let value = if begin > 0.0 { -norm } else { norm };
    let divisor = begin - value;
    rest.iter_mut().for_each(|v| *v /= divisor);
    (value, (value - begin) / value)
}

/// Reduces a matrix to the diagonal and the one above it, by reflections from both sides (Golub
/// and Van Loan 2013, algorithm 5.4.2). A row is read and written once for both.
fn bidiagonal(mut matrix: Vec<f64>, m: usize, n: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut diagonal, mut beside) = (Vec::with_capacity(n), Vec::with_capacity(n));
    for k in 0..n {
        let mut left: Vec<f64> = (k..m).map(|i| matrix[i * n + k]).collect();
        let (value, tau) = reflect(&mut left);
        diagonal.push(value);
        if k + 1 == n {
            break;
        }
        let rest = &mut matrix[k * n..];
        let mut sums = column_sums(rest, n, k + 1, &left);
        sums.iter_mut().for_each(|sum| *sum *= tau);
        let mut right = rest[k + 1..n].to_vec();
        add_scaled(&mut right, -1.0, &sums);
        let (value, tau) = reflect(&mut right);
        beside.push(value);
        let rows = rest[n..].par_chunks_mut(ROWS * n).zip(left[1..].par_chunks(ROWS));
        rows.for_each(|(rows, left)| {
            with_simd(
                #[inline(always)]
                || {
                    for (row, left) in rows.chunks_exact_mut(n).zip(left) {
                        let row = &mut row[k + 1..];
                        add_scaled(row, -left, &sums);
                        let along = dot(row, &right);
                        add_scaled(row, -tau * along, &right);
                    }
                },
            );
        });
    }
    (diagonal, beside)
}

/// The sums over rows of `n`, times their factors, of the columns from `first` on.
fn column_sums(matrix: &[f64], n: usize, first: usize, factors: &[f64]) -> Vec<f64> {
    const COLUMNS: usize = 256;
    let mut sums = vec![0.0; n - first];
    sums.par_chunks_mut(COLUMNS).enumerate().for_each(|(index, sums)| {
        let begin = first + index * COLUMNS;
        with_simd(
            #[inline(always)]
            || {
                for (row, factor) in matrix.chunks_exact(n).zip(factors) {
                    add_scaled(sums, *factor, &row[begin..begin + sums.len()]);
                }
            },
        );
    });
    sums
}

/// The eigenvalues of a symmetric matrix with numbers on its diagonal and beside it alone, by
/// implicit shifts (Golub and Van Loan 2013, algorithm 8.3.3). `off` begins with what stands
/// beside the first two.
fn tridiagonal_eigenvalues(
    mut diagonal: Vec<f64>,
    mut off: Vec<f64>,
) -> Result<Vec<f64>, FrechetError> {
    let n = diagonal.len();
    let most = 60 * n;
    off.resize(n, 0.0);
    let largest = diagonal.iter().chain(&off).fold(0.0, |most: f64, v| most.max(v.abs()));
    // What is smaller changes no eigenvalue by more than rounding does.
    let negligible = |off: f64, a: f64, b: f64| {
        off.abs() <= f64::EPSILON * (a.abs() + b.abs()).max(largest * 1e-3)
    };
    let mut steps = 0;
    let mut end = n - 1;
    while end > 0 {
        if negligible(off[end - 1], diagonal[end - 1], diagonal[end]) {
            end -= 1;
            continue;
        }
        let apart = |i: &usize| negligible(off[i - 1], diagonal[i - 1], diagonal[*i]);
        let begin = (1..end).rev().find(apart).unwrap_or(0);
        steps += 1;
        if steps > most {
            return Err(FrechetError::NotConverged(most));
        }
        chase(&mut diagonal, &mut off, begin, end);
    }
    Ok(diagonal)
}

/// One step from `begin` to `end`: Wilkinson's shift, and rotations that bring the matrix back to
/// its form.
fn chase(diagonal: &mut [f64], off: &mut [f64], begin: usize, end: usize) {
    let half = (diagonal[end - 1] - diagonal[end]) / 2.0;
    let last = off[end - 1];
    let sign = if half < 0.0 { -1.0 } else { 1.0 };
    let shift = diagonal[end] - last * (last / (half + sign * half.hypot(last)));
    let (mut x, mut z) = (diagonal[begin] - shift, off[begin]);
    for k in begin..end {
        let length = x.hypot(z);
        let (cos, sin) = if length == 0.0 { (1.0, 0.0) } else { (x / length, z / length) };
        if k > begin {
            off[k - 1] = length;
        }
        let (a, b, c) = (diagonal[k], off[k], diagonal[k + 1]);
        diagonal[k] = cos * cos * a + 2.0 * cos * sin * b + sin * sin * c;
        diagonal[k + 1] = sin * sin * a - 2.0 * cos * sin * b + cos * cos * c;
        off[k] = cos * sin * (c - a) + (cos * cos - sin * sin) * b;
        if k + 1 < end {
            x = off[k];
            z = sin * off[k + 1];
            off[k + 1] *= cos;
        }
    }
}

#[cfg(test)]
#[path = "frechet_tests.rs"]
mod tests;

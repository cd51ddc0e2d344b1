//! KID: the kernel inception distance (Bińkowski et al. 2018, arXiv 1801.01401): the unbiased
//! estimate of the squared maximum mean discrepancy under the kernel `(x·y / d + 1)³`. Unlike FID
//! its mean does not depend on the number of pictures, and few of them already tell something.

use pipe_core::rng::{Purpose, stream};
use rand::seq::index;
use rayon::prelude::*;

use super::features::Features;
use super::matrix::{View, product_here};

/// How many subsets are drawn.
pub const SUBSETS: usize = 100;
/// Rows of each set in a subset, if there are as many.
pub const SUBSET_SIZE: usize = 1000;

/// The estimate, and how far those of single subsets are apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KernelDistance {
    /// The mean over subsets. It may be below zero: the estimate has no bias.
    pub mean: f64,
    /// The standard deviation over subsets. Zero if a subset holds all of both sets.
    pub deviation: f64,
}

/// KID of two sets of features, as clean-fid has it: [`SUBSETS`] times as many rows of each as the
/// smaller set has, [`SUBSET_SIZE`] at most, drawn without putting back by `seed`. The mean of the
/// subsets' estimates; subsets beyond the first are not drawn where each would hold all rows.
///
/// `None` if a set has fewer than two rows.
///
/// # Panics
/// The sets' rows have different widths.
pub fn kernel_distance(a: &Features, b: &Features, seed: u64) -> Option<KernelDistance> {
    assert!(a.width() == b.width(), "features of different networks");
    let size = a.len().min(b.len()).min(SUBSET_SIZE);
    if size < 2 {
        return None;
    }
    let all = a.len() == size && b.len() == size;
    let count = if all { 1 } else { SUBSETS };
    let estimate = |subset: usize| {
        let drawn = |set: &Features, which: u64| {
            let mut rng = stream(seed, Purpose::QualitySubset, which, subset as u64);
            let rows = index::sample(&mut rng, set.len(), size);
            let rows = rows.iter().flat_map(|row| set.row(row));
            rows.map(|v| f64::from(*v)).collect::<Vec<f64>>()
        };
        discrepancy(&drawn(a, 0), &drawn(b, 1), a.width())
    };
    let estimates: Vec<f64> = (0..count).into_par_iter().map(estimate).collect();
    let mean = estimates.iter().sum::<f64>() / count as f64;
    let squares: f64 = estimates.iter().map(|e| (e - mean).powi(2)).sum();
    Some(KernelDistance { mean, deviation: (squares / count as f64).sqrt() })
}

/// The unbiased estimate of the squared discrepancy of two sets of as many rows (equation 4 of
/// the paper).
fn discrepancy(x: &[f64], y: &[f64], width: usize) -> f64 {
    let m = (x.len() / width) as f64;
    let within = (kernel_sum(x, x, width, false) + kernel_sum(y, y, width, false)) / (m - 1.0);
    (within - 2.0 * kernel_sum(x, y, width, true) / m) / m
}

/// The sum of the kernel over all pairs of rows; of each row with itself only if `diagonal`.
fn kernel_sum(x: &[f64], y: &[f64], width: usize, diagonal: bool) -> f64 {
    const ROWS: usize = 64;
    let n = y.len() / width;
    let mut sum = 0.0;
    let mut products = vec![0.0; ROWS * n];
    for (block, rows) in x.chunks(ROWS * width).enumerate() {
        let m = rows.len() / width;
        let products = &mut products[..m * n];
        let (a, b) = (View::rows(rows, width), View::rows(y, width).t());
        product_here([m, width, n], a, b, false, products);
        for (i, row) in products.chunks_exact(n).enumerate() {
            let kernel = |product: &f64| (product / width as f64 + 1.0).powi(3);
            sum += row.iter().map(kernel).sum::<f64>();
            if !diagonal {
                sum -= kernel(&row[block * ROWS + i]);
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(rows: usize, width: usize, shift: f32) -> Features {
        let mut features = Features::new(width);
        let value = |i: usize| ((i * 7919 + i * i) % 1009) as f32 / 504.5 - 1.0 + shift;
        features.push(&(0..rows * width).map(value).collect::<Vec<f32>>());
        features
    }

    /// Equation 4 of the paper, term by term.
    fn by_definition(x: &Features, y: &Features) -> f64 {
        let kernel = |a: &[f32], b: &[f32]| {
            let dot: f64 = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            (dot / a.len() as f64 + 1.0).powi(3)
        };
        let m = x.len();
        let (mut within, mut between) = (0.0, 0.0);
        for i in 0..m {
            for j in 0..m {
                if i != j {
                    within += kernel(x.row(i), x.row(j)) + kernel(y.row(i), y.row(j));
                }
                between += kernel(x.row(i), y.row(j));
            }
        }
        let m = m as f64;
        within / (m * (m - 1.0)) - 2.0 * between / (m * m)
    }

    #[test]
    fn a_subset_of_all_rows_is_the_papers_estimate() {
        for rows in [2, 63, 64, 65, 150] {
            let (x, y) = (features(rows, 6, 0.0), features(rows, 6, 0.25));
            let found = kernel_distance(&x, &y, 1).unwrap();
            let wanted = by_definition(&x, &y);
            assert!((found.mean - wanted).abs() < 1e-12, "{} is not {wanted}", found.mean);
            assert_eq!(found.deviation, 0.0);
        }
    }

    #[test]
    fn subsets_tell_the_same_and_are_drawn_by_the_seed() {
        let (x, y) = (features(40, 6, 0.0), features(400, 6, 0.5));
        let found = kernel_distance(&x, &y, 1).unwrap();
        assert!(found.mean > 0.1 && found.deviation > 0.0, "{found:?}");
        assert_eq!(kernel_distance(&x, &y, 1), Some(found));
        assert_ne!(kernel_distance(&x, &y, 2), Some(found));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(pool.install(|| kernel_distance(&x, &y, 1)), Some(found));
        assert!(kernel_distance(&features(1, 6, 0.0), &y, 1).is_none());
    }
}

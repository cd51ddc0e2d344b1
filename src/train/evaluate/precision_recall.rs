//! Precision and recall of pictures (Kynkäänniemi et al. 2019, arXiv 1904.06991).
//!
//! Distances are computed block by block: memory does not grow with the number of pairs.

use rayon::prelude::*;

use super::features::Features;
use super::matrix::{View, product_here};

/// The neighbour whose distance is the radius of a picture's surroundings, as the paper has it.
pub const NEIGHBOURS: usize = 3;
/// Rows that one thread compares at a time, with how many.
const ROWS: usize = 128;
const COLUMNS: usize = 512;

/// What share of pictures lies among those of the other set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrecisionRecall {
    /// Of samples that lie near a real picture: how good they look.
    pub precision: f64,
    /// Of real pictures that lie near a sample: how much of the data they cover.
    pub recall: f64,
}

/// Precision and recall of samples (the paper's equations 1 and 2): a picture lies near another
/// if it is no further away than that one's `neighbours`-th nearest in its own set.
///
/// `None` if a set has no more rows than `neighbours`.
///
/// # Panics
/// The sets' rows have different widths, or `neighbours` is zero.
pub fn precision_recall(
    real: &Features,
    samples: &Features,
    neighbours: usize,
) -> Option<PrecisionRecall> {
    assert!(real.width() == samples.width(), "features of different networks");
    assert!(neighbours > 0, "the radius is the distance of some neighbour");
    if real.len().min(samples.len()) <= neighbours {
        return None;
    }
    let share = |set: &Features, of: &Features| {
        let radii = squared_radii(set, neighbours);
        let near = |_, distances: &[f64], first: usize| {
            distances.iter().zip(&radii[first..]).any(|(distance, radius)| distance <= radius)
        };
        let any = compare(of, set, false, near, |found: &mut bool, more| *found |= more);
        any.into_iter().filter(|near| *near).count() as f64 / of.len() as f64
    };
    Some(PrecisionRecall { precision: share(real, samples), recall: share(samples, real) })
}

/// The squared distance of each row's `neighbours`-th nearest other row.
fn squared_radii(set: &Features, neighbours: usize) -> Vec<f64> {
    let few = |mut distances: Vec<f64>| {
        distances.sort_by(f64::total_cmp);
        distances.truncate(neighbours);
        distances
    };
    let nearest = |_, distances: &[f64], _| few(distances.to_vec());
    let all = compare(set, set, true, nearest, |found: &mut Vec<f64>, more| {
        found.extend(more);
        *found = few(std::mem::take(found));
    });
    all.into_iter().map(|found| found.last().copied().unwrap_or_default()).collect()
}

/// Compares each row of `rows` with all of `columns`: `look` gets a row, its squared distances to
/// some of them, and which the first of those is; `join` puts together what it said. `same`: both
/// are one set, and no row is compared with itself.
fn compare<T: Send>(
    rows: &Features,
    columns: &Features,
    same: bool,
    look: impl Fn(usize, &[f64], usize) -> T + Sync,
    join: impl Fn(&mut T, T) + Sync,
) -> Vec<T> {
    let width = rows.width();
    let wide = |part: &[f32]| part.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
    let squares = |set: &[f64]| {
        let square = |row: &[f64]| row.iter().map(|v| v * v).sum::<f64>();
        set.chunks_exact(width).map(square).collect::<Vec<f64>>()
    };
    let block = |(index, part): (usize, &[f32])| {
        let part = wide(part);
        let lengths = squares(&part);
        let mut found: Vec<Option<T>> = lengths.iter().map(|_| None).collect();
        for (strip, others) in columns.values().chunks(COLUMNS * width).enumerate() {
            let (first, others) = (strip * COLUMNS, wide(others));
            let other_lengths = squares(&others);
            let n = other_lengths.len();
            let mut products = vec![0.0; lengths.len() * n];
            let (a, b) = (View::rows(&part, width), View::rows(&others, width).t());
            product_here([lengths.len(), width, n], a, b, false, &mut products);
            for (i, products) in products.chunks_exact_mut(n).enumerate() {
                let row = index * ROWS + i;
                for (product, other) in products.iter_mut().zip(&other_lengths) {
                    *product = (lengths[i] + other - 2.0 * *product).max(0.0);
                }
                if same && (first..first + n).contains(&row) {
                    products[row - first] = f64::INFINITY;
                }
                let new = look(row, products, first);
                match &mut found[i] {
                    Some(found) => join(found, new),
                    none => *none = Some(new),
                }
            }
        }
        found
    };
    let blocks = rows.values().par_chunks(ROWS * width).enumerate().map(block);
    blocks.collect::<Vec<_>>().into_iter().flatten().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(rows: usize, width: usize, stream: usize) -> Features {
        let mut features = Features::new(width);
        let value =
            |i: usize| (((i + stream) * 7919 + i * i * (stream + 1)) % 1009) as f32 / 1009.0;
        features.push(&(0..rows * width).map(value).collect::<Vec<f32>>());
        features
    }

    fn distance(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
    }

    /// The paper's equations, pair by pair.
    fn by_definition(real: &Features, samples: &Features, k: usize) -> PrecisionRecall {
        let share = |set: &Features, of: &Features| {
            let radius = |i: usize| {
                let others = (0..set.len()).filter(|j| *j != i);
                let mut all: Vec<f64> = others.map(|j| distance(set.row(i), set.row(j))).collect();
                all.sort_by(f64::total_cmp);
                all[k - 1]
            };
            let radii: Vec<f64> = (0..set.len()).map(radius).collect();
            let near =
                |row: usize| (0..set.len()).any(|i| distance(set.row(i), of.row(row)) <= radii[i]);
            (0..of.len()).filter(|row| near(*row)).count() as f64 / of.len() as f64
        };
        PrecisionRecall { precision: share(real, samples), recall: share(samples, real) }
    }

    #[test]
    fn precision_and_recall_are_those_of_the_definition() {
        let mut between = 0;
        for (reals, samples, width, k) in [(20, 30, 2, 3), (150, 140, 3, 3), (600, 20, 2, 1)] {
            let (real, sampled) = (features(reals, width, 1), features(samples, width, 5));
            let found = precision_recall(&real, &sampled, k).unwrap();
            assert_eq!(found, by_definition(&real, &sampled, k));
            let shares = [found.precision, found.recall];
            between += shares.iter().filter(|share| (0.01..0.99).contains(*share)).count();
        }
        assert!(between > 1, "the sets are near each other in part");
    }

    #[test]
    fn a_set_covers_itself_and_nothing_far_away() {
        let set = features(50, 4, 1);
        let same = precision_recall(&set, &set, NEIGHBOURS).unwrap();
        assert_eq!(same, PrecisionRecall { precision: 1.0, recall: 1.0 });
        let mut far = Features::new(4);
        far.push(&set.values().iter().map(|v| v + 100.0).collect::<Vec<f32>>());
        let none = precision_recall(&set, &far, NEIGHBOURS).unwrap();
        assert_eq!(none, PrecisionRecall { precision: 0.0, recall: 0.0 });
        assert!(precision_recall(&set, &features(3, 4, 1), 3).is_none());
    }
}

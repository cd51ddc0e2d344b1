//! Mean and covariance of features, gathered row by row.

use std::path::Path;

use super::matrix::{View, add_scaled, product};
use crate::npy::{self, ArrayError};

/// Rows that are summed at once. Sums are the same whatever number of rows is pushed at a time.
const BLOCK: usize = 256;

/// The most numbers in a row of statistics that are read.
const MOST_FEATURES: usize = 16_384;

/// Mean and covariance of `d` features.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistics {
    /// `[d]`.
    pub mean: Vec<f64>,
    /// `[d, d]`, unbiased: divided by one less than the number of rows, as `numpy.cov` does.
    pub covariance: Vec<f64>,
}

impl Statistics {
    /// How many features there are.
    pub fn width(&self) -> usize {
        self.mean.len()
    }

    /// Reads `mu` and `sigma` of an `.npz` as pytorch-fid and EDM write it.
    ///
    /// # Errors
    /// The file cannot be read, is torn, lacks `mu` or `sigma`, or they do not fit each other.
    pub fn read(path: &Path) -> Result<Self, ArrayError> {
        let mean = npy::read_member(path, "mu")?;
        let [d] = mean.shape[..] else {
            return Err(mean.wrong(path, "`mu` is an array of one axis"));
        };
        if d == 0 || d > MOST_FEATURES {
            let most = format!("`mu` holds 1 to {MOST_FEATURES} numbers");
            return Err(mean.wrong(path, &most));
        }
        let covariance = npy::read_member(path, "sigma")?;
        if covariance.shape != [d, d] {
            return Err(covariance.wrong(path, &format!("`sigma` is `[{d}, {d}]`, as `mu` has it")));
        }
        Ok(Self { mean: mean.values, covariance: covariance.values })
    }
}

/// Rows gathered so far: how many, their mean, and the sums of products of what is left without it
/// (Chan, Golub and LeVeque 1983, equations 2.1). All have 64 bits.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    count: u64,
    mean: Vec<f64>,
    /// `[d, d]`.
    products: Vec<f64>,
    /// Rows that do not yet fill a block.
    waiting: Vec<f64>,
}

impl Moments {
    /// None yet, of `width` numbers a row.
    ///
    /// # Panics
    /// `width` is zero.
    pub fn new(width: usize) -> Self {
        assert!(width > 0, "features are at least one number");
        Self {
            count: 0,
            mean: vec![0.0; width],
            products: vec![0.0; width * width],
            waiting: Vec::new(),
        }
    }

    /// How many rows there are.
    pub fn count(&self) -> u64 {
        self.count + (self.waiting.len() / self.mean.len()) as u64
    }

    /// Adds whole rows, one after another. How many come at a time changes no bit.
    ///
    /// # Panics
    /// The last row is not whole.
    pub fn push(&mut self, rows: &[f32]) {
        let width = self.mean.len();
        assert!(rows.len().is_multiple_of(width), "the last row is not whole");
        for row in rows.chunks_exact(width) {
            self.waiting.extend(row.iter().map(|v| f64::from(*v)));
            if self.waiting.len() == BLOCK * width {
                self.sum_up();
            }
        }
    }

    /// Adds what another has gathered, after what is here. Of the same two in the same order the
    /// result has the same bits.
    ///
    /// # Panics
    /// The other's rows have another width.
    pub fn merge(&mut self, mut other: Self) {
        assert!(self.mean.len() == other.mean.len(), "rows of another width");
        self.sum_up();
        other.sum_up();
        self.combine(other.count, &other.mean, |products| {
            products.iter_mut().zip(&other.products).for_each(|(a, b)| *a += b);
        });
    }

    /// Mean and covariance; `None` of fewer than two rows.
    pub fn statistics(&self) -> Option<Statistics> {
        let mut whole = self.clone();
        whole.sum_up();
        let degrees = whole.count.checked_sub(1).filter(|d| *d > 0)? as f64;
        let covariance = whole.products.into_iter().map(|p| p / degrees).collect();
        Some(Statistics { mean: whole.mean, covariance })
    }

    /// Takes the waiting rows into the sums.
    fn sum_up(&mut self) {
        let width = self.mean.len();
        let mut rows = std::mem::take(&mut self.waiting);
        let count = rows.len() / width;
        if count == 0 {
            return;
        }
        let mut mean = vec![0.0; width];
        rows.chunks_exact(width).for_each(|row| add_scaled(&mut mean, 1.0, row));
        mean.iter_mut().for_each(|m| *m /= count as f64);
        rows.chunks_exact_mut(width).for_each(|row| add_scaled(row, -1.0, &mean));
        self.combine(count as u64, &mean, |products| {
            let rows = View::rows(&rows, width);
            product([width, count, width], rows.t(), rows, true, products);
        });
    }

    /// Adds `count` rows with a mean; `products` adds their sums of products.
    fn combine(&mut self, count: u64, mean: &[f64], products: impl FnOnce(&mut [f64])) {
        if count == 0 {
            return;
        }
        products(&mut self.products);
        let (before, more) = (self.count as f64, count as f64);
        let apart: Vec<f64> = mean.iter().zip(&self.mean).map(|(new, old)| new - old).collect();
        let both = before + more;
        for (row, d) in self.products.chunks_exact_mut(apart.len()).zip(&apart) {
            add_scaled(row, d * before * more / both, &apart);
        }
        add_scaled(&mut self.mean, more / both, &apart);
        self.count += count;
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use zip::CompressionMethod;
    use zip::write::{SimpleFileOptions, ZipWriter};

    use super::*;

    const WIDTH: usize = 5;

    fn rows(count: usize) -> Vec<f32> {
        // Far from zero, so that what is not centred loses digits.
        (0..count * WIDTH).map(|i| 1000.0 + ((i * 7919 + i * i) % 1009) as f32 / 1009.0).collect()
    }

    /// Mean and covariance as their definition has them.
    fn by_definition(rows: &[f32]) -> Statistics {
        let n = (rows.len() / WIDTH) as f64;
        let at = |row: usize, i: usize| f64::from(rows[row * WIDTH + i]);
        let all = || 0..rows.len() / WIDTH;
        let mean: Vec<f64> = (0..WIDTH).map(|i| all().map(|r| at(r, i)).sum::<f64>() / n).collect();
        let entry = |i: usize, j: usize| {
            all().map(|r| (at(r, i) - mean[i]) * (at(r, j) - mean[j])).sum::<f64>() / (n - 1.0)
        };
        let covariance = (0..WIDTH * WIDTH).map(|k| entry(k / WIDTH, k % WIDTH)).collect();
        Statistics { mean, covariance }
    }

    #[track_caller]
    fn assert_close(found: &Statistics, wanted: &Statistics) {
        let pairs = found.mean.iter().zip(&wanted.mean);
        for (a, b) in pairs.chain(found.covariance.iter().zip(&wanted.covariance)) {
            assert!((a - b).abs() < 1e-12 * b.abs().max(0.01), "{a} is not {b}");
        }
    }

    #[test]
    fn any_way_of_pushing_gives_the_definitions_numbers_and_the_same_bits() {
        let rows = rows(1000);
        let mut whole = Moments::new(WIDTH);
        whole.push(&rows);
        let whole = whole.statistics().unwrap();
        assert_close(&whole, &by_definition(&rows));
        for at_a_time in [1, 7, 256, 999] {
            let mut parts = Moments::new(WIDTH);
            rows.chunks(at_a_time * WIDTH).for_each(|rows| parts.push(rows));
            assert_eq!(parts.count(), 1000);
            assert_eq!(parts.statistics().unwrap(), whole, "{at_a_time} at a time");
        }
    }

    #[test]
    fn two_that_are_merged_are_one() {
        let rows = rows(700);
        for cut in [0, 1, 300, 699, 700] {
            let (mut one, mut two) = (Moments::new(WIDTH), Moments::new(WIDTH));
            one.push(&rows[..cut * WIDTH]);
            two.push(&rows[cut * WIDTH..]);
            one.merge(two);
            assert_eq!(one.count(), 700);
            assert_close(&one.statistics().unwrap(), &by_definition(&rows));
        }
    }

    #[test]
    fn one_row_has_no_covariance() {
        let mut moments = Moments::new(WIDTH);
        assert!(moments.statistics().is_none());
        moments.push(&rows(1));
        assert!(moments.statistics().is_none());
    }

    /// As NumPy's `savez` has it.
    fn written(statistics: &Statistics) -> Vec<u8> {
        let (mut bytes, d) = (Vec::new(), statistics.width());
        let mut zip = ZipWriter::new(Cursor::new(&mut bytes));
        let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        for (name, shape, values) in
            [("mu.npy", &[d][..], &statistics.mean), ("sigma.npy", &[d, d], &statistics.covariance)]
        {
            zip.start_file(name, stored).unwrap();
            zip.write_all(&npy::header("<f8", shape)).unwrap();
            values.iter().for_each(|value| zip.write_all(&value.to_le_bytes()).unwrap());
        }
        zip.finish().unwrap();
        bytes
    }

    #[test]
    fn files_give_back_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("statistics.npz");
        let statistics = by_definition(&rows(9));
        let bytes = written(&statistics);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(Statistics::read(&path).unwrap(), statistics);
        // Torn anywhere it is an error, and never a panic.
        for cut in 0..bytes.len() {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            Statistics::read(&path).unwrap_err();
        }
    }
}

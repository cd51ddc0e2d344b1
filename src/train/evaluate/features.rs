//! Features of many pictures: a row of numbers for each.

use std::io::{self, Write};
use std::path::Path;

use super::npy::{self, ArrayError};

/// Rows of features.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    width: usize,
    values: Vec<f32>,
}

impl Features {
    /// None yet, of `width` numbers each.
    ///
    /// # Panics
    /// `width` is zero.
    pub fn new(width: usize) -> Self {
        assert!(width > 0, "features are at least one number");
        Self { width, values: Vec::new() }
    }

    /// Adds whole rows, one after another.
    ///
    /// # Panics
    /// The last row is not whole.
    pub fn push(&mut self, rows: &[f32]) {
        assert!(rows.len().is_multiple_of(self.width), "the last row is not whole");
        self.values.extend_from_slice(rows);
    }

    /// Numbers in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.values.len() / self.width
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// All rows, one after another.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    pub fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.width..][..self.width]
    }

    /// Writes NumPy's `.npy` of `[n, width]` 32-bit floats. The same features are the same bytes.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&npy::header("<f4", &[self.len(), self.width]))?;
        for value in &self.values {
            out.write_all(&value.to_le_bytes())?;
        }
        Ok(())
    }

    /// Reads `[n, d]` floats of 32 or 64 bits from a `.npy`, or from a `.npz` that holds one such
    /// array, or one called `features`.
    ///
    /// # Errors
    /// The file cannot be read, is torn, holds something else, or numbers that are not finite.
    pub fn read(path: &Path) -> Result<Self, ArrayError> {
        let array = npy::read(path, "features")?;
        let [_, width] = array.shape[..] else {
            return Err(array.wrong(path, "features are an array of two axes, `[n, d]`"));
        };
        if width == 0 || array.values.is_empty() {
            return Err(array.wrong(path, "it holds no features"));
        }
        Ok(Self { width, values: array.values.iter().map(|v| *v as f32).collect() })
    }
}

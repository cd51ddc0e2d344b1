//! Features of many pictures: a row of numbers for each.

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
}

//! An image as a network is given it.

use crate::rng::{Purpose, stream};

use super::augment::{self, Change};
use super::dataset::Dataset;
use super::error::DataError;

impl Dataset {
    /// Image `index` as a training batch has it: `[3, size, size]` in -1..=1. `augmented` chooses
    /// one of the changes that the data set's augmentation makes, by any number; `None` leaves the
    /// image as it is.
    pub fn as_trained(&self, index: usize, augmented: Option<u64>) -> Result<Vec<f32>, DataError> {
        let size = self.image_size();
        let rgb = self.image(index)?;
        let change = augmented.map_or(Change::NONE, |number| {
            Change::draw(
                self.augmentation(),
                &mut stream(number, Purpose::Augment, 0, index as u64),
            )
        });
        let mut values = vec![0.0; 3 * size * size];
        augment::write(&rgb, size, change, &mut values);
        Ok(values)
    }
}

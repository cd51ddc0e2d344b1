//! The batches of a training, and how long it waits for them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pipe_engine::kind::{Failure, StageError};

use super::settings::TrainingSettings;
use crate::data::{Batch, DataError, Dataset, EpochBatches, Loader, LoaderOptions, Split};

/// The batches of one part of a data set, as the settings want them.
pub(super) fn loader(
    settings: &TrainingSettings,
    dataset: &Arc<Dataset>,
    split: Split,
) -> Result<Loader, StageError> {
    let options = LoaderOptions {
        batch_size: settings.batch_size,
        num_workers: settings.num_workers,
        seed: settings.seed,
    };
    Loader::new(dataset.clone(), split, options).map_err(data_error)
}

/// The batches of one epoch that are still to come.
pub(super) struct TimedBatches {
    batches: EpochBatches,
    epoch: u64,
    waited: Duration,
    /// Images of the batches that came.
    pub images: usize,
}

impl TimedBatches {
    pub fn new(batches: EpochBatches, epoch: u64) -> Self {
        Self { batches, epoch, waited: Duration::ZERO, images: 0 }
    }

    /// The next batch, which is the epoch's batch `number`. Waits for it.
    pub fn next(&mut self, number: usize) -> Result<Batch, StageError> {
        let asked = Instant::now();
        let Some(batch) = self.batches.next() else {
            let missing = format!("no batch {number} in epoch {}", self.epoch);
            return Err(StageError::new(Failure::Bug, missing));
        };
        let batch = batch.map_err(data_error)?;
        self.waited += asked.elapsed();
        self.images += batch.labels.len();
        Ok(batch)
    }

    /// Ends the threads that read them. Gives how long was waited, and how many images came.
    pub fn end(self) -> (Duration, usize) {
        (self.waited, self.images)
    }
}

pub(super) fn data_error(error: DataError) -> StageError {
    let failure = match error {
        DataError::Setting { .. } => Failure::Setting,
        _ => Failure::Input,
    };
    StageError::new(failure, error.to_string())
}

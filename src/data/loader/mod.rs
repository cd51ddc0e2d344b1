//! Batches of images, made ahead of their use by worker threads.
//!
//! A batch is a pure function of (data set, seed, epoch, number of the batch): how many threads
//! make it, and at which batch an epoch is taken up again, change no bit of it.

mod epoch;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::dataset::Dataset;
use crate::distributions::shuffle;
use crate::error::DataError;
use crate::split::Split;
use pipe_core::rng::{Purpose, stream};

use epoch::EpochPlan;
pub use epoch::{Batch, EpochBatches};

/// How a [`Loader`] works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoaderOptions {
    /// Images in a batch, at least 1.
    pub batch_size: usize,
    /// Threads that make batches ahead; 0 makes each batch in the calling thread, when it is asked
    /// for.
    pub num_workers: usize,
    /// Seed of the order and the augmentation.
    pub seed: u64,
}

/// Makes the batches of one side of a data set.
///
/// Training images come in a new order each epoch, augmented as the data set's settings say.
/// Validation images come unchanged, ascending, so that epochs compare.
#[derive(Clone)]
pub struct Loader {
    dataset: Arc<Dataset>,
    split: Split,
    options: LoaderOptions,
}

/// How many batches of `size` so many images make. Validation keeps an incomplete last batch.
/// Training leaves it out, so that every step weighs the same, unless it is the only one.
pub fn batches_per_epoch(split: Split, images: usize, size: usize) -> usize {
    match split {
        Split::Train if images >= size => images / size,
        _ => images.div_ceil(size),
    }
}

impl Loader {
    /// Fails when the batch size is 0.
    pub fn new(
        dataset: Arc<Dataset>,
        split: Split,
        options: LoaderOptions,
    ) -> Result<Self, DataError> {
        if options.batch_size == 0 {
            return Err(DataError::setting("batch_size", "0 is not at least 1"));
        }
        Ok(Self { dataset, split, options })
    }

    /// How many batches an epoch has.
    pub fn batches_per_epoch(&self) -> usize {
        batches_per_epoch(
            self.split,
            self.dataset.indices(self.split).len(),
            self.options.batch_size,
        )
    }

    /// The batches of `epoch` from number `first_batch` on; none when that is past the end. After
    /// an error, the iterator ends. Dropping it ends its threads.
    pub fn epoch(&self, epoch: u64, first_batch: usize) -> EpochBatches {
        let mut order = self.dataset.indices(self.split).to_vec();
        if self.split == Split::Train {
            shuffle(&mut stream(self.options.seed, Purpose::Shuffle, epoch, 0), &mut order);
        }
        let plan = EpochPlan {
            dataset: self.dataset.clone(),
            split: self.split,
            batch_size: self.options.batch_size,
            seed: self.options.seed,
            epoch,
            order,
            stop: AtomicBool::new(false),
        };
        EpochBatches::start(plan, first_batch, self.batches_per_epoch(), self.options.num_workers)
    }
}

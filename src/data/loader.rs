//! Batches of images, made ahead of their use by worker threads.
//!
//! A batch is a pure function of (data set, seed, epoch, number of the batch): how many threads
//! make it, and at which batch an epoch is taken up again, change no bit of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use crate::rng::{Purpose, stream};

use super::augment::{self, Change};
use super::dataset::Dataset;
use super::error::DataError;
use super::order::shuffle;
use super::split::Split;

/// Batches that each worker may have ready and waiting.
const AHEAD: usize = 2;

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

/// Some images of one epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// `[batch, 3, size, size]` in -1..=1.
    pub images: Vec<f32>,
    /// `[batch]`, positions in the data set's class names.
    pub labels: Vec<i64>,
    /// `[batch]`, positions in the data set.
    pub indices: Vec<usize>,
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
pub fn batches(split: Split, images: usize, size: usize) -> usize {
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
        batches(self.split, self.dataset.indices(self.split).len(), self.options.batch_size)
    }

    /// The batches of `epoch` from number `first_batch` on; none when that is past the end. After
    /// an error, the iterator ends. Dropping it ends its threads.
    pub fn epoch(&self, epoch: u64, first_batch: usize) -> Epoch {
        let mut order = self.dataset.indices(self.split).to_vec();
        if self.split == Split::Train {
            shuffle(&mut stream(self.options.seed, Purpose::Shuffle, epoch, 0), &mut order);
        }
        let recipe = Recipe { loader: self.clone(), epoch, order, stop: AtomicBool::new(false) };
        Epoch::start(recipe, first_batch, self.batches_per_epoch())
    }
}

/// All that decides the batches of one epoch.
struct Recipe {
    loader: Loader,
    epoch: u64,
    order: Vec<usize>,
    /// Set when nobody wants batches any more.
    stop: AtomicBool,
}

impl Recipe {
    /// Batch `number`, or `None` when stopped meanwhile.
    fn make(&self, number: usize) -> Option<Result<Batch, DataError>> {
        let Loader { dataset, split, options } = &self.loader;
        let size = dataset.image_size();
        let first = number * options.batch_size;
        let indices = self.order[first..self.order.len().min(first + options.batch_size)].to_vec();
        let mut images = vec![0.0; indices.len() * 3 * size * size];
        for (i, out) in images.chunks_exact_mut(3 * size * size).enumerate() {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            let change = match split {
                Split::Validation => Change::NONE,
                Split::Train => {
                    let position = (first + i) as u64;
                    let mut rng = stream(options.seed, Purpose::Augment, self.epoch, position);
                    Change::draw(dataset.augmentation(), &mut rng)
                }
            };
            match dataset.image(indices[i]) {
                Ok(rgb) => augment::write(&rgb, size, change, out),
                Err(error) => return Some(Err(error)),
            }
        }
        let labels = indices.iter().map(|index| i64::from(dataset.label(*index))).collect();
        Some(Ok(Batch { images, labels, indices }))
    }

    /// What worker `first - first_batch` does: batches `first`, `first + step`, … until one cannot
    /// be delivered.
    fn work(
        &self,
        first: usize,
        step: usize,
        end: usize,
        out: &SyncSender<Result<Batch, DataError>>,
    ) {
        for number in (first..end).step_by(step) {
            let Some(batch) = self.make(number) else { return };
            let failed = batch.is_err();
            if out.send(batch).is_err() || failed {
                return;
            }
        }
    }
}

/// The batches of one epoch, in order.
pub struct Epoch {
    recipe: Arc<Recipe>,
    /// Worker `w` delivers the batches `first + w`, `first + w + workers`, …; empty when there are
    /// no workers.
    ready: Vec<Receiver<Result<Batch, DataError>>>,
    threads: Vec<JoinHandle<()>>,
    first: usize,
    next: usize,
    end: usize,
    not_started: Option<DataError>,
}

impl Epoch {
    fn start(recipe: Recipe, first: usize, end: usize) -> Self {
        let first = first.min(end);
        let workers = recipe.loader.options.num_workers.min(end - first);
        let (ready, threads) = (Vec::with_capacity(workers), Vec::with_capacity(workers));
        let recipe = Arc::new(recipe);
        let mut epoch = Self { recipe, ready, threads, first, next: first, end, not_started: None };
        for worker in 0..workers {
            let (send, receive) = sync_channel(AHEAD);
            let recipe = epoch.recipe.clone();
            let work = move || recipe.work(first + worker, workers, end, &send);
            match thread::Builder::new().name(format!("loader-{worker}")).spawn(work) {
                Ok(thread) => epoch.threads.push(thread),
                Err(e) => {
                    let reason =
                        format!("no thread could be started: {e}; set fewer `num_workers`");
                    epoch.not_started = Some(DataError::Worker { batch: first + worker, reason });
                    break;
                }
            }
            epoch.ready.push(receive);
        }
        epoch
    }
}

impl Iterator for Epoch {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.not_started.take() {
            self.end = self.next;
            return Some(Err(error));
        }
        if self.next >= self.end {
            return None;
        }
        let number = self.next;
        let batch = if self.ready.is_empty() {
            self.recipe.make(number)?
        } else {
            self.ready[(number - self.first) % self.ready.len()].recv().unwrap_or_else(|_| {
                let reason = "its thread ended early; its message stands above".to_owned();
                Err(DataError::Worker { batch: number, reason })
            })
        };
        self.next = if batch.is_ok() { number + 1 } else { self.end };
        Some(batch)
    }
}

impl Drop for Epoch {
    fn drop(&mut self) {
        self.recipe.stop.store(true, Ordering::Relaxed);
        self.ready.clear(); // a worker that waits to deliver now learns that nobody takes it
        for thread in self.threads.drain(..) {
            // A panicked worker was already reported by `next`, if anybody asked for its batch.
            let _ = thread.join();
        }
    }
}

//! The batches of one epoch, made ahead by worker threads and handed out in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use crate::augment::Change;
use crate::dataset::Dataset;
use crate::error::DataError;
use crate::split::Split;
use pipe_core::rng::{Purpose, stream};

/// Batches that each worker may have ready and waiting.
const AHEAD: usize = 2;

/// Some images of one epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// `[batch, 3, size, size]` in -1..=1.
    pub images: Vec<f32>,
    /// `[batch]`, positions in the data set's class names.
    pub labels: Vec<i64>,
    /// `[batch]`, positions in the data set.
    pub indices: Vec<usize>,
    /// `[batch, labels]`, what the augmentation did to each; empty where the network is not told.
    pub augment: Vec<f32>,
}

/// All that decides the batches of one epoch.
pub(super) struct EpochPlan {
    pub dataset: Arc<Dataset>,
    pub split: Split,
    pub batch_size: usize,
    pub seed: u64,
    pub epoch: u64,
    /// Positions in the data set, in the order of the epoch.
    pub order: Vec<usize>,
    /// Set when nobody wants batches any more.
    pub stop: AtomicBool,
}

impl EpochPlan {
    /// Batch `number`, or `None` when stopped meanwhile.
    fn make(&self, number: usize) -> Option<Result<Batch, DataError>> {
        let Self { dataset, split, batch_size, seed, .. } = self;
        let size = dataset.image_size();
        let first = number * batch_size;
        let indices = self.order[first..self.order.len().min(first + batch_size)].to_vec();
        let mut images = vec![0.0; indices.len() * 3 * size * size];
        let mut augment = Vec::new();
        for (i, out) in images.chunks_exact_mut(3 * size * size).enumerate() {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            let change = match split {
                Split::Validation => Change::NONE,
                Split::Train => {
                    let position = (first + i) as u64;
                    let mut rng = stream(*seed, Purpose::Augment, self.epoch, position);
                    Change::sample(dataset.augmentation(), &mut rng)
                }
            };
            match dataset.image(indices[i]) {
                Ok(rgb) => change.write(&rgb, size, out),
                Err(error) => return Some(Err(error)),
            }
            augment.extend_from_slice(change.labels());
        }
        let labels = indices.iter().map(|index| i64::from(dataset.label(*index))).collect();
        Some(Ok(Batch { images, labels, indices, augment }))
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
pub struct EpochBatches {
    plan: Arc<EpochPlan>,
    /// Worker `w` delivers the batches `first + w`, `first + w + workers`, …; empty when there are
    /// no workers.
    ready: Vec<Receiver<Result<Batch, DataError>>>,
    threads: Vec<JoinHandle<()>>,
    first: usize,
    next: usize,
    end: usize,
    not_started: Option<DataError>,
}

impl EpochBatches {
    pub(super) fn start(plan: EpochPlan, first: usize, end: usize, num_workers: usize) -> Self {
        let first = first.min(end);
        let workers = num_workers.min(end - first);
        let (ready, threads) = (Vec::with_capacity(workers), Vec::with_capacity(workers));
        let plan = Arc::new(plan);
        let mut epoch = Self { plan, ready, threads, first, next: first, end, not_started: None };
        for worker in 0..workers {
            let (send, receive) = sync_channel(AHEAD);
            let plan = epoch.plan.clone();
            let work = move || plan.work(first + worker, workers, end, &send);
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

impl Iterator for EpochBatches {
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
            self.plan.make(number)?
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

impl Drop for EpochBatches {
    fn drop(&mut self) {
        self.plan.stop.store(true, Ordering::Relaxed);
        self.ready.clear(); // a worker that waits to deliver now learns that nobody takes it
        for thread in self.threads.drain(..) {
            // A panicked worker was already reported by `next`, if anybody asked for its batch.
            let _ = thread.join();
        }
    }
}

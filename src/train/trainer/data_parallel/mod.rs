//! Data-parallel training on several devices. Each further device has a replica of the network and
//! computes its shard of every batch, in a thread of its own; the main device has all else: weights
//! in f32, optimizer, EMA weights, checkpoints. Two things travel, once in an optimizer step and
//! through host memory, which is the one way between devices of any kind: gradients to the main
//! device, and the weights that it makes of them back to the others.
//!
//! Knows nothing of optimizers, schedules or files.

mod params;
mod replica;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use pipe_engine::kind::{Failure, StageError};

use self::params::{Params, accumulate, add_to_gradients, params_of};
pub use self::replica::Worker;
pub(super) use self::replica::read_gradients;
use self::replica::{Replica, Work};
use super::backward::Backward;
use super::noised_batch::NoisedBatch;
use crate::architecture::Network;

/// The replicas; none for a training on one device, where every call here does nothing.
pub struct DataParallel {
    all: Vec<Replica>,
    /// They have the newest weights.
    weights_are_current: bool,
}

impl DataParallel {
    /// Copies the network, in the number format that it computes in, to further devices. Waits for
    /// the device that it is on.
    pub fn start(
        workers: &[Worker],
        weights: &Network,
        backward: Backward,
    ) -> Result<Self, StageError> {
        let mut parallel = Self { all: Vec::new(), weights_are_current: true };
        if workers.is_empty() {
            return Ok(parallel);
        }
        let data = Arc::new(params_of(weights, Params::All)?);
        for worker in workers.iter().cloned() {
            parallel.all.push(Replica::start(worker, weights.clone(), data.clone(), backward)?);
        }
        Ok(parallel)
    }

    /// Gives the newest weights to all, where they have others. Waits for the main device then.
    pub fn broadcast_weights(&mut self, weights: &Network) -> Result<(), StageError> {
        if self.all.is_empty() || self.weights_are_current {
            return Ok(());
        }
        let data = Arc::new(params_of(weights, Params::Trainable)?);
        self.weights_are_current = true;
        self.all.iter_mut().try_for_each(|replica| replica.send(Work::Weights(data.clone())))
    }

    /// Cuts a batch into shards, lets the replicas begin with theirs, and gives back the main
    /// device's. `number` counts the batches of a step, of which there are `group`. Waits only for
    /// a replica that is behind by some batches of the step.
    pub fn scatter(
        &mut self,
        batch: NoisedBatch,
        number: usize,
        group: usize,
    ) -> Result<NoisedBatch, StageError> {
        if self.all.is_empty() {
            return Ok(batch);
        }
        let mut shards = batch.shards(1 + self.all.len());
        let rest = shards.split_off(1);
        for (replica, shard) in self.all.iter_mut().zip(rest) {
            replica.send(Work::Shard { shard, number, group })?;
        }
        shards.pop().ok_or_else(|| StageError::new(Failure::Bug, "a batch without images"))
    }

    /// Adds what the replicas found to the gradients and losses of the main device, always in the
    /// order of the list: no bit depends on who is done first. Waits for the replicas.
    pub fn reduce_gradients(
        &mut self,
        gradients: GradientsParams,
        losses: &mut [Tensor<1>],
        weights: &Network,
    ) -> Result<GradientsParams, StageError> {
        if self.all.is_empty() {
            return Ok(gradients);
        }
        self.weights_are_current = false; // An optimizer step follows.
        for replica in &mut self.all {
            replica.send(Work::Reduce)?;
        }
        let (mut sums, mut parts) = (HashMap::new(), vec![0.0f32; losses.len()]);
        for replica in &mut self.all {
            let found = replica.receive()?;
            for (id, data) in found.gradients {
                accumulate(&mut sums, id, data)?;
            }
            for (number, part) in found.losses {
                parts[number] += part;
            }
        }
        for (loss, part) in losses.iter_mut().zip(parts) {
            *loss = loss.clone() + part;
        }
        Ok(add_to_gradients(weights, gradients, sums))
    }
}

impl Drop for DataParallel {
    /// The threads end with the training: after what they are computing just now.
    fn drop(&mut self) {
        self.all.iter_mut().for_each(Replica::close);
        self.all.iter_mut().for_each(Replica::join);
    }
}

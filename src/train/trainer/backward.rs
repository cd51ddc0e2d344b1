//! Loss and gradients of one device's shard of a batch: the same on the main device and on every
//! replica.

use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Device, Tensor};

use super::noised_batch::{LossInputs, NoisedBatch};
use super::precision::Precision;
use crate::architecture::{Denoiser, ModelConfig, Network};
use crate::nn::{Dropout, Pass};

/// What stays the same in all passes of a training.
#[derive(Debug, Clone, Copy)]
pub struct Backward {
    pub precision: Precision,
    /// 0 for a model without classes.
    pub classes: usize,
    pub image_size: usize,
    pub dropout: Dropout,
    /// Micro-batches that a shard is cut into, to save memory.
    pub micro_batches: usize,
}

impl Backward {
    pub fn new(
        config: &ModelConfig,
        precision: Precision,
        dropout: Dropout,
        micro_batches: usize,
    ) -> Self {
        let (classes, image_size) = (config.num_classes(), config.image_size());
        Self { precision, classes, image_size, dropout, micro_batches }
    }

    /// Adds the shard's gradients to those of a step of `group` batches, and gives its part of the
    /// batch's mean loss, `[1]`. Waits for nothing.
    pub fn add(
        &self,
        gradients: &mut GradientsAccumulator<Network>,
        weights: &Network,
        batch: NoisedBatch,
        group: usize,
        device: &Device,
    ) -> Option<Tensor<1>> {
        let mut whole: Option<Tensor<1>> = None;
        for micro_batch in
            batch.on_device(self.classes, self.image_size, device).micro_batches(self.micro_batches)
        {
            let fraction = micro_batch.fraction();
            let loss = self.loss(weights, micro_batch); // [1]
            let mean =
                if fraction < 1.0 { loss.clone().inner() * fraction } else { loss.clone().inner() };
            whole = Some(whole.map_or(mean.clone(), |sum| sum + mean));
            let scaled = loss.mul_scalar(self.precision.loss_scale() * fraction / group as f64);
            let found = GradientsParams::from_grads(scaled.backward(), weights);
            gradients.accumulate(weights, self.precision.gradients(weights, found));
        }
        whole
    }
    /// The loss of each image by itself, `[1]` each: their mean is the batch's loss, but for the order
    /// of its sum. Waits for nothing.
    pub fn each_loss(
        &self,
        weights: &Network,
        batch: NoisedBatch,
        device: &Device,
    ) -> Vec<Tensor<1>> {
        let images = batch.levels().len();
        let single = batch
            .on_device(self.classes, self.image_size, device)
            .micro_batches(images)
            .into_iter();
        single.map(|image| self.loss(weights, image).inner()).collect()
    }

    /// The mean loss of a micro-batch, `[1]`, with autodiff.
    fn loss(&self, weights: &Network, micro_batch: LossInputs) -> Tensor<1> {
        let (shard, key) = (micro_batch.shard, micro_batch.shard.key);
        let pass = Pass::training(self.dropout, key.seed, key.epoch, key.batch, shard.first)
            .with_augment(micro_batch.augment)
            .with_matmul_precision(self.precision.matmul());
        weights.objective().loss(
            weights,
            micro_batch.image,
            micro_batch.sigma,
            micro_batch.noise,
            micro_batch.label,
            &pass,
        )
    }
}

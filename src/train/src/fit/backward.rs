//! Loss and gradients of one device's share of a batch: the same on the main device and on every
//! replica.

use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Device, Tensor};

use super::draw::Drawn;
use super::precision::Precision;
use crate::architecture::{ModelConfig, Network};
use crate::diffit::Pass;
use crate::noise::Edm;

/// What stays the same in all passes of a training.
#[derive(Debug, Clone, Copy)]
pub struct Backward {
    pub edm: Edm,
    pub precision: Precision,
    /// 0 for a model without classes.
    pub classes: usize,
    pub image_size: usize,
    /// Share of the inputs of LoRA's factors that are dropped.
    pub lora_dropout: f64,
    /// Pieces in which a share goes through the network, to save memory.
    pub pieces: usize,
}

impl Backward {
    pub fn new(
        config: &ModelConfig,
        precision: Precision,
        lora_dropout: f64,
        pieces: usize,
    ) -> Self {
        let (classes, image_size) = (config.num_classes(), config.image_size());
        Self { edm: Edm::default(), precision, classes, image_size, lora_dropout, pieces }
    }

    /// Adds the share's gradients to those of a step of `group` batches, and gives its part of the
    /// batch's mean loss, `[1]`. Waits for nothing.
    pub fn add(
        &self,
        gradients: &mut GradientsAccumulator<Network>,
        weights: &Network,
        share: Drawn,
        group: usize,
        device: &Device,
    ) -> Option<Tensor<1>> {
        let mut whole: Option<Tensor<1>> = None;
        for piece in share.on_device(self.classes, self.image_size, device).pieces(self.pieces) {
            let (part, share) = (piece.part, piece.share());
            let key = part.key;
            let pass =
                Pass::training(self.lora_dropout, key.seed, key.epoch, key.batch, part.first);
            let loss =
                self.edm.loss(weights, piece.image, piece.sigma, piece.noise, piece.label, &pass); // [1]
            let mean =
                if share < 1.0 { loss.clone().inner() * share } else { loss.clone().inner() };
            whole = Some(whole.map_or(mean.clone(), |sum| sum + mean));
            let scaled = loss.mul_scalar(self.precision.loss_scale() * share / group as f64);
            let found = GradientsParams::from_grads(scaled.backward(), weights);
            gradients.accumulate(weights, self.precision.gradients(weights, found));
        }
        whole
    }
}

//! The loss of the images that are not trained on.

use pipe_engine::kind::StageError;

use super::batches::{data_error, loader};
use super::noised_batch::{BatchKey, NoisedBatch};
use super::train_state::TrainState;
use super::training_context::TrainingContext;
use crate::architecture::Denoiser;
use crate::data::Split;
use crate::device;
use crate::nn::Pass;

/// Mean loss over the validation images, with the weights that would be sampled from.
pub(super) fn validation_loss(
    training: &TrainingContext,
    state: &TrainState,
) -> Result<f64, StageError> {
    let TrainingContext { settings, config, dataset, device, .. } = training;
    let loader = loader(settings, dataset, Split::Validation)?;
    let (weights, device) = (state.weights(), device.clone().inner());
    let objective = weights.objective();
    let (mut sum, mut count) = (0.0, 0);
    for (number, batch) in loader.epoch(0, 0).enumerate() {
        let batch = batch.map_err(data_error)?;
        let images = batch.labels.len();
        let key = BatchKey { seed: settings.seed, epoch: 0, batch: number as u64 };
        let noised = NoisedBatch::for_validation(batch, key, &objective);
        let inputs = noised.on_device(config.num_classes(), config.image_size(), &device);
        let pass = Pass::inference();
        let loss =
            objective.loss(&weights, inputs.image, inputs.sigma, inputs.noise, inputs.label, &pass);
        let loss = device::read(loss)?.iter::<f64>().sum::<f64>();
        sum += loss * images as f64;
        count += images;
    }
    Ok(sum / f64::from(count.max(1) as u32))
}

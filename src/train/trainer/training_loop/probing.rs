//! A replay's look into the steps of a training. It changes no bit of it.

use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use pipe_engine::kind::StageError;

use super::super::noised_batch::NoisedBatch;
use super::super::optimizer::squared_norm;
use super::super::probe::{BatchView, StepProbe};
use super::Trainer;
use crate::architecture::Network;
use crate::device;

impl Trainer<'_, '_> {
    /// The probe, if the step that is being computed is one that it looks at.
    fn probe(&self) -> Option<&StepProbe> {
        let probe = self.training.probe.as_deref()?;
        probe.looks_at(self.position.global_step + 1).then_some(probe)
    }

    pub(super) fn is_probed(&self) -> bool {
        self.probe().is_some()
    }

    /// Whether the last step was done that the probe is there for.
    pub(super) fn is_probed_to_the_end(&self) -> bool {
        let probe = self.training.probe.as_deref();
        probe.is_some_and(|probe| probe.is_last(self.position.global_step))
    }

    /// Shows the probe the images of a batch, which are `indices` of the data set.
    pub(super) fn probe_images(
        &self,
        indices: &[usize],
        noised: &NoisedBatch,
        weights: &Network,
    ) -> Result<(), StageError> {
        let Some(probe) = self.probe() else { return Ok(()) };
        let (backward, device) = (&self.backward, &self.training.device);
        let dataset = &*self.training.dataset;
        probe.look(&BatchView { indices, noised, weights, backward, dataset, device })
    }

    /// Tells the probe of a step: `losses` `[1]` of its batches, and the gradients of their mean.
    pub(super) fn probe_step(
        &self,
        epoch: u64,
        losses: &[Tensor<1>],
        weights: &Network,
        gradients: &GradientsParams,
    ) -> Result<(), StageError> {
        let Some(probe) = &self.training.probe else { return Ok(()) };
        let read = device::read(Tensor::cat(losses.to_vec(), 0))?;
        let losses: Vec<f64> = read.iter::<f32>().map(f64::from).collect();
        let squares = self.is_probed().then(|| squared_norm(weights, gradients)).flatten();
        let norm = match squares {
            Some(squares) => device::read(squares.sqrt())?.iter::<f32>().next().map(f64::from),
            None => None,
        };
        probe.end_step(self.position.global_step + 1, epoch, &losses, norm);
        Ok(())
    }
}

//! Looks at a training on its way: validation inside an epoch, and image grids. They change no bit
//! of it.

use pipe_engine::kind::StageError;
use pipe_runs::LiveRequest;

use super::super::recorder::SampleGrid;
use super::super::training_context::Position;
use super::super::validation::validation_loss;
use super::{Epoch, Trainer};

impl Trainer<'_, '_> {
    /// Validates and samples between two steps of an epoch, if it is time or a person asks for a
    /// picture. The checkpoint of this
    /// step comes behind, so that whoever goes on from it does neither again.
    pub(super) fn look_inside(&mut self, epoch: &Epoch) -> Result<(), StageError> {
        if self.position.step_in_epoch == self.steps_per_epoch {
            // The epoch's end is validated and sampled by itself.
            return Ok(());
        }
        let step = self.position.global_step;
        let every = self.training.settings.validate_every_n_steps;
        if every.is_some_and(|n| step.is_multiple_of(n)) {
            let loss = validation_loss(self.training, self.state)?;
            self.recorder.log_validation(epoch.number, step, loss)?;
        }
        // Where a signal keeps it from being sampled, the training ends right behind this.
        if self.recorder.takes_request(LiveRequest::Sample)? {
            self.recorder.sample(SampleGrid::Step(step), self.state, self.training)?;
        } else {
            self.sample()?;
        }
        Ok(())
    }

    /// The image grid of this position, if there is to be one. `false`: a signal kept it from being
    /// sampled.
    pub(super) fn sample(&mut self) -> Result<bool, StageError> {
        match SampleGrid::at(self.training.settings, &self.position) {
            Some(grid) => self.recorder.sample(grid, self.state, self.training),
            None => Ok(true),
        }
    }

    /// The image grid of the position that the training goes on from, unless the process before
    /// ended before it was sampled.
    pub(super) fn sample_if_missing(&mut self) -> Result<(), StageError> {
        let Some(grid) = SampleGrid::at(self.training.settings, &self.position) else {
            return Ok(());
        };
        let sampled = self.recorder.sample_if_missing(grid, self.state, self.training)?;
        if !sampled && let Some((failure, signal)) = self.interrupted() {
            let Position { epoch, .. } = self.position;
            let text = format!("stopped by {signal} after epoch {epoch}");
            return Err(StageError::new(failure, text));
        }
        Ok(())
    }
}

//! From one period of a training to the next.

use pipe_engine::kind::{Failure, StageError};

use super::super::backward::Backward;
use super::super::batches::loader;
use super::super::data_parallel::DataParallel;
use super::super::noised_batch::LabelDropout;
use super::super::periods::Period;
use super::super::training_context::TrainingContext;
use super::Trainer;
use crate::data::{Loader, Split};

/// What a training has by the settings of a period.
pub(super) struct InPeriod {
    pub labels: LabelDropout,
    pub backward: Backward,
    pub loader: Loader,
    pub steps_per_epoch: u64,
}

impl InPeriod {
    pub fn of(training: &TrainingContext, period: &Period) -> Result<Self, StageError> {
        let TrainingContext { config, dataset, micro_batches, .. } = training;
        let Period { settings, label_dropout, dropout, .. } = period;
        let labels = LabelDropout { classes: config.num_classes(), dropout: *label_dropout };
        let backward = Backward::new(config, settings.precision, *dropout, *micro_batches);
        let loader = loader(settings, dataset, Split::Train)?;
        let batches_per_epoch = loader.batches_per_epoch();
        if batches_per_epoch == 0 {
            return Err(StageError::new(Failure::Input, "the data set has no training images"));
        }
        let steps_per_epoch = batches_per_epoch.div_ceil(settings.accumulate_grad_batches) as u64;
        Ok(Self { labels, backward, loader, steps_per_epoch })
    }
}

impl Trainer<'_, '_> {
    /// Takes over the settings of the period that begins behind the completed epochs. `false`: none
    /// does.
    pub(super) fn enter_period(&mut self) -> Result<bool, StageError> {
        let completed = self.position.epoch;
        let period = self.training.periods.at(completed);
        if period.after == self.period.after {
            return Ok(false);
        }
        let before = self.steps_per_epoch;
        let InPeriod { labels, backward, loader, steps_per_epoch } =
            InPeriod::of(self.training, period)?;
        (self.labels, self.backward, self.loader) = (labels, backward, loader);
        self.steps_per_epoch = steps_per_epoch;
        // The schedule counts all epochs as if they had as many steps as those that come.
        self.other_steps += completed as i64 * (before as i64 - steps_per_epoch as i64);
        self.period = period;
        self.state.enter(period);
        self.recorder.enter(completed);
        period.begins().into_iter().for_each(|event| self.training.context.event(event));
        Ok(true)
    }

    /// Replicas that compute by the settings of the period. Those of before are ended first, so that
    /// no device holds two.
    pub(super) fn restart_workers(&self, before: DataParallel) -> Result<DataParallel, StageError> {
        drop(before);
        self.start_workers()
    }
}

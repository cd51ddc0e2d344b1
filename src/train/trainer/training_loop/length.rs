//! How long a training is that is to end in time: fixed on the way, before the learning rate has to
//! begin to fall.

use pipe_engine::kind::StageError;
use pipe_trainer::{Ending, EpochTime, PlannedLength, planned_epochs};

use super::super::schedule::Horizon;
use super::Trainer;

impl Trainer<'_, '_> {
    /// What its schedule spans.
    pub(super) fn horizon(&self) -> Horizon {
        let steps_per_epoch = self.steps_per_epoch;
        match self.planned {
            Some(epochs) => Horizon { epochs, steps_per_epoch },
            None => self.period.settings.horizon_steps(steps_per_epoch),
        }
    }

    /// The last epoch. What is done once more ends where it is told to.
    pub(super) fn last_epoch(&self) -> u64 {
        let planned = self.planned.filter(|_| self.training.context.aside.is_none());
        planned.unwrap_or(self.training.epochs)
    }

    /// Fixes the number of epochs if the learning rate has to begin to fall. Between two epochs.
    pub(super) fn plan_length(&mut self) -> Result<(), StageError> {
        let settings = self.training.settings;
        let limits = &self.stopping.limits;
        let is_inside = self.position.step_in_epoch > 0;
        if !limits.is_set() || self.planned.is_some() || is_inside {
            return Ok(());
        }
        let epochs = self.position.epoch;
        let Some(trained) = self.recorder.epoch_seconds(epochs)? else { return Ok(()) };
        // What is done between epochs passes too.
        let own = epochs - self.epochs_before;
        let each = self.began.elapsed().as_secs_f64() / own as f64;
        let passed = if own > 0 { each.max(trained) } else { trained };
        let each = EpochTime { trained, passed };
        let Some(fit) = limits.fit(self.trained_before, each) else { return Ok(()) };
        self.target = epochs.saturating_add(fit).min(self.training.epochs).max(epochs);
        if !settings.places_decay() {
            return Ok(());
        }
        let constant = |epochs| settings.schedule.stable_epochs(epochs);
        let Some(all) = planned_epochs(epochs, fit, self.training.epochs, constant) else {
            return Ok(());
        };
        self.planned = Some(all);
        self.target = all;
        let length = PlannedLength { epochs: all, limit: limits.words() };
        self.recorder.note_length(&length, constant(all))
    }

    /// Why it ends with its last epoch, where that was fixed on the way.
    pub(super) fn ending_in_time(&self) -> Option<Ending> {
        let is_planned = self.planned.is_some_and(|all| all < self.training.epochs);
        self.stopping.limits.in_time().filter(|_| is_planned)
    }
}

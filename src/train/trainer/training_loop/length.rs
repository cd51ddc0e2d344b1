//! How long a training is that is to end in time: fixed on the way, before the learning rate has to
//! begin to fall.

use pipe_engine::kind::StageError;
use pipe_trainer::{Ending, EpochTime, PlannedLength, Trained, planned_epochs};

use super::super::schedule::Horizon;
use super::Trainer;

/// Epochs whose median says how long one takes.
const NEWEST: usize = 5;

impl Trainer<'_, '_> {
    /// What its schedule spans.
    pub(super) fn horizon(&self) -> Horizon {
        let steps_per_epoch = self.steps_per_epoch;
        match self.planned {
            Some(epochs) => Horizon { epochs, steps_per_epoch },
            None => self.period.settings.horizon_steps(steps_per_epoch),
        }
    }

    /// Fixes the number of epochs if the learning rate has to begin to fall. `ended`: seconds of the
    /// epoch that has just ended, if one has.
    pub(super) fn plan_length(&mut self, ended: Option<f64>) -> Result<(), StageError> {
        let settings = self.training.settings;
        let limits = &self.stopping.limits;
        let is_inside = self.position.step_in_epoch > 0;
        if !limits.is_set() || self.planned.is_some() || is_inside {
            return Ok(());
        }
        self.epoch_seconds.extend(ended);
        self.own_epochs += u32::from(ended.is_some());
        let mut newest: Vec<f64> = self.epoch_seconds.iter().rev().take(NEWEST).copied().collect();
        newest.sort_by(f64::total_cmp);
        let Some(trained) = newest.get(newest.len() / 2).copied() else { return Ok(()) };
        // What is done between epochs passes too.
        let each = self.began.elapsed().as_secs_f64() / f64::from(self.own_epochs);
        let passed = if self.own_epochs > 0 { each.max(trained) } else { trained };
        let epochs = self.position.epoch;
        let seconds = self.trained_before.seconds + ended.unwrap_or(0.0);
        let so_far = Trained { seconds, epochs, ..self.trained_before };
        let Some(fit) = limits.fit(so_far, EpochTime { trained, passed }) else { return Ok(()) };
        self.target = epochs.saturating_add(fit).min(self.training.epochs).max(epochs);
        if !settings.places_decay() {
            return Ok(());
        }
        let constant = |epochs| settings.schedule.stable_epochs(epochs);
        let Some(all) = planned_epochs(epochs, fit, self.training.epochs, constant) else {
            return Ok(());
        };
        self.planned = Some(all);
        (self.epochs, self.target) = (all, all);
        let length = PlannedLength { epochs: all, limit: limits.words() };
        self.recorder.note_length(&length, constant(all))
    }

    /// Why it ends with its last epoch, where that was fixed on the way.
    pub(super) fn ending_in_time(&self) -> Option<Ending> {
        let is_planned = self.planned.is_some_and(|all| all < self.training.epochs);
        self.stopping.limits.in_time().filter(|_| is_planned)
    }
}

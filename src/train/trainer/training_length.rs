//! How long a training is, and over what its schedule spans.

use pipe_runs::policy::CheckpointPolicy;
use pipe_trainer::{TimeLimits, UNLIMITED};
use serde_json::Value;

use super::init_settings::InitSettings;
use super::schedule::Horizon;
use super::schedule::ScheduleKind;
use super::settings::TrainingSettings;
use crate::data::{Split, batches_per_epoch};

impl TrainingSettings {
    /// By when it is to have ended.
    pub fn limits(&self) -> TimeLimits {
        TimeLimits::new(self.budget, self.until)
    }

    /// Whether the schedule's length is found on the way, for it to fall in time.
    pub fn places_decay(&self) -> bool {
        self.limits().is_set() && self.schedule.kind == ScheduleKind::ConstantThenDecay
    }

    /// The number of epochs that the schedule spans; `None` if it spans `max_steps`, or is found on
    /// the way.
    pub fn horizon(&self) -> Option<u64> {
        if self.places_decay() {
            return None;
        }
        self.schedule_epochs.or(Some(self.epochs).filter(|epochs| *epochs != UNLIMITED))
    }

    /// What the schedule spans. `steps`: those of an epoch.
    pub fn horizon_steps(&self, steps: u64) -> Horizon {
        match self.horizon() {
            Some(epochs) => Horizon { epochs, steps_per_epoch: steps },
            None => Horizon { epochs: self.max_steps.unwrap_or(UNLIMITED), steps_per_epoch: 1 },
        }
    }

    /// The epochs before the learning rate begins to fall, where a training of another length is
    /// the same up to there: see [`Schedule::stable_epochs`](super::Schedule::stable_epochs).
    pub fn stable_epochs(&self) -> Option<u64> {
        Some(self.schedule.stable_epochs(self.horizon()?)).filter(|epochs| *epochs > 0)
    }

    /// Optimizer steps of an epoch with so many training images.
    pub fn steps_per_epoch(&self, images: usize) -> u64 {
        batches_per_epoch(Split::Train, images, self.batch_size)
            .div_ceil(self.accumulate_grad_batches) as u64
    }

    /// The same for a part of a run that is done once more elsewhere, up to an epoch that the run has
    /// reached: nothing ends it before, and nothing is drawn or saved on the way. No step of it
    /// becomes another one.
    pub fn aside(&self) -> Self {
        let checkpoint =
            CheckpointPolicy { save_every_n_epochs: UNLIMITED, ..self.checkpoint.aside() };
        // Where the schedule's length is found on the way, no setting says it.
        let epochs = if self.places_decay() { UNLIMITED } else { self.epochs };
        Self {
            epochs,
            early_stopping: None,
            max_time: None,
            budget: None,
            until: None,
            sample_every_n_epochs: None,
            sample_every_n_steps: None,
            validate_every_n_steps: None,
            checkpoint,
            ..self.clone()
        }
    }

    /// What decides the result of the checkpoint that it begins with.
    pub(super) fn begins_with(&self) -> Vec<(String, Value)> {
        self.init.iter().flat_map(InitSettings::decides).collect()
    }
}

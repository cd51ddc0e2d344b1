//! What is wrong with the settings of a training by itself.

use pipe_engine::kind::Rejection;
use pipe_trainer::UNLIMITED;

use super::ema_settings::EmaSettings;
use super::power_ema::LENGTHS;
use super::schedule::ScheduleKind;
use super::settings::{SHARE, TrainingSettings, is_share};
use crate::device::DeviceSpec;

impl TrainingSettings {
    /// Refuses values that cannot work, naming the key.
    pub fn validate(&self) -> Result<(), Rejection> {
        let [beta1, beta2] = self.optimizer.betas;
        let is_limited =
            self.epochs != UNLIMITED || self.max_steps.is_some() || self.limits().is_set();
        Rejection::unless("epochs", self.epochs >= 1 && is_limited, "at least 1")?;
        Rejection::unless("max_steps", self.max_steps != Some(0), "at least 1")?;
        Rejection::unless("batch_size", self.batch_size >= 1, "at least 1")?;
        Rejection::unless(
            "accumulate_grad_batches",
            self.accumulate_grad_batches >= 1,
            "at least 1",
        )?;
        Rejection::unless("log_every_n_steps", self.log_every_n_steps >= 1, "at least 1")?;
        Rejection::unless("num_workers", self.num_workers <= 256, "at most 256")?;
        Rejection::unless(
            "learning_rate",
            self.learning_rate > 0.0 && self.learning_rate.is_finite(),
            "a number above 0",
        )?;
        Rejection::unless(
            "sample_every_n_epochs",
            self.sample_every_n_epochs != Some(0),
            "at least 1, or null",
        )?;
        for (key, every) in [
            ("sample_every_n_steps", self.sample_every_n_steps),
            ("validate_every_n_steps", self.validate_every_n_steps),
        ] {
            Rejection::unless(key, every != Some(0), "at least 1, or null")?;
        }
        Rejection::unless("schedule_epochs", self.schedule_epochs != Some(0), "at least 1")?;
        let clip = self.gradient_clip_val;
        Rejection::unless(
            "gradient_clip_val",
            clip.is_none_or(|c| c > 0.0),
            "a number above 0, or null for no clipping",
        )?;
        Rejection::unless(
            "optimizer.betas",
            (0.0..1.0).contains(&beta1) && (0.0..1.0).contains(&beta2),
            "two numbers in 0..1",
        )?;
        Rejection::unless("optimizer.eps", self.optimizer.eps > 0.0, "a number above 0")?;
        Rejection::unless(
            "optimizer.weight_decay",
            self.optimizer.weight_decay >= 0.0,
            "0 or more",
        )?;
        self.validate_ema()?;
        self.validate_schedule()?;
        if let Some(init) = &self.init {
            init.validate(&self.checkpoint)?;
        }
        if let Some(devices) = &self.devices {
            // `auto`, as it is written down where nothing was asked for, leaves the word to the
            // list.
            if self.device != DeviceSpec::Auto {
                let text =
                    format!("`device: {}` is set too; leave one of the two out", self.device);
                return Err(Rejection::value("devices", text));
            }
            if let Some(twice) = devices.twice() {
                return Err(Rejection::value("devices", format!("`{twice}` is listed twice")));
            }
        }
        let has_time = self.max_time.is_none_or(|max| !max.0.is_zero());
        Rejection::unless("max_time", has_time, "a time above 0")?;
        self.validate_limits()?;
        if let Some(rule) = &self.early_stopping {
            rule.validate(&self.checkpoint)
                .map_err(|e| Rejection::value(format!("early_stopping.{}", e.key), e.message))?;
        }
        self.checkpoint
            .validate()
            .map_err(|e| Rejection::value(format!("checkpoint.{}", e.key), e.message))
    }

    /// Refuses `then` beside a length that is found on the way.
    pub(super) fn validate_then(&self, is_empty: bool) -> Result<(), Rejection> {
        let text =
            "no entries beside `budget` or `until`, with which the epochs are found on the way";
        Rejection::unless("then", is_empty || !self.limits().is_set(), text)
    }

    fn validate_limits(&self) -> Result<(), Rejection> {
        let has_time = self.budget.is_none_or(|budget| !budget.0.is_zero());
        Rejection::unless("budget", has_time, "a time above 0")?;
        let Some(key) = self.budget.map(|_| "budget").or(self.until.map(|_| "until")) else {
            return Ok(());
        };
        let kind = self.schedule.kind;
        if self.schedule.depends_on_horizon() && kind != ScheduleKind::ConstantThenDecay {
            let text = format!(
                "a {} schedule has to know its length at the first step; `constant_then_decay` falls in time, and \
                 `constant` ends where it is",
                kind.name()
            );
            return Err(Rejection::value(key, text));
        }
        if !self.places_decay() {
            return Ok(());
        }
        let also = [
            ("max_steps", self.max_steps.is_some()),
            ("schedule_epochs", self.schedule_epochs.is_some()),
        ];
        if let Some((other, _)) = also.into_iter().find(|(_, is_set)| *is_set) {
            let text = format!(
                "with `{key}` the schedule's length is found on the way; leave one of the two out"
            );
            return Err(Rejection::value(other, text));
        }
        let share = self.schedule.decay_share.unwrap_or_default();
        let text = format!(
            "at most 0.9 with `{key}`: how long an epoch takes is known behind the first one"
        );
        Rejection::unless("schedule.decay_share", share <= 0.9, &text)
    }

    fn validate_ema(&self) -> Result<(), Rejection> {
        let EmaSettings { decay, lengths, snapshot_every_n_epochs, .. } = &self.ema;
        Rejection::unless("ema.decay", is_share(*decay), SHARE)?;
        let (first, last) = (LENGTHS.start(), LENGTHS.end());
        let text = format!("shares of the training from {first} to {last}, such as [0.05, 0.1]");
        let are_good = lengths.iter().all(|length| LENGTHS.contains(length));
        Rejection::unless("ema.lengths", are_good, &text)?;
        let differ = lengths.iter().enumerate().all(|(at, one)| !lengths[..at].contains(one));
        Rejection::unless("ema.lengths", differ, "each length once")?;
        let every = *snapshot_every_n_epochs;
        Rejection::unless("ema.snapshot_every_n_epochs", every != Some(0), "at least 1")
    }

    fn validate_schedule(&self) -> Result<(), Rejection> {
        let floor = self.schedule.min_lr_ratio;
        Rejection::unless(
            "schedule.min_lr_ratio",
            is_share(floor),
            "a share of the learning rate between 0 and 1",
        )?;
        let (kind, reference) = (self.schedule.kind, self.schedule.reference_steps);
        Rejection::unless(
            "schedule.reference_steps",
            (kind != ScheduleKind::InverseSqrt || reference.is_some()) && reference != Some(0),
            "the step from which on `inverse_sqrt` lets the rate fall, at least 1; EDM2 has 35000 to 70000",
        )?;
        let decay = self.schedule.decay_share;
        Rejection::unless("schedule.decay_share", decay.is_none_or(is_share), SHARE)
    }
}

//! From the entries of `then` to the settings of periods: what each one changes, and what is wrong
//! with it.

use pipe_engine::kind::Rejection;
use serde_json::json;

use super::periods::{Period, Periods, ThenEntry};
use super::schedule::Schedule;
use super::settings::{LoraSettings, OptimizerSettings, SHARE, TrainSettings, is_share};
use super::then::{LoraEntry, ObjectiveChange, OptimizerChange, ScheduleChange, TrainEntry};
use crate::diffusion::Objective;
use crate::nn::Dropout;

impl TrainSettings {
    /// Refuses entries of `then` that cannot work, naming the key.
    pub fn validate_then(&self) -> Result<(), Rejection> {
        validate(&self.then, &Periods::all(self.first_period(), &json!(self), &self.then))
    }

    /// The periods of the training.
    pub fn periods(&self) -> Periods {
        Periods::new(self.first_period(), &json!(self), &self.then)
    }

    fn first_period(&self) -> Period {
        let dropout = Dropout { lora: 0.0, features: self.model.dropout };
        let label_dropout = self.model.label_dropout;
        Period::first(self.training_settings(), label_dropout, dropout, Some(self.objective))
    }
}

impl LoraSettings {
    /// Refuses entries of `then` that cannot work, naming the key.
    pub fn validate_then(&self) -> Result<(), Rejection> {
        validate(&self.then, &Periods::all(self.first_period(), &json!(self), &self.then))
    }

    /// The periods of the training.
    pub fn periods(&self) -> Periods {
        Periods::new(self.first_period(), &json!(self), &self.then)
    }

    fn first_period(&self) -> Period {
        let dropout = Dropout { lora: self.lora.lora_dropout, features: 0.0 };
        Period::first(self.training_settings(), self.label_dropout, dropout, None)
    }
}

/// What all training has, changed by an entry.
macro_rules! change_training {
    ($entry:expr, $settings:expr) => {{
        let (entry, settings) = ($entry, &mut $settings);
        put(&mut settings.learning_rate, &entry.learning_rate);
        put(&mut settings.batch_size, &entry.batch_size);
        put(&mut settings.accumulate_grad_batches, &entry.accumulate_grad_batches);
        put(&mut settings.gradient_clip_val, &entry.gradient_clip_val);
        put(&mut settings.precision, &entry.precision);
        if let Some(new) = &entry.optimizer {
            new.change(&mut settings.optimizer);
        }
        if let Some(new) = &entry.schedule {
            new.change(&mut settings.schedule);
        }
        if let Some(new) = &entry.ema {
            put(&mut settings.ema.decay, &new.decay);
        }
    }};
}

impl ThenEntry for TrainEntry {
    fn from(&self) -> u64 {
        self.from
    }

    fn change(&self, period: &mut Period) {
        change_training!(self, period.settings);
        if let Some(new) = &self.model {
            put(&mut period.label_dropout, &new.label_dropout);
            put(&mut period.dropout.features, &new.dropout);
        }
        if let (Some(objective), Some(new)) = (&mut period.objective, &self.objective) {
            new.change(objective);
        }
    }
}

impl ThenEntry for LoraEntry {
    fn from(&self) -> u64 {
        self.from
    }

    fn change(&self, period: &mut Period) {
        change_training!(self, period.settings);
        put(&mut period.label_dropout, &self.label_dropout);
        put(&mut period.dropout.lora, &self.lora.as_ref().and_then(|new| new.lora_dropout));
    }
}

impl OptimizerChange {
    fn change(&self, optimizer: &mut OptimizerSettings) {
        put(&mut optimizer.betas, &self.betas);
        put(&mut optimizer.eps, &self.eps);
        put(&mut optimizer.weight_decay, &self.weight_decay);
    }
}

impl ScheduleChange {
    fn change(&self, schedule: &mut Schedule) {
        put(&mut schedule.kind, &self.kind);
        put(&mut schedule.warmup_steps, &self.warmup_steps);
        put(&mut schedule.min_lr_ratio, &self.min_lr_ratio);
        put(&mut schedule.reference_steps, &self.reference_steps.map(Some));
        put(&mut schedule.decay_share, &self.decay_share.map(Some));
    }
}

impl ObjectiveChange {
    fn change(&self, objective: &mut Objective) {
        put(&mut objective.times, &self.times.map(Some));
        put(&mut objective.p_mean, &self.p_mean.map(Some));
        put(&mut objective.p_std, &self.p_std.map(Some));
        put(&mut objective.min_snr_gamma, &self.min_snr_gamma.map(Some));
    }
}

fn put<T: Clone>(target: &mut T, new: &Option<T>) {
    if let Some(new) = new {
        target.clone_from(new);
    }
}

/// Refuses entries that are not in order, and those whose settings cannot work. `periods`: the
/// first one and that of each entry.
fn validate<E: ThenEntry>(then: &[E], periods: &[Period]) -> Result<(), Rejection> {
    for (number, entry) in then.iter().enumerate() {
        let at = |key: &str| format!("then.{number}.{key}");
        let before = number.checked_sub(1).and_then(|before| then.get(before)).map(ThenEntry::from);
        Rejection::unless(at("from"), entry.from() >= 1, "an epoch, 1 at least")?;
        if let Some(before) = before.filter(|before| *before >= entry.from()) {
            let text = format!("expected an epoch after {before}: entries stand in their order");
            return Err(Rejection::value(at("from"), text));
        }
        let settings = serde_json::to_value(entry).unwrap_or_default();
        if settings.as_object().is_none_or(|settings| settings.len() < 2) {
            let text = "it changes nothing: expected a setting beside `from`, such as `learning_rate: 1e-4`";
            return Err(Rejection::value(format!("then.{number}"), text));
        }
        let Some(period) = periods.get(number + 1) else { continue };
        let inside = |rejection: Rejection| match rejection {
            Rejection::Value { key, message } => Rejection::Value { key: at(&key), message },
            Rejection::Unused { key, message } => Rejection::Unused { key: at(&key), message },
            form => form,
        };
        period.settings.validate().map_err(inside)?;
        Rejection::unless(
            at(if period.objective.is_some() { "model.label_dropout" } else { "label_dropout" }),
            is_share(period.label_dropout),
            SHARE,
        )?;
        for (key, share) in
            [("model.dropout", period.dropout.features), ("lora.lora_dropout", period.dropout.lora)]
        {
            Rejection::unless(at(key), (0.0..1.0).contains(&share), "a share from 0 to below 1")?;
        }
        if let Some(Err(wrong)) = period.objective.map(|objective| objective.validate()) {
            return Err(Rejection::value(at(&format!("objective.{}", wrong.key)), wrong.message));
        }
    }
    Ok(())
}

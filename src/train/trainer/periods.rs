//! The periods of a training: the epochs between two entries of `then`, with the settings that they
//! have. Pure. A training without `then` is one period.
//!
//! A period's schedule counts steps as if all epochs had been of its own batch size, so that it
//! depends on the place alone: how the training came there changes no bit.

use std::collections::BTreeMap;

use pipe_core::progress::Event;
use pipe_engine::identity::{Difference, in_words};
use pipe_trainer::{HORIZON, IN_TIME, UNLIMITED, later_key};
use serde::Serialize;
use serde_json::{Value, json};

use super::schedule::ScheduleKind;
use super::settings::TrainingSettings;
use crate::diffusion::Objective;
use crate::nn::Dropout;

/// Key of a manifest: what a schedule spans where that is `max_steps`.
pub const HORIZON_STEPS: &str = "schedule horizon in steps";

/// Epochs of a training with the same settings.
#[derive(Debug, Clone)]
pub struct Period {
    /// Completed epochs before it.
    pub after: u64,
    pub settings: TrainingSettings,
    /// Share of images that are trained without their label.
    pub label_dropout: f64,
    /// Shares of what is dropped inside the network.
    pub dropout: Dropout,
    /// What the network is asked to learn; `None` where that is its base model's.
    pub objective: Option<Objective>,
    /// Settings that are others than in the period before, by key.
    pub changed: Vec<Difference>,
    /// What headers of its checkpoints say that those of other periods do not.
    pub extra: BTreeMap<String, String>,
}

/// An entry of `then`.
pub trait ThenEntry: Serialize {
    /// The epoch that is the last one without it.
    fn from(&self) -> u64;

    /// Makes the settings of the period before those of its own.
    fn change(&self, period: &mut Period);
}

/// The periods of a training, in their order.
#[derive(Debug, Clone)]
pub struct Periods(Vec<Period>);

impl Period {
    /// The period of a training that has `settings` from its first epoch on.
    pub fn first(
        settings: TrainingSettings,
        label_dropout: f64,
        dropout: Dropout,
        objective: Option<Objective>,
    ) -> Self {
        let (changed, extra) = (Vec::new(), BTreeMap::new());
        Self { after: 0, settings, label_dropout, dropout, objective, changed, extra }
    }

    /// What is told where it begins: what is others than before.
    pub(super) fn begins(&self) -> Option<Event> {
        let text = format!("From epoch {} on: {}", self.after + 1, in_words(&self.changed));
        (!self.changed.is_empty()).then_some(Event::Message { text })
    }
}

impl Periods {
    /// Those of a training with `then`. `settings`: all of its stage, as they are recorded. An entry
    /// that the training never comes to makes none.
    pub fn new<E: ThenEntry>(first: Period, settings: &Value, then: &[E]) -> Self {
        let epochs = first.settings.epochs;
        let mut periods = Self::all(first, settings, then);
        periods.retain(|period| period.after == 0 || period.after < epochs);
        let kept = periods.iter().map(|period| period.after).filter(|after| *after > 0);
        let kept: Vec<u64> = kept.collect();
        for period in &mut periods {
            period.settings.checkpoint.keep_epochs.extend(&kept);
        }
        Self(periods)
    }

    /// One for each entry besides the first, whether the training comes to it or not.
    pub(super) fn all<E: ThenEntry>(first: Period, settings: &Value, then: &[E]) -> Vec<Period> {
        let mut valid = leaves(settings);
        let mut periods = vec![first];
        for entry in then {
            let Some(mut period) = periods.last().cloned() else { break };
            entry.change(&mut period);
            period.after = entry.from();
            let mut given = leaves(&serde_json::to_value(entry).unwrap_or_default());
            given.remove("from");
            let changes = given.into_iter().filter_map(|(key, new)| {
                let old = valid.insert(key.clone(), new.clone());
                (old.as_ref() != Some(&new)).then_some(Difference { key, old, new: Some(new) })
            });
            period.changed = changes.collect();
            periods.push(period);
        }
        periods
    }

    /// The period that a training begins with.
    pub fn first(&self) -> &Period {
        &self.0[0]
    }

    /// In their order.
    pub fn iter(&self) -> impl Iterator<Item = &Period> {
        self.0.iter()
    }

    /// The same, each changed by itself.
    pub fn map(&self, change: impl FnMut(&Period) -> Period) -> Self {
        Self(self.0.iter().map(change).collect())
    }

    /// The period of the epoch that follows so many completed ones.
    pub fn at(&self, epochs: u64) -> &Period {
        self.0.iter().rfind(|period| period.after <= epochs).unwrap_or(self.first())
    }

    /// Each period with the epoch that it ends with.
    fn spans(&self) -> impl Iterator<Item = (&Period, u64)> {
        let ends = self.0.iter().skip(1).map(|next| next.after).chain([UNLIMITED]);
        self.0.iter().zip(ends)
    }

    /// Optimizer steps of so many epochs with so many training images.
    pub fn steps(&self, epochs: u64, images: usize) -> u64 {
        let of = |(period, end): (&Period, u64)| {
            let length = epochs.min(end).saturating_sub(period.after);
            length.saturating_mul(period.settings.steps_per_epoch(images))
        };
        self.spans().map(of).fold(0, u64::saturating_add)
    }

    /// Epochs in all on so many training images, the last one in part where `max_steps` ends inside
    /// it.
    pub fn epochs_on(&self, images: usize) -> u64 {
        let settings = &self.first().settings;
        let Some(max) = settings.max_steps else { return settings.epochs };
        let mut left = max;
        for (period, end) in self.spans() {
            let steps = period.settings.steps_per_epoch(images).max(1);
            let by_steps = period.after.saturating_add(left.div_ceil(steps));
            if by_steps <= end {
                return by_steps.min(settings.epochs);
            }
            left -= (end - period.after).saturating_mul(steps).min(left);
        }
        settings.epochs
    }

    /// Steps that were done in so many epochs besides those that they have with the period's batch
    /// size that follows: see [`TrainingContext`](super::TrainingContext).
    pub fn other_steps(&self, epochs: u64, images: usize) -> i64 {
        let period = self.at(epochs);
        let own = period.after.saturating_mul(period.settings.steps_per_epoch(images));
        self.steps(period.after, images) as i64 - own as i64
    }

    /// What decides the result besides the settings: what changes on the way, the schedule's
    /// horizon where a schedule has one, and what is taken of the checkpoint that it begins with.
    pub fn derived(&self) -> BTreeMap<String, Value> {
        let settings = &self.first().settings;
        let later = self.0.iter().flat_map(|period| {
            let at = |change: &Difference| {
                let value = change.new.clone().unwrap_or_default();
                (later_key(&change.key, period.after), value)
            };
            period.changed.iter().map(at)
        });
        let spans = self.0.iter().find(|period| period.settings.schedule.depends_on_horizon());
        let horizon = spans.map(|period| {
            let (key, value) = match settings.horizon() {
                Some(epochs) => (HORIZON, json!(epochs)),
                None if settings.places_decay() => (HORIZON, json!(IN_TIME)),
                None => (HORIZON_STEPS, json!(settings.max_steps)),
            };
            (later_key(key, period.after), value)
        });
        settings.begins_with().into_iter().chain(later).chain(horizon).collect()
    }

    /// The epochs in which the rates are the same as in a training whose schedule spans `other`
    /// epochs, and which is like this one in all else.
    pub fn same_rates(&self, other: u64) -> Option<u64> {
        let own = self.first().settings.horizon()?;
        for (period, end) in self.spans() {
            let schedule = &period.settings.schedule;
            let same = match schedule.kind {
                _ if !schedule.depends_on_horizon() => continue,
                ScheduleKind::ConstantThenDecay => {
                    schedule.stable_epochs(own).min(schedule.stable_epochs(other))
                }
                _ => 0,
            };
            if same < end {
                return Some(same.max(period.after));
            }
        }
        None
    }
}

/// Settings by dotted key; a list is a value.
fn leaves(settings: &Value) -> BTreeMap<String, Value> {
    fn walk(value: &Value, key: &str, found: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(name, value)| {
                let dot = if key.is_empty() { "" } else { "." };
                walk(value, &format!("{key}{dot}{name}"), found);
            }),
            value => {
                found.insert(key.to_owned(), value.clone());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(settings, "", &mut found);
    found
}

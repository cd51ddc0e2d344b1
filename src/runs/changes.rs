//! Settings that were changed inside a run: what its metadata notes of them. Pure.
//!
//! A run with a noted change equals no training from its first epoch on, so that nobody goes on with
//! it, or takes it as up to date, who does not name it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How far a training was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Completed epochs.
    pub epoch: u64,
    /// Steps done of the next one.
    pub step_in_epoch: u64,
}

/// Settings that were changed at one place of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangeRecord {
    /// The first epoch, or part of one, with the new settings.
    pub from_epoch: u64,
    /// Steps of that epoch that were done with the old ones.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub step_in_epoch: u64,
    pub at: DateTime<Utc>,
    /// By key, the old and the new value; null for none.
    pub settings: BTreeMap<String, [Value; 2]>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl ChangeRecord {
    /// Where it was made.
    pub fn place(&self) -> Place {
        let Self { from_epoch, step_in_epoch, .. } = *self;
        Place { epoch: from_epoch.saturating_sub(1), step_in_epoch }
    }

    /// As people are told: `from epoch 4: learning_rate 0.001 -> 1e-5`.
    pub fn in_words(&self) -> String {
        let shown = |value: &Value| match value {
            Value::Null => "unset".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let settings: Vec<String> = self
            .settings
            .iter()
            .map(|(key, [old, new])| format!("{key} {} -> {}", shown(old), shown(new)))
            .collect();
        let step = match self.step_in_epoch {
            0 => String::new(),
            step => format!(", step {}", step + 1),
        };
        format!("from epoch {}{step}: {}", self.from_epoch, settings.join(", "))
    }
}

/// Adds a change at a place.
pub fn note(
    changes: &mut Vec<ChangeRecord>,
    place: Place,
    settings: BTreeMap<String, [Value; 2]>,
    at: DateTime<Utc>,
) {
    let Place { epoch, step_in_epoch } = place;
    changes.push(ChangeRecord { from_epoch: epoch + 1, step_in_epoch, at, settings });
    settle(changes, place);
}

/// Makes the changes true of a training that goes on at a place: nothing of what was trained behind
/// it counts, so that a later change begins there. Changes at one place are one, and one that
/// changes nothing in the end is none.
pub fn settle(changes: &mut Vec<ChangeRecord>, place: Place) {
    let mut settled: Vec<ChangeRecord> = Vec::new();
    for mut change in std::mem::take(changes) {
        if change.place() > place {
            (change.from_epoch, change.step_in_epoch) = (place.epoch + 1, place.step_in_epoch);
        }
        match settled.last_mut() {
            Some(last) if last.place() == change.place() => {
                for (key, [old, new]) in change.settings {
                    let first = last.settings.get(&key).map(|[first, _]| first.clone());
                    last.settings.insert(key, [first.unwrap_or(old), new]);
                }
                last.settings.retain(|_, [old, new]| old != new);
                last.at = change.at;
            }
            _ => settled.push(change),
        }
        settled.retain(|change| !change.settings.is_empty());
    }
    *changes = settled;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rate(old: f64, new: f64) -> BTreeMap<String, [Value; 2]> {
        BTreeMap::from([("rate".to_owned(), [json!(old), json!(new)])])
    }

    fn at(epoch: u64, step_in_epoch: u64) -> Place {
        Place { epoch, step_in_epoch }
    }

    fn noted(list: &[(Place, f64, f64)]) -> Vec<ChangeRecord> {
        let mut changes = Vec::new();
        for (place, old, new) in list {
            note(&mut changes, *place, rate(*old, *new), Utc::now());
        }
        changes
    }

    fn words(changes: &[ChangeRecord]) -> Vec<String> {
        changes.iter().map(ChangeRecord::in_words).collect()
    }

    #[test]
    fn changes_at_one_place_are_one_and_back_again_is_none() {
        let two = noted(&[(at(2, 0), 1.0, 2.0), (at(3, 5), 2.0, 3.0)]);
        assert_eq!(
            words(&two),
            ["from epoch 3: rate 1.0 -> 2.0", "from epoch 4, step 6: rate 2.0 -> 3.0"]
        );
        let one = noted(&[(at(2, 0), 1.0, 2.0), (at(2, 0), 2.0, 3.0)]);
        assert_eq!(words(&one), ["from epoch 3: rate 1.0 -> 3.0"]);
        assert!(noted(&[(at(2, 0), 1.0, 2.0), (at(2, 0), 2.0, 1.0)]).is_empty());
    }

    #[test]
    fn what_is_trained_again_was_not_changed_before() {
        let mut changes = noted(&[(at(1, 0), 1.0, 2.0), (at(5, 0), 2.0, 3.0)]);
        settle(&mut changes, at(7, 0));
        assert_eq!(changes.len(), 2, "it goes on behind both");
        settle(&mut changes, at(3, 2));
        assert_eq!(
            words(&changes),
            ["from epoch 2: rate 1.0 -> 2.0", "from epoch 4, step 3: rate 2.0 -> 3.0"]
        );
        settle(&mut changes, at(1, 0));
        assert_eq!(words(&changes), ["from epoch 2: rate 1.0 -> 3.0"]);
    }

    #[test]
    fn values_at_every_place_are_those_that_were_trained_with() {
        // Drawn trainings: each step changes the value, trains on, or is thrown back.
        for seed in 0..500u64 {
            let (mut state, mut changes) =
                (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, Vec::new());
            let mut draw = |n: u64| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state % n
            };
            // The value that each epoch was trained with.
            let (mut value, mut trained): (u64, Vec<u64>) = (0, Vec::new());
            for _ in 0..12 {
                let place = at(trained.len() as u64, 0);
                match draw(3) {
                    0 => {
                        let new = draw(3);
                        if new != value {
                            let change =
                                BTreeMap::from([("x".to_owned(), [json!(value), json!(new)])]);
                            note(&mut changes, place, change, Utc::now());
                        }
                        value = new;
                    }
                    1 => trained.push(value),
                    _ => {
                        trained.truncate(draw(trained.len() as u64 + 1) as usize);
                        settle(&mut changes, at(trained.len() as u64, 0));
                    }
                }
            }
            let mut now = json!(0);
            for (epoch, with) in trained.iter().chain([&value]).enumerate() {
                for change in changes.iter().filter(|c| c.from_epoch == epoch as u64 + 1) {
                    let [old, new] = &change.settings["x"];
                    assert_eq!(*old, now, "seed {seed}");
                    now = new.clone();
                }
                assert_eq!(now, json!(with), "seed {seed}, epoch {}: {changes:?}", epoch + 1);
            }
        }
    }
}

//! Early stopping: a training that gets no better ends. Pure: the metrics of its epochs in, the
//! decision out.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::metric::is_better_when_higher;
use super::{CheckpointPolicy, InvalidPolicy, Mode};

/// Ends a training that gets no better. That is a success, and extends: with more `patience` it
/// goes on from where it stood.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EarlyStopping {
    /// The metric that is to get better: any that the training reports of each epoch;
    /// `checkpoint.monitor` if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"val_loss")]
    pub monitor: Option<String>,
    /// Whether a lower or a higher value is better. If unset it is `checkpoint.mode` for the metric
    /// of `checkpoint.monitor`, and `min` for another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Epochs without a gain after which the training ends.
    #[schemars(range(min = 1))]
    #[schemars(extend("x-known-as" = ["early_stopping_patience"]))]
    pub patience: u64,
    /// A value must be better than the best one by more than this to be a gain.
    #[schemars(range(min = 0))]
    #[schemars(extend("x-known-as" = ["early_stopping_threshold"]))]
    pub min_delta: f64,
}

impl Default for EarlyStopping {
    fn default() -> Self {
        Self { monitor: None, mode: None, patience: 3, min_delta: 0.0 }
    }
}

impl EarlyStopping {
    /// Checks that the settings mean something together.
    ///
    /// # Errors
    /// The first setting found that does not.
    pub fn validate(&self, policy: &CheckpointPolicy) -> Result<(), InvalidPolicy> {
        let refuse = |key, message: String| Err(InvalidPolicy { key, message });
        if self.patience == 0 {
            return refuse("patience", "expected at least 1 epoch".to_owned());
        }
        if !(self.min_delta >= 0.0 && self.min_delta.is_finite()) {
            let text = "expected 0 or more: `mode` says whether lower or higher is better";
            return refuse("min_delta", text.to_owned());
        }
        let Some(monitor) = &self.monitor else { return Ok(()) };
        if monitor.trim().is_empty() {
            let text = "expected the name of a metric, such as `val_loss`";
            return refuse("monitor", text.to_owned());
        }
        if self.mode.is_none() && *monitor != policy.monitor && is_better_when_higher(monitor) {
            let text =
                format!("say whether a higher {monitor} is better, `max`, or a lower: `min`");
            return refuse("mode", text);
        }
        Ok(())
    }

    /// The same with `monitor` and `mode` filled in.
    pub fn resolved(&self, policy: &CheckpointPolicy) -> Self {
        let monitor = self.monitor.clone().unwrap_or_else(|| policy.monitor.clone());
        let of_policy = if monitor == policy.monitor { policy.mode } else { Mode::Min };
        Self { mode: Some(self.mode.unwrap_or(of_policy)), monitor: Some(monitor), ..self.clone() }
    }

    /// The epoch that a training ends with, if it is among those that were trained. `history`: the
    /// metrics of all its epochs, in their order.
    ///
    /// What comes behind that epoch changes nothing: a training that went on from it, since it was
    /// more patient then, would have ended there all the same.
    pub fn last_epoch<'a>(
        &self,
        history: impl IntoIterator<Item = (u64, &'a BTreeMap<String, f64>)>,
    ) -> Option<u64> {
        let (monitor, mode) = (self.monitor.as_deref()?, self.mode?);
        let (mut best, mut without_gain) = (None, 0);
        for (epoch, metrics) in history {
            let score = metrics.get(monitor).filter(|v| v.is_finite()).map(|v| mode.score(*v));
            match (score, best) {
                (Some(score), None) => (best, without_gain) = (Some(score), 0),
                (Some(score), Some(before)) if score > before + self.min_delta => {
                    (best, without_gain) = (Some(score), 0);
                }
                _ => without_gain += 1,
            }
            if without_gain >= self.patience {
                return Some(epoch);
            }
        }
        None
    }

    /// Why a training ended so, for people.
    pub fn reason(&self) -> String {
        let epochs = if self.patience == 1 { "epoch" } else { "epochs" };
        let monitor = self.monitor.as_deref().unwrap_or_default();
        format!("no gain in {} {epochs} of {monitor}", self.patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(values: &[f64]) -> Vec<(u64, BTreeMap<String, f64>)> {
        let metrics = |value: &f64| BTreeMap::from([("val_loss".to_owned(), *value)]);
        (1..).zip(values.iter().map(metrics)).collect()
    }

    fn ends(rule: &EarlyStopping, values: &[f64]) -> Option<u64> {
        rule.last_epoch(history(values).iter().map(|(epoch, metrics)| (*epoch, metrics)))
    }

    fn rule(patience: u64, min_delta: f64) -> EarlyStopping {
        let monitor = Some("val_loss".to_owned());
        let rule = EarlyStopping { monitor, mode: None, patience, min_delta };
        rule.resolved(&CheckpointPolicy::default())
    }

    #[test]
    fn epochs_without_a_gain_are_counted_from_the_last_gain() {
        assert_eq!(ends(&rule(2, 0.0), &[3.0, 2.0, 2.0, 2.5]), Some(4));
        assert_eq!(ends(&rule(2, 0.0), &[3.0, 2.0, 2.0, 1.9, 2.0]), None);
        assert_eq!(ends(&rule(1, 0.0), &[3.0, 3.0]), Some(2), "an equal value is no gain");
        assert_eq!(ends(&rule(2, 0.5), &[3.0, 2.6, 2.4, 2.0]), None, "2.4 is a gain");
        assert_eq!(ends(&rule(2, 0.5), &[3.0, 2.6, 2.4, 2.0, 1.9]), Some(5), "1.9 is none");
        assert_eq!(ends(&rule(2, 0.0), &[f64::NAN, f64::NAN, 1.0]), Some(2));
        assert_eq!(ends(&rule(2, 0.0), &[1.0, f64::NAN, 0.5]), None);
        let higher = EarlyStopping { mode: Some(Mode::Max), ..rule(2, 0.0) };
        assert_eq!(ends(&higher, &[1.0, 2.0, 1.0, 2.0]), Some(4));
    }

    #[test]
    fn monitor_and_mode_are_those_of_the_policy_unless_said() {
        let policy = CheckpointPolicy {
            monitor: "accuracy".into(),
            mode: Mode::Max,
            ..CheckpointPolicy::default()
        };
        let resolved = |monitor: Option<&str>, mode| {
            let monitor = monitor.map(str::to_owned);
            let rule = EarlyStopping { monitor, mode, ..EarlyStopping::default() };
            let resolved = rule.resolved(&policy);
            (resolved.monitor.unwrap(), resolved.mode.unwrap())
        };
        assert_eq!(resolved(None, None), ("accuracy".to_owned(), Mode::Max));
        assert_eq!(resolved(Some("accuracy"), None), ("accuracy".to_owned(), Mode::Max));
        assert_eq!(resolved(Some("loss"), None), ("loss".to_owned(), Mode::Min));
        assert_eq!(resolved(Some("f1"), Some(Mode::Max)), ("f1".to_owned(), Mode::Max));
    }

    #[test]
    fn values_that_cannot_work_are_refused() {
        let refused = |rule: EarlyStopping| {
            rule.validate(&CheckpointPolicy::default()).map_err(|e| e.key).unwrap_err()
        };
        assert_eq!(refused(rule(0, 0.0)), "patience");
        assert_eq!(refused(rule(1, -0.1)), "min_delta");
        assert_eq!(refused(rule(1, f64::NAN)), "min_delta");
        let named = |name: &str| EarlyStopping {
            monitor: Some(name.to_owned()),
            ..EarlyStopping::default()
        };
        assert_eq!(refused(named(" ")), "monitor");
        assert_eq!(refused(named("val_accuracy")), "mode");
        assert_eq!(named("val_loss").validate(&CheckpointPolicy::default()), Ok(()));
    }
}

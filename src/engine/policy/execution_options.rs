//! How a stage is carried out, whatever its kind: retries, time limit, what a failure means for the
//! others. Nothing of it is part of a stage's identity. Pure: failures in, the next step out.

use std::time::Duration;

use figment::Figment;
use pipe_core::failure::Failure;
pub use pipe_core::failure::RetryChange;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Halving, Hooks, Slurm, Span};
use crate::rejection::Rejection;

/// Keys of every stage that say how it is carried out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExecutionOptions {
    /// What happens after a failure that may not come again.
    pub retry: Retry,
    /// Longest time for one attempt, such as `90s`, `30m` or `2h 30m`. A training saves a
    /// checkpoint first.
    pub timeout: Option<Span>,
    /// What a failure of this stage means for stages that do not depend on it.
    pub on_failure: OnFailure,
    /// Whether a begun stage is gone on with.
    pub resume: Resume,
    /// What the stage takes while it runs.
    pub resources: Resources,
    /// What its job asks of Slurm, with `--executor slurm`.
    pub slurm: Slurm,
    /// Carries the stages of a `matrix` on together, rung by rung, and lets the better part of them
    /// go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub halving: Option<Halving>,
    /// Commands and addresses that are told what happens to the stage, besides those of the
    /// pipeline.
    #[serde(skip_serializing_if = "Hooks::is_empty")]
    pub on: Hooks,
}

impl ExecutionOptions {
    /// Reads merged settings, and checks what their types cannot.
    pub(crate) fn read(settings: &Figment) -> Result<Self, Rejection> {
        let options: Self = settings.extract()?;
        options.halving.as_ref().map_or(Ok(()), Halving::check)?;
        Ok(options)
    }
}

/// Further attempts after a failure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// Attempts after the first one.
    pub max: u32,
    /// Wait before the second attempt, such as `10s`; doubled before each further one, an hour at
    /// most.
    #[schemars(example = &"10s")]
    pub backoff: Span,
    /// The failures that are worth another attempt.
    pub on: Vec<Retryable>,
}

impl Default for Retry {
    fn default() -> Self {
        use Retryable::*;
        let on = vec![Command, Input, Storage, OutOfMemory, DeviceLost, Timeout];
        Self { max: 0, backoff: Span(Duration::ZERO), on }
    }
}

/// A failure that another attempt may not meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Retryable {
    /// A `command` stage's program failed.
    Command,
    /// Data or files that the stage reads.
    Input,
    /// Files that the stage writes.
    Storage,
    /// The device's memory did not suffice even for the smallest micro-batch.
    OutOfMemory,
    /// The device went away, and another one too.
    DeviceLost,
    /// The time limit was reached.
    Timeout,
}

/// What a failure means for stages that do not depend on the failed one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// No further stage begins.
    #[default]
    Stop,
    /// They run.
    Continue,
}

/// Whether a stage that was begun is gone on with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Resume {
    /// If it can be.
    #[default]
    Auto,
    /// Begun again from the start, as a new run.
    Never,
    /// It is an error if there is nothing to go on with.
    Must,
}

/// What a stage takes while it runs, where several run at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// GPUs. Stages with GPUs of their own run side by side; `device: auto` takes the assigned one.
    #[schemars(range(max = 1))]
    pub gpu: u32,
}

/// The attempt after a failed one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryDecision {
    pub wait: Duration,
    pub change: RetryChange,
}

/// What one attempt differs in from a first one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Adjustment {
    /// Each batch goes through the network in `2^micro_batch_splits` micro-batches.
    pub micro_batch_splits: u32,
    /// Devices that were lost so far, in the order of preference.
    pub lost_devices: u32,
}

impl Adjustment {
    pub fn with(self, change: RetryChange) -> Self {
        match change {
            RetryChange::Nothing => self,
            RetryChange::SmallerMicroBatch => {
                Self { micro_batch_splits: self.micro_batch_splits + 1, ..self }
            }
            RetryChange::OtherDevice => Self { lost_devices: self.lost_devices + 1, ..self },
        }
    }
}

/// A batch is not cut into more than 2^8 micro-batches.
const MOST_MICRO_BATCH_SPLITS: usize = 8;
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

impl Retry {
    /// What follows on the failures of a stage so far, the last one being the newest; `None` to
    /// give up.
    ///
    /// Out of memory and a lost device are met by a change of the conditions, without any policy.
    pub fn next(&self, failures: &[Failure]) -> Option<RetryDecision> {
        let last = *failures.last()?;
        let of_its_kind = failures.iter().filter(|f| **f == last).count();
        let changed = |change| Some(RetryDecision { wait: Duration::ZERO, change });
        let kind = match last {
            Failure::Setting | Failure::NotFinite | Failure::Interrupted(_) | Failure::Bug => {
                return None;
            }
            Failure::OutOfMemory if of_its_kind <= MOST_MICRO_BATCH_SPLITS => {
                return changed(RetryChange::SmallerMicroBatch);
            }
            Failure::DeviceLost if of_its_kind == 1 => return changed(RetryChange::OtherDevice),
            Failure::OutOfMemory => Retryable::OutOfMemory,
            Failure::DeviceLost => Retryable::DeviceLost,
            Failure::Command => Retryable::Command,
            Failure::Input => Retryable::Input,
            Failure::Storage => Retryable::Storage,
            Failure::Timeout => Retryable::Timeout,
        };
        // What was met by a change of the conditions is not counted.
        let count = |kind: Failure| failures.iter().filter(|f| **f == kind).count();
        let changes = count(Failure::OutOfMemory).min(MOST_MICRO_BATCH_SPLITS)
            + count(Failure::DeviceLost).min(1);
        let retried = failures.len() - 1 - changes;
        if !self.on.contains(&kind) || retried >= self.max as usize {
            return None;
        }
        let doubled =
            self.backoff.0.checked_mul(1u32.checked_shl(retried as u32).unwrap_or(u32::MAX));
        Some(RetryDecision {
            wait: doubled.unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT),
            change: RetryChange::Nothing,
        })
    }
}

#[cfg(test)]
mod tests {
    use pipe_core::stop::Signal;

    use super::*;

    fn retry(text: &str) -> Retry {
        serde_yaml::from_str(text).unwrap()
    }

    fn after(retry: &Retry, failures: &[Failure]) -> Option<(u64, RetryChange)> {
        retry.next(failures).map(|again| (again.wait.as_secs(), again.change))
    }

    #[test]
    fn without_a_policy_only_a_change_of_conditions_is_tried() {
        let none = Retry::default();
        for failure in [
            Failure::Setting,
            Failure::Input,
            Failure::Storage,
            Failure::NotFinite,
            Failure::Command,
            Failure::Timeout,
            Failure::Bug,
            Failure::Interrupted(Signal::Terminate),
        ] {
            assert_eq!(after(&none, &[failure]), None, "{failure:?}");
        }
        let oom = [Failure::OutOfMemory; 9];
        assert_eq!(after(&none, &oom[..8]), Some((0, RetryChange::SmallerMicroBatch)));
        assert_eq!(after(&none, &oom), None);
        assert_eq!(after(&none, &[Failure::DeviceLost]), Some((0, RetryChange::OtherDevice)));
        assert_eq!(after(&none, &[Failure::DeviceLost; 2]), None);
    }

    #[test]
    fn a_policy_counts_waits_and_chooses() {
        let two = retry("{max: 2, backoff: 10s, on: [command, timeout]}");
        assert_eq!(after(&two, &[Failure::Command]), Some((10, RetryChange::Nothing)));
        assert_eq!(
            after(&two, &[Failure::Command, Failure::Timeout]),
            Some((20, RetryChange::Nothing))
        );
        assert_eq!(after(&two, &[Failure::Command; 3]), None);
        assert_eq!(after(&two, &[Failure::Input]), None, "not in its list");
        let many = retry("{max: 100, backoff: 30m}");
        assert_eq!(after(&many, &[Failure::Input; 60]), Some((3600, RetryChange::Nothing)));
        assert_eq!(after(&many, &[Failure::Setting]), None, "a bad setting stays bad");
        assert_eq!(after(&many, &[Failure::DeviceLost; 2]), Some((1800, RetryChange::Nothing)));
    }

    #[test]
    fn times_are_written_as_people_do() {
        assert_eq!(retry("backoff: 2h 30m").backoff.0.as_secs(), 9000);
        assert_eq!(serde_yaml::to_string(&retry("backoff: 90s").backoff).unwrap().trim(), "1m 30s");
        let wrong = serde_yaml::from_str::<Retry>("backoff: soon").unwrap_err().to_string();
        assert!(wrong.contains("expected a time such as"), "{wrong}");
    }
}

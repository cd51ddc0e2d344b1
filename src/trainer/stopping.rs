//! When a training ends before its last epoch. Pure: what its metadata say of the training in, the
//! decision out, so that a run in one piece, one in many and an extended one end alike.

use pipe_engine::kind::Diagnostic;
use pipe_runs::policy::{CheckpointPolicy, EarlyStopping};
use pipe_runs::{EpochRecord, Metadata};

/// What ends a training before its last epoch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StoppingRules {
    /// With its metric and mode filled in.
    early_stopping: Option<EarlyStopping>,
}

/// Why a training ended before its last epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// The setting that ended it.
    pub rule: &'static str,
    /// For people.
    pub reason: String,
}

/// How far a training is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Trained {
    /// Complete.
    pub epochs: u64,
}

impl StoppingRules {
    /// Those of a stage with this checkpoint policy.
    pub fn new(early_stopping: Option<&EarlyStopping>, policy: &CheckpointPolicy) -> Self {
        Self { early_stopping: early_stopping.map(|rule| rule.resolved(policy)) }
    }

    /// Why a training that is so far has come to its end, if it has. `history`: its epochs, in their
    /// order; those behind `trained` are passed over.
    pub fn ending(&self, history: &[EpochRecord], trained: Trained) -> Option<Ending> {
        let complete = || history.iter().take_while(|e| e.epoch <= trained.epochs);
        let stopped = self
            .early_stopping
            .as_ref()
            .filter(|rule| rule.last_epoch(complete().map(|e| (e.epoch, &e.metrics))).is_some());
        stopped.map(|rule| Ending { rule: "early_stopping", reason: rule.reason() })
    }

    /// The metric that early stopping goes by.
    pub fn monitor(&self) -> Option<&str> {
        self.early_stopping.as_ref()?.monitor.as_deref()
    }
}

/// Lints early stopping in a training of so many epochs.
pub fn lint_patience(rule: &EarlyStopping, epochs: u64) -> Option<Diagnostic> {
    // The first epoch is always a gain.
    let message = format!("of {epochs} epochs none can be saved: the patience is as long");
    let idle = rule.patience >= epochs;
    idle.then(|| Diagnostic::warning("early_stopping.patience", message))
}

/// Key of a run's metadata: why it was completed before its last epoch.
const FINISHED_EARLY: &str = "finished_early";
/// Key of a run's metadata: the setting by which it was.
const ENDED_BY: &str = "ended_by";

/// Why a run was completed before its last epoch, if it was.
pub fn finished_early(metadata: &Metadata) -> Option<&str> {
    let is_completed = metadata.status == pipe_runs::Status::Completed;
    metadata.other.get(FINISHED_EARLY).and_then(|why| why.as_str()).filter(|_| is_completed)
}

/// Whether it was a setting, and not its program's word, that completed a run before its last epoch.
pub(crate) fn is_ended_by_rule(metadata: &Metadata) -> bool {
    metadata.other.contains_key(ENDED_BY)
}

/// Notes that a program ends before its last epoch.
pub(crate) fn note_finished_early(metadata: &mut Metadata, why: &str) {
    forget_ending(metadata);
    metadata.other.insert(FINISHED_EARLY.to_owned(), why.into());
}

/// Notes why a run ends before its last epoch.
pub fn note_ending(metadata: &mut Metadata, ending: &Ending) {
    metadata.other.insert(FINISHED_EARLY.to_owned(), ending.reason.clone().into());
    metadata.other.insert(ENDED_BY.to_owned(), ending.rule.into());
}

/// A run goes on.
pub(crate) fn forget_ending(metadata: &mut Metadata) {
    metadata.other.remove(FINISHED_EARLY);
    metadata.other.remove(ENDED_BY);
}

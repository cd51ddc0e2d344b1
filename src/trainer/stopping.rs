//! When a training ends before its last epoch. Pure but for the clock of a deadline: what its
//! metadata say of the training in, the decision out, so that a run in one piece, one in many and an
//! extended one end alike.

use chrono::{DateTime, Local, Utc};
use pipe_engine::kind::Diagnostic;
use pipe_engine::policy::{Better, Halving, Span};
use pipe_runs::policy::{CheckpointPolicy, EarlyStopping, Mode, metric};
use pipe_runs::{DatasetRecord, EpochRecord, Metadata};

use crate::budget::TimeLimits;

/// How many epochs a training has.
#[derive(Clone, Copy)]
pub enum TotalEpochs<'a> {
    Fixed(u64),
    /// By what it is trained on: a number of steps is more epochs on fewer images.
    By(&'a dyn Fn(&DatasetRecord) -> u64),
}

impl TotalEpochs<'_> {
    pub(crate) fn on(self, dataset: &DatasetRecord) -> u64 {
        match self {
            Self::Fixed(epochs) => epochs,
            Self::By(count) => count(dataset),
        }
    }
}

/// The rule that ends a training when its time is up.
const MAX_TIME: &str = "max_time";

/// What ends a training before its last epoch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StoppingRules {
    /// With its metric and mode filled in.
    pub early_stopping: Option<EarlyStopping>,
    /// Optimizer steps in all.
    pub max_steps: Option<u64>,
    /// Time that is trained in all.
    pub max_time: Option<Span>,
    /// By when it is to have ended, with its schedule.
    pub limits: TimeLimits,
    /// The last epoch that is wanted of it for now: the rung of a halving, or the end of a part of a
    /// run that is done once more.
    pub last_epoch: Option<u64>,
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
    /// Over all epochs.
    pub steps: u64,
    /// Of training in all, whatever pieces it was done in.
    pub seconds: f64,
}

impl Trained {
    /// So many epochs of a history and steps in all, and some seconds of the next epoch.
    pub fn of(history: &[EpochRecord], epochs: u64, steps: u64, seconds_in_epoch: f64) -> Self {
        let complete = history.iter().take_while(|e| e.epoch <= epochs);
        let seconds = complete.map(|e| e.seconds).sum::<f64>() + seconds_in_epoch;
        Self { epochs, steps, seconds }
    }

    /// A run as its metadata have it; `epochs` of it stand.
    pub(crate) fn of_run(metadata: &Metadata, epochs: u64) -> Self {
        let inside = metadata.partial_checkpoint.as_ref().filter(|p| p.epoch == epochs);
        let (mut all, history) = (metadata.checkpoints.iter(), &metadata.history);
        let of_epoch = || Some(all.find(|c| c.epoch == epochs)?.global_step);
        let of_history = || Some(history.iter().find(|e| e.epoch == epochs)?.global_step);
        let steps = inside.map(|p| p.global_step).or_else(of_epoch).or_else(of_history);
        let seconds = inside.map_or(0.0, |p| p.seconds_in_epoch);
        Self::of(history, epochs, steps.unwrap_or(0), seconds)
    }
}

impl StoppingRules {
    /// Those of a stage's settings, with what `early_stopping` leaves to the checkpoint policy.
    pub fn of(
        early_stopping: Option<&EarlyStopping>,
        max_steps: Option<u64>,
        max_time: Option<Span>,
        policy: &CheckpointPolicy,
    ) -> Self {
        let early_stopping = early_stopping.map(|rule| rule.resolved(policy));
        Self { early_stopping, max_steps, max_time, ..Self::default() }
    }

    /// The same for a training that is to have ended in time.
    pub fn within(self, limits: TimeLimits) -> Self {
        Self { limits, ..self }
    }

    /// The same for a training that is carried so far for now.
    pub fn until(self, last_epoch: Option<u64>) -> Self {
        Self { last_epoch, ..self }
    }

    /// The same for a process that begins now. `walltime`: when its job is told to stop, if it is in
    /// one.
    pub fn begun(self, walltime: Option<DateTime<Utc>>) -> Self {
        let limits = self.limits.begun(Local::now(), walltime);
        Self { limits, ..self }
    }

    /// Those for a part of a run that is done once more, up to an epoch that the run has reached.
    pub(crate) fn aside(self, last_epoch: u64) -> Self {
        Self { max_steps: self.max_steps, last_epoch: Some(last_epoch), ..Self::default() }
    }

    /// Why a training that is so far has come to its end, if it has. `history`: its epochs, in their
    /// order; those behind `trained` are passed over.
    pub fn ending(&self, history: &[EpochRecord], trained: Trained) -> Option<Ending> {
        let complete = || history.iter().take_while(|e| e.epoch <= trained.epochs);
        let stopped = self
            .early_stopping
            .as_ref()
            .filter(|rule| rule.last_epoch(complete().map(|e| (e.epoch, &e.metrics))).is_some());
        let stopped = stopped.map(|rule| Ending { rule: "early_stopping", reason: rule.reason() });
        stopped.or_else(|| self.ending_inside(trained))
    }

    /// The same by what can end a training inside an epoch.
    pub fn ending_inside(&self, trained: Trained) -> Option<Ending> {
        if let Some(max) = self.max_steps.filter(|max| trained.steps >= *max) {
            return Some(Ending {
                rule: "max_steps",
                reason: format!("max_steps of {max} is reached"),
            });
        }
        if let Some(last) = self.last_epoch.filter(|last| trained.epochs >= *last) {
            return Some(Ending { rule: "epochs", reason: format!("epoch {last} is reached") });
        }
        self.time()
            .filter(|_| self.max_time.is_some_and(|max| trained.seconds >= max.0.as_secs_f64()))
            .or_else(|| self.limits.ending(trained))
    }

    /// What it is called that the time is up.
    fn time(&self) -> Option<Ending> {
        let reason = |max: Span| format!("max_time of {max} is up");
        self.max_time.map(|max| Ending { rule: MAX_TIME, reason: reason(max) })
    }

    /// Whether a run is one that the time ended which it is given now. Its program may have ended
    /// at an earlier state than the time it had would have allowed.
    pub(crate) fn is_timed_out(&self, run: &Metadata) -> bool {
        let noted = |key| run.other.get(key).and_then(|value| value.as_str());
        let is_same = |now: Ending| {
            noted(ENDED_BY) == Some(now.rule) && noted(FINISHED_EARLY) == Some(&*now.reason)
        };
        self.time().into_iter().chain(self.limits.endings()).any(is_same)
    }

    /// The metric that early stopping goes by.
    pub fn monitor(&self) -> Option<&str> {
        self.early_stopping.as_ref()?.monitor.as_deref()
    }
}

/// Lints the metric by which trainings are halved that tell metrics of their own.
pub fn lint_halving(halving: &Halving) -> Option<Diagnostic> {
    let name = &halving.monitor;
    let is_doubtful = halving.mode == Better::Min && metric::is_better_when_higher(name);
    let message = format!("those with the lowest {name} would go on");
    let found = Diagnostic::warning("halving.mode", message);
    is_doubtful.then(|| found.note("where higher is better: `mode: max`"))
}

/// A warning where the lowest value of a metric is to be chosen of which more is better.
pub fn lint_mode(key: &str, name: &str, mode: Mode) -> Option<Diagnostic> {
    let is_doubtful = mode == Mode::Min && metric::is_better_when_higher(name);
    let message = format!("the lowest {name} would be the best");
    is_doubtful
        .then(|| Diagnostic::warning(key, message).note("where higher is better: `mode: max`"))
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

//! What the engine knows of a stage: a trait. Real stages live in `pipe-train`, scripted ones in the tests.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use figment::Figment;
use serde_json::Value;

use crate::progress::{Event, Report};
use crate::stop::{Signal, Stop};

/// Name of a stage in a pipeline file: letters, digits, `_`, `-`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct StageId(String);

impl StageId {
    /// `None` when the name has a character that file names and messages cannot carry safely.
    pub fn new(name: &str) -> Option<Self> {
        let valid =
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        valid.then(|| Self(name.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StageId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A kind of stage, such as `dataset` or `train`.
pub trait StageKind: Send + Sync {
    /// The word after `kind:`.
    fn name(&self) -> &'static str;

    /// JSON schema of the settings. A property's `x-class` (`identity`, `extend` or `runtime`) says what a change
    /// of it means; without one it is `identity`.
    fn schema(&self) -> schemars::Schema;

    /// Checks merged settings and makes a stage of them.
    fn resolve(&self, settings: &Figment) -> Result<Arc<dyn Stage>, Rejection>;
}

/// Why settings were refused. The key path is relative to the stage.
#[derive(Debug)]
pub enum Rejection {
    /// The settings do not have the form that the type asks for.
    Form(Box<figment::Error>),
    /// The form is right and the value makes no sense.
    Value { key: String, message: String },
}

impl Rejection {
    pub fn value(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Value { key: key.into(), message: message.into() }
    }

    /// Refuses the value at `key` if it is not good.
    pub fn unless(key: impl Into<String>, good: bool, expected: &str) -> Result<(), Self> {
        match good {
            true => Ok(()),
            false => Err(Self::value(key, format!("expected {expected}"))),
        }
    }
}

impl From<figment::Error> for Rejection {
    fn from(error: figment::Error) -> Self {
        Self::Form(Box::new(error))
    }
}

/// A stage with its settings resolved.
pub trait Stage: Send + Sync {
    /// All settings, defaults filled in.
    fn settings(&self) -> Value;

    /// What decides the result and is no setting by itself, such as a schedule's horizon.
    fn derived(&self) -> BTreeMap<String, Value> {
        BTreeMap::new()
    }

    /// The settings that name other stages.
    fn references(&self) -> Vec<Reference>;

    /// What stands on disk for this stage. Changes nothing.
    fn observe(&self, observer: &Observer) -> Result<Observation, StageError>;

    /// Does the work. Long stages look at `context.stop` often.
    fn run(&self, context: &RunContext) -> Result<Outcome, StageError>;
}

/// A setting whose value is the name of another stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The key that holds the name, such as `dataset`.
    pub key: &'static str,
    pub stage: String,
    /// The kinds of stage that fit there.
    pub kinds: &'static [&'static str],
    pub counts: Counts,
}

/// What of another stage goes into the identity of the one that refers to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counts {
    /// Its settings: they decide what it hands on.
    Settings,
    /// The digest of what it hands on, however that came about.
    Content,
}

/// What a stage may look at when it says how far it is.
pub struct Observer<'a> {
    pub root: &'a Path,
    pub pipeline: &'a str,
    pub stage: &'a StageId,
    pub identity: &'a str,
    /// What the identity was made of, by key.
    pub manifest: &'a BTreeMap<String, Value>,
    /// Keys of the manifest that are missing, because a stage before this one has yet to run.
    pub unknown: &'a [String],
    /// What the stages that this one refers to hand on, by the setting's key, where that is known already.
    pub inputs: &'a BTreeMap<&'static str, Artifact>,
    pub request: &'a Request,
}

/// What stands on disk for a stage.
pub struct Observation {
    pub state: State,
    /// What the stage hands on, if that is known without running it: always when it is done.
    pub artifact: Option<Artifact>,
}

impl From<State> for Observation {
    fn from(state: State) -> Self {
        Self { state, artifact: None }
    }
}

/// What the command line asks of the numbered runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// `--run-number N`
    pub run_number: Option<u32>,
    /// `--resume`
    pub resume: bool,
    /// `--force`
    pub force: bool,
}

/// How far a stage is, as seen on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing usable there.
    Absent { reason: String },
    /// Begun and not finished.
    Partial { done: u64, total: u64, reason: String },
    /// Finished, and more of the same is wanted.
    Extendable { from: u64, to: u64 },
    /// Finished.
    Done { reason: String },
    /// Keeps nothing on disk; runs whenever a stage that needs it runs.
    Transient,
}

/// All that a running stage gets.
pub struct RunContext<'a> {
    pub root: PathBuf,
    pub pipeline: String,
    pub stage: StageId,
    pub identity: String,
    /// What the identity was made of, by key.
    pub manifest: BTreeMap<String, Value>,
    /// A pipeline file with the resolved settings of this stage and those it needs, as YAML.
    pub resolved: String,
    pub request: Request,
    /// The artifacts of the stages that this one refers to, by the setting's key.
    pub inputs: BTreeMap<&'static str, Artifact>,
    pub stop: &'a Stop,
    pub report: &'a dyn Report,
}

impl RunContext<'_> {
    pub fn event(&self, event: Event) {
        self.report.event(&self.stage, &event);
    }
}

/// What a stage hands to those that refer to it.
#[derive(Clone)]
pub struct Artifact {
    value: Arc<dyn Any + Send + Sync>,
    /// Digest of it, for references that count by content.
    pub content: Option<String>,
}

impl Artifact {
    pub fn new<T: Any + Send + Sync>(value: T, content: Option<String>) -> Self {
        Self { value: Arc::new(value), content }
    }

    /// The value, if it is a `T`.
    pub fn get<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.value.clone().downcast().ok()
    }
}

/// What a stage ended with.
#[derive(Clone, Default)]
pub struct Outcome {
    pub artifact: Option<Artifact>,
    /// One line for the final summary.
    pub summary: String,
}

/// Why a stage did not finish.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StageError {
    pub failure: Failure,
    pub message: String,
}

/// Kinds of failure; a later attempt can be worth it for some of them only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// A setting that cannot work. Exit code 2, not 1.
    Setting,
    /// Data or files that the stage reads.
    Input,
    /// Files that the stage writes.
    Storage,
    /// The loss is NaN or infinite.
    NotFinite,
    OutOfMemory,
    DeviceLost,
    /// Stopped by a signal, with a checkpoint saved.
    Interrupted(Signal),
    /// A panic: a bug in this program.
    Bug,
}

impl StageError {
    pub fn new(failure: Failure, message: impl Into<String>) -> Self {
        Self { failure, message: message.into() }
    }
}

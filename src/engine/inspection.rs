//! How far a stage is, as it says itself when it is looked at.

use std::collections::BTreeMap;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use pipe_core::fingerprint::{self, Difference};
use pipe_core::ids::StageId;
use serde::Serialize;

use crate::artifact::Artifact;

/// What stands on disk for a stage.
pub struct Inspection {
    pub state: StageState,
    /// What the stage hands on, if that is known without running it: always when it is done.
    pub artifact: Option<Artifact>,
    /// The metric that was asked for ([`Request::monitor`]), by the position that it was measured
    /// at.
    pub values: BTreeMap<u64, f64>,
    /// What is known of the artifact where it is not made yet, for those that are to get it: a type
    /// that they know.
    pub prospect: Option<Artifact>,
    /// What is left to do, where the stage knows more of that than how long it took the last time.
    pub forecast: Option<Forecast>,
    /// The folder of the numbered run by which it is done, relative to the project.
    pub run: Option<PathBuf>,
}

impl Inspection {
    pub fn new(state: StageState, artifact: Option<Artifact>) -> Self {
        let (prospect, forecast, run) = (None, None, None);
        Self { state, artifact, values: BTreeMap::new(), prospect, forecast, run }
    }

    /// The same with what is known of the artifact before it is made.
    pub fn with_prospect(self, prospect: Option<Artifact>) -> Self {
        Self { prospect, ..self }
    }
}

impl From<StageState> for Inspection {
    fn from(state: StageState) -> Self {
        Self::new(state, None)
    }
}

/// What is left to do for a stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Forecast {
    /// Seconds that it takes.
    pub seconds: Option<f64>,
    /// Bytes that it adds to those on the disk, at most.
    pub bytes: Option<u64>,
    /// Bytes of main memory that the process had at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// What that is known from, such as `run 003`.
    pub from: String,
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
    /// `--no-data-check`: data sets count as they were last seen.
    pub data_as_last_seen: bool,
    /// How far the stage is to be carried now, where that is not its whole length. It ends there as
    /// done, and goes on from there as if it had not ended.
    pub until: Option<u64>,
    /// When the job that it runs in is told to stop, if it is in one.
    pub walltime: Option<DateTime<Utc>>,
    /// The metric whose values [`Inspection::values`] is to have.
    pub monitor: Option<String>,
    /// `pipe fork`
    pub fork: Option<Fork>,
}

/// A run from which another one is to branch off, which stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fork {
    /// The stage that is meant.
    pub stage: StageId,
    /// Its run.
    pub run_number: u32,
}

/// How far a stage is, as seen on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StageState {
    /// Nothing usable there. `changes`: the settings that made what is there useless, if it was
    /// that.
    Absent { reason: String, changes: Vec<Difference> },
    /// Begun and not finished.
    Partial { done: u64, total: u64, reason: String },
    /// Finished, and more of the same is wanted.
    Extendable { from: u64, to: u64 },
    /// Finished.
    Done { reason: String },
    /// Keeps nothing on disk; runs whenever a stage that needs it runs.
    Transient,
}

impl StageState {
    /// Nothing usable there.
    pub fn absent(reason: impl Into<String>) -> Self {
        Self::Absent { reason: reason.into(), changes: Vec::new() }
    }

    /// What is there was made with other settings.
    pub fn changed(changes: Vec<Difference>) -> Self {
        Self::Absent { reason: fingerprint::in_words(&changes), changes }
    }
}

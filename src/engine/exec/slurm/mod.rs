//! Stages as jobs of Slurm. Each stage that the plan would run becomes one job, which runs this
//! same program on a node for that stage alone; what is up to date is known there from the same
//! records and content digests.
//!
//! Slurm itself is reached only through [`Cluster`]. What is kept about jobs is in `store::Jobs`,
//! and whether a stage was done is said by its record, not by Slurm.

mod command;
mod current_job;
mod follow;
mod outcome;
mod queue;
mod script;
mod submit;
mod tail;

use std::collections::{BTreeMap, BTreeSet};

pub use command::Slurm;
pub use current_job::{AfterStop, CurrentJob, after_stop};
pub use follow::{JobMonitor, follow};
use pipe_runs::StoreError;
pub use queue::{JobDetails, JobState};
pub use script::Invocation;
pub use submit::{Submission, submit};
pub use tail::last_lines;

use crate::state::JobId;

/// What is asked of a cluster.
pub trait Cluster {
    /// Submits a job; the script goes to Slurm alone, never to a file of ours.
    fn submit(&self, arguments: &[String], script: &str) -> Result<JobId, SlurmError>;

    /// How jobs stand, in one call. A job that Slurm has forgotten is missing.
    fn states(&self, jobs: &BTreeSet<JobId>) -> Result<BTreeMap<JobId, JobState>, SlurmError>;

    /// The jobs of this user that have not ended, with their comments.
    fn own(&self) -> Result<Vec<(JobId, String)>, SlurmError>;

    /// Ends jobs: those that run are told to save first.
    fn cancel(&self, jobs: &BTreeSet<JobId>) -> Result<(), SlurmError>;
}

/// What can go wrong between this program and Slurm.
#[derive(Debug, thiserror::Error)]
pub enum SlurmError {
    #[error("failed to start `{program}`: {source}{}", hint(source))]
    Start { program: &'static str, source: std::io::Error },
    #[error("`{program}` refused: {message}")]
    Refused { program: &'static str, message: String },
    #[error("`{program}` said what is not understood: {said:?}")]
    Answer { program: &'static str, said: String },
    /// What was asked for cannot be made a job.
    #[error("{0}")]
    Asked(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            " (Slurm's programs must be in PATH; this is to be typed on a machine that submits jobs)"
        }
        _ => "",
    }
}

impl From<pipe_fs::atomic::WriteError> for SlurmError {
    fn from(error: pipe_fs::atomic::WriteError) -> Self {
        StoreError::from(error).into()
    }
}

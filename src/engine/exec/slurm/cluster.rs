//! What is asked of a cluster, and what can go wrong with it.

use std::collections::{BTreeMap, BTreeSet};

use pipe_fs::FileError;

use super::queue::JobState;
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
    File(#[from] FileError),
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
        FileError::from(error).into()
    }
}

//! What can go wrong with runs, and with what else is kept beside them.

use std::path::{Path, PathBuf};

use pipe_core::failure::{Failure, StageError};
use pipe_fs::LockError;
use pipe_fs::atomic::WriteError;

use crate::checkpoint::CheckpointError;
use crate::run_number::RunNumber;

/// What can go wrong with a run on disk.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("failed to read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: {message}", path.display())]
    Damaged { path: PathBuf, message: String },
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("run {run} is being trained by {holder}; wait for it, or start a new run")]
    Held { run: RunNumber, holder: String },
}

impl From<StoreError> for StageError {
    fn from(error: StoreError) -> Self {
        let failure = match &error {
            StoreError::Held { .. } => Failure::Setting,
            _ => Failure::Storage,
        };
        Self::new(failure, error.to_string())
    }
}

impl From<LockError> for StoreError {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Write(error) => Self::Write(error),
            LockError::Damaged { path, message } => Self::Damaged { path, message },
        }
    }
}

impl StoreError {
    /// For `map_err`: the file at `path` could not be read.
    pub fn reading(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Read { path, source }
    }
}

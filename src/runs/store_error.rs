//! What can go wrong with runs.

use pipe_core::failure::{Failure, StageError};
use pipe_fs::atomic::WriteError;
use pipe_fs::{FileError, LockError};

use crate::checkpoint::CheckpointError;
use crate::run_number::RunNumber;

/// What can go wrong with a run on disk.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("run {run} is being trained by {holder}; wait for it, or stop it")]
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
        Self::File(error.into())
    }
}

impl From<WriteError> for StoreError {
    fn from(error: WriteError) -> Self {
        Self::File(error.into())
    }
}

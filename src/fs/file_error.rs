//! What can go wrong with files that hold the state of a project.

use std::path::{Path, PathBuf};

use pipe_core::failure::{Failure, StageError};

use crate::LockError;
use crate::atomic::WriteError;

/// What can go wrong with a file that is read, written or locked.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("failed to read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: {message}", path.display())]
    Damaged { path: PathBuf, message: String },
}

impl FileError {
    /// For `map_err`: the file at `path` could not be read.
    pub fn reading(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Read { path, source }
    }
}

impl From<LockError> for FileError {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Write(error) => Self::Write(error),
            LockError::Damaged { path, message } => Self::Damaged { path, message },
        }
    }
}

impl From<FileError> for StageError {
    fn from(error: FileError) -> Self {
        Self::new(Failure::Storage, error.to_string())
    }
}

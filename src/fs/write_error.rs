//! What is said of a change that failed.

use std::io;
use std::path::{Path, PathBuf};

use pipe_core::failure::{Failure, StageError};

use crate::project;

/// A change that failed: which file, what was tried.
#[derive(Debug, thiserror::Error)]
#[error("failed to {action} {}: {source}{}", path.display(), hint(source))]
pub struct WriteError {
    pub action: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            " (make room, or lower checkpoint.keep_last_n; what was saved before stands)"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            " (the folder must be writable)"
        }
        io::ErrorKind::NotFound if project::is_gone() => {
            " (the project was moved or removed while this ran; the same command goes on where it is now)"
        }
        _ => "",
    }
}

/// For `map_err`: what was tried with `path` when it failed.
pub fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> WriteError {
    let path = path.to_owned();
    move |source| WriteError { action, path, source }
}

impl From<WriteError> for StageError {
    fn from(error: WriteError) -> Self {
        Self::new(Failure::Storage, error.to_string())
    }
}

//! What is said of a change that failed.

use std::io;
use std::path::{Path, PathBuf};

use pipe_core::failure::{Failure, StageError};

use crate::disk::Disk;
use crate::project;

/// A change that failed: which file, what was tried.
#[derive(Debug, thiserror::Error)]
#[error("failed to {action} {}: {source}{}", path.display(), hint(source, *is_project_gone))]
pub struct WriteError {
    pub action: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
    /// Whether the project's folder was moved or removed meanwhile.
    pub is_project_gone: bool,
}

fn hint(error: &io::Error, is_project_gone: bool) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            " (make room, or lower checkpoint.keep_last_n; what was saved before stands)"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            " (the folder must be writable)"
        }
        io::ErrorKind::NotFound if is_project_gone => {
            " (the project was moved or removed while this ran; the same command goes on where it is now)"
        }
        _ => "",
    }
}

/// For `map_err`: what was tried with `path` when it failed.
pub fn failed(
    disk: &Disk,
    action: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> WriteError {
    let path = path.to_owned();
    move |source| {
        let is_project_gone = source.kind() == io::ErrorKind::NotFound && project::is_gone(disk);
        WriteError { action, path, source, is_project_gone }
    }
}

impl From<WriteError> for StageError {
    fn from(error: WriteError) -> Self {
        Self::new(Failure::Storage, error.to_string())
    }
}

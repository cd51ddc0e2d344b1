//! What can go wrong with archives of runs.

use pipe_fs::atomic::WriteError;
use pipe_runs::StoreError;

/// Why a run could not be exported or imported.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An archive, or a run to be exported, that is not what it should be.
    #[error("{what}: {reason}")]
    Refused { what: String, reason: String },
}

impl From<WriteError> for ArchiveError {
    fn from(error: WriteError) -> Self {
        Self::Store(error.into())
    }
}

/// For `map_err`: what is refused, and why.
pub(super) fn refused<E: ToString>(what: impl ToString) -> impl Fn(E) -> ArchiveError {
    let what = what.to_string();
    move |reason| ArchiveError::Refused { what: what.clone(), reason: reason.to_string() }
}

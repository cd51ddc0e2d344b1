//! What stands on disk: checkpoints, run folders, metadata.

pub mod checkpoint;
pub mod clean;
mod found;
mod jobs;
mod keeper;
mod metadata;
mod place;
pub(crate) mod record;
pub mod repair;
mod runs;
pub mod tensor;
pub mod verify;

use std::path::{Path, PathBuf};

use crate::kind::{Failure, StageError};

pub use checkpoint::{
    Checkpoint, CheckpointError, Fault, Header, Loaded, file_digest, file_digest_like,
};
pub use found::Found;
pub use jobs::{Job, JobId, Jobs};
pub use keeper::{Keeper, Saved};
pub use metadata::{
    CheckpointRecord, DatasetRecord, EpochRecord, Metadata, PartialRecord, SCHEMA_VERSION, Status,
};
pub use names::plain_name;
pub use place::{CheckpointPath, Places, StatePath};
pub use record::{
    Attempt, Before, Made, Output, Progress, Record, STATE_FOLDER, former_records_folder,
    lock_stage, record_is_held, records_folder, stage_holder,
};
pub(crate) use runs::host_in_file_name;
pub use runs::{Run, RunNumber, Runs, is_run_folder};

pub use pipe_core::names;
pub use pipe_fs::{
    Holder, Lock, LockError, Stamp, aside, atomic, checked, copy, has_no_locks, host, modified,
    room, sync, traffic, watch,
};

/// What can go wrong with a run on disk.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Write(#[from] atomic::WriteError),
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
    fn reading(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Read { path, source }
    }
}

//! What stands on disk: checkpoints, run folders, metadata.

pub mod atomic;
pub mod checkpoint;
mod checkpoint_manager;
pub mod checksummed_json;
pub mod clean;
pub mod copy;
pub mod disk_space;
pub(crate) mod fault;
mod found;
mod holder;
pub mod io_counters;
mod jobs;
mod lock;
mod lockless;
mod metadata;
pub mod names;
mod place;
pub(crate) mod record;
pub mod repair;
mod runs;
mod stamp;
pub mod sync;
pub mod tensor;
pub mod verify;
pub mod watch;
mod writeback;

use std::path::{Path, PathBuf};

use crate::kind::{Failure, StageError};

pub use checkpoint::{
    Checkpoint, CheckpointError, Corruption, Header, Loaded, file_digest, file_digest_like,
};
pub use checkpoint_manager::{CheckpointManager, Saved};
pub use found::CheckpointScan;
pub use holder::Holder;
pub use jobs::{Job, JobId, Jobs};
pub use lock::Lock;
pub use lockless::has_none as has_no_locks;
pub use metadata::{
    CheckpointRecord, DatasetRecord, EpochRecord, Metadata, PartialRecord, SCHEMA_VERSION, Status,
};
pub use names::plain_name;
pub use place::{CheckpointPath, StatePath, StatePaths};
pub use record::{
    Attempt, Output, OutputBaseline, Outputs, Progress, Record, STATE_FOLDER,
    former_records_folder, lock_stage, record_is_held, records_folder, stage_holder,
};
pub(crate) use runs::host_in_file_name;
pub use runs::{Run, RunNumber, Runs, host, is_run_folder};
pub use stamp::{Stamp, modified};

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

impl From<atomic::WriteError> for StageError {
    fn from(error: atomic::WriteError) -> Self {
        StoreError::from(error).into()
    }
}

impl StoreError {
    fn reading(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Read { path, source }
    }
}

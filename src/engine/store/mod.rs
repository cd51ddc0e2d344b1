//! What stands on disk besides numbered runs: records of stages, jobs, locks; and what can be said
//! of all of it together.

pub mod clean;
mod jobs;
mod place;
pub(crate) mod record;
pub mod repair;
pub mod verify;

pub use jobs::{Job, JobId, Jobs};
pub use names::plain_name;
pub use place::{StatePath, StatePaths};
pub use record::{
    Attempt, Output, OutputBaseline, Outputs, Progress, Record, STATE_FOLDER,
    former_records_folder, lock_stage, record_is_held, records_folder, stage_holder,
};

pub use pipe_core::names;
pub use pipe_fs::{
    Holder, Lock, LockError, Stamp, aside, atomic, checksummed_json, copy, disk_space,
    has_no_locks, host, io_counters, modified, sync, watch,
};
pub use pipe_runs::{
    Checkpoint, CheckpointError, CheckpointManager, CheckpointPath, CheckpointRecord,
    CheckpointScan, Corruption, DatasetRecord, EpochRecord, Header, Loaded, Metadata,
    PartialRecord, Run, RunNumber, Runs, SCHEMA_VERSION, Saved, Status, StoreError, checkpoint,
    file_digest, file_digest_like, is_run_folder, tensor,
};

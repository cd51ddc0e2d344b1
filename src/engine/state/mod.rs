//! What the engine keeps on disk: records of stages, jobs, locks.

mod jobs;
mod left_behind;
mod output;
pub(crate) mod record;
mod record_paths;

pub use jobs::{Job, JobId, Jobs};
pub(crate) use left_behind::{WritingStage, left_behind};
pub use output::Output;
pub use record::{
    Attempt, OutputBaseline, Outputs, Progress, Record, lock_stage, record_files, record_is_held,
    record_lock, stage_holder,
};
pub(crate) use record_paths::log_path;
pub use record_paths::{former_records_folder, logs_folder, records_folder};

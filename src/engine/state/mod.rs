//! What the engine keeps on disk: records of stages, jobs, locks.

mod jobs;
pub(crate) mod record;

pub use jobs::{Job, JobId, Jobs};
pub use record::{
    Attempt, Output, OutputBaseline, Outputs, Progress, Record, former_records_folder, lock_stage,
    record_files, record_is_held, record_lock, records_folder, stage_holder,
};

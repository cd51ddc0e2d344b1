//! What stands on disk besides numbered runs: records of stages, jobs, locks; and what can be said
//! of all of it together.

pub mod clean;
mod jobs;
mod place;
pub(crate) mod record;
pub mod repair;
pub mod verify;

pub use jobs::{Job, JobId, Jobs};
pub use place::{StatePath, StatePaths};
pub use record::{
    Attempt, Output, OutputBaseline, Outputs, Progress, Record, former_records_folder, lock_stage,
    record_is_held, records_folder, stage_holder,
};

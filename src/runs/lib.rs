//! Numbered runs of trainings: their folders, metadata, checkpoint files and logs, and which
//! checkpoints are kept.
//!
//! Knows nothing of pipelines, stages or what a tensor means.

// What comes from outside must not be able to end the program.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::todo,
        clippy::unimplemented
    )
)]

pub mod checkpoint;
mod checkpoint_manager;
mod checkpoint_path;
pub mod events;
pub mod found;
mod labels;
pub mod metadata;
pub mod policy;
mod run_number;
mod runs;
mod store_error;
pub mod tensor;

pub use checkpoint::{
    Checkpoint, CheckpointError, Corruption, Header, Loaded, file_digest, file_digest_like,
};
pub use checkpoint_manager::{CheckpointManager, Saved};
pub use checkpoint_path::CheckpointPath;
pub use found::CheckpointScan;
pub use labels::Labels;
pub use metadata::{
    CheckpointRecord, DatasetRecord, EpochRecord, Metadata, PartialRecord, SCHEMA_VERSION, Status,
};
pub use run_number::{RunNumber, number_of};
pub use runs::{Run, Runs, is_run_folder};
pub use store_error::StoreError;

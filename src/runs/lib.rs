//! Numbered runs of trainings: their folders, metadata, checkpoint files and logs, and which
//! checkpoints are kept.
//!
//! Knows nothing of pipelines, stages or what a tensor means.
//!
//! ```
//! use std::collections::BTreeMap;
//!
//! use pipe_fs::Disk;
//! use pipe_runs::checkpoint::{self, Checkpoint};
//! use pipe_runs::tensor::HostTensor;
//! use pipe_runs::{Header, Runs};
//! use serde_json::Value;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (disk, folder) = (Disk::default(), tempfile::tempdir()?);
//! let run = Runs::at(&disk, folder.path()).create()?;
//! assert_eq!(run.folder, folder.path().join("run_001"));
//!
//! let header = Header {
//!     epoch: 3,
//!     global_step: 300,
//!     step_in_epoch: 0,
//!     metrics: BTreeMap::from([("train_loss".to_owned(), 0.25)]),
//!     scheduler_state_dict: Value::Null,
//!     loop_state: Value::Null,
//!     saved_at: chrono::Utc::now(),
//!     identity: "sha256:1".to_owned(),
//!     seed: 42,
//!     model_config: Value::Null,
//!     extra: BTreeMap::new(),
//! };
//! let path = run.folder.join("epoch_003.ckpt");
//! checkpoint::write(&disk, &path, &header, &[HostTensor::f32("weight", vec![2], &[0.5, 1.0])])?;
//!
//! // Opening reads the header alone. No tensor comes out of a file without its digest checked.
//! let read = Checkpoint::open(&path)?;
//! assert_eq!(read.header().metrics["train_loss"], 0.25);
//! assert_eq!(read.read("weight")?.to_f32(), Some(vec![0.5, 1.0]));
//! # Ok(())
//! # }
//! ```
//!
//! # Where things are
//!
//! | | |
//! |---|---|
//! | [`Runs`], [`Run`] | begin here: the runs of a folder, and where in a run's folder things are |
//! | [`CheckpointManager`] | holds one run, saves in it, and keeps what the policy says |
//! | [`policy`] | which checkpoints stay and which is the best; opens no file |
//! | [`mod@metadata`] | `metadata.json`: what a run is, and how far it came |
//! | [`changes`] | settings that were changed inside a run; pure |
//! | [`mod@checkpoint`], [`tensor`] | checkpoint files, written and read; tensors in host memory |
//! | [`found`] | the checkpoints that stand in a run's folder, whatever its metadata says |
//! | [`events`] | `metrics.jsonl`, and event files for TensorBoard |
//! | [`Labels`] | a person's note and tags |
//! | [`CheckpointResults`] | what stages find out about the checkpoints while they are made |
//! | [`LiveRequests`] | what a person asks of a training that is under way |

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

pub mod changes;
pub mod checkpoint;
mod checkpoint_manager;
mod checkpoint_path;
pub mod events;
pub mod found;
mod labels;
mod live_request;
pub mod metadata;
pub mod policy;
mod results;
mod run_files;
mod run_number;
mod runs;
mod store_error;
pub mod tensor;

pub use changes::{ChangeRecord, Place};
pub use checkpoint::{
    Checkpoint, CheckpointError, Corruption, Header, Loaded, file_digest, file_digest_like,
};
pub use checkpoint_manager::{CheckpointManager, Content, Saved, kept_epochs};
pub use checkpoint_path::{CHECKPOINTS, CheckpointPath};
pub use found::CheckpointScan;
pub use labels::Labels;
pub use live_request::{LiveRequest, LiveRequests};
pub use metadata::{
    CheckpointRecord, DatasetRecord, EpochRecord, Metadata, PartialRecord, SCHEMA_VERSION,
    SavedState, Status,
};
pub use results::{CheckpointResult, CheckpointResults, main_metrics};
pub use run_files::{Belongings, SCRATCH, is_plain_name, is_run_file, is_run_subfolder};
pub use run_number::{RunNumber, number_of};
pub use runs::{Run, Runs, is_run_folder};
pub use store_error::StoreError;

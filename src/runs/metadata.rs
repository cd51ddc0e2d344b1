//! `metadata.json`: what a run is, how far it came, what its checkpoints hold. Paths in it are
//! relative to the run's folder, so that a moved run still works.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
pub use pipe_core::Status;
use pipe_fs::{Disk, FileError, bounded_read, checksummed_json};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::changes::ChangeRecord;
use super::checkpoint_path::Name;
use super::{CheckpointPath, Header, StoreError};
use pipe_fs::atomic::{self, WriteError};

/// Version of the file's form.
pub const SCHEMA_VERSION: u32 = 1;

/// What a run is and how far it came: the content of its `metadata.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    pub schema_version: u32,
    pub run_number: u32,
    pub experiment_name: String,
    pub pipeline: String,
    pub stage: String,
    pub status: Status,
    /// Why the status is what it is, when that needs words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    /// Version of the program.
    pub version: String,
    #[serde(default)]
    pub git_commit: Option<String>,
    pub device: String,
    pub seed: u64,
    /// Epochs that were asked for.
    pub epochs: u64,
    /// Digest of all that decides the result.
    pub identity: String,
    /// What the identity was made of, by key.
    pub manifest: BTreeMap<String, Value>,
    /// The resolved settings.
    pub settings: Value,
    pub dataset: DatasetRecord,
    /// The checkpoint file that the run was started from, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_from: Option<String>,
    /// Settings that were changed inside the run, oldest first. `manifest` and `settings` are those
    /// of now, `identity` is that of its beginning.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<ChangeRecord>,
    /// The checkpoints that stand on disk, oldest first.
    pub checkpoints: Vec<CheckpointRecord>,
    pub best_checkpoint: Option<CheckpointRecord>,
    /// A checkpoint inside an epoch, newer than all others.
    #[serde(default)]
    pub partial_checkpoint: Option<PartialRecord>,
    /// Every epoch's metrics.
    pub history: Vec<EpochRecord>,
    /// Keys that this version does not know; kept when the file is rewritten.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The images that a run is trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatasetRecord {
    pub source: String,
    pub digest: String,
    pub classes: Vec<String>,
    pub train_images: u64,
    pub validation_images: u64,
}

/// A checkpoint at an epoch's end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointRecord {
    pub epoch: u64,
    pub global_step: u64,
    /// Relative to the run's folder.
    pub path: CheckpointPath,
    pub metrics: BTreeMap<String, f64>,
    pub saved_at: DateTime<Utc>,
    pub bytes: u64,
    /// Digest of the whole file, as `sha256sum` gives it.
    pub digest: String,
}

/// A checkpoint inside an epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PartialRecord {
    /// Completed epochs.
    pub epoch: u64,
    pub step_in_epoch: u64,
    pub global_step: u64,
    pub path: CheckpointPath,
    pub saved_at: DateTime<Utc>,
    pub bytes: u64,
    pub digest: String,
    /// Seconds that the epoch under way was trained for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub seconds_in_epoch: f64,
}

impl PartialRecord {
    /// Of a file with this header, of so many bytes and with this digest.
    pub fn of(header: &Header, bytes: u64, digest: String) -> Self {
        Self {
            epoch: header.epoch,
            step_in_epoch: header.step_in_epoch,
            global_step: header.global_step,
            path: CheckpointPath::new(Name::Step(header.global_step)),
            saved_at: header.saved_at,
            bytes,
            digest,
            seconds_in_epoch: header.seconds_in_epoch(),
        }
    }
}

fn is_zero(seconds: &f64) -> bool {
    *seconds == 0.0
}

/// How an epoch went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    pub epoch: u64,
    pub global_step: u64,
    pub metrics: BTreeMap<String, f64>,
    pub learning_rate: f64,
    pub seconds: f64,
    pub images_per_second: f64,
    /// Share of the time in which the loop waited for images.
    pub data_wait: f64,
    /// The checkpoint that was saved at its end, if one was. It stays noted when the file is removed,
    /// so that one that is made again can be compared with it. Earlier versions did not note it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved: Option<SavedState>,
}

/// What is remembered of a checkpoint, whether it still stands or not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedState {
    pub saved_at: DateTime<Utc>,
    /// Of the whole file: see [`CheckpointRecord::digest`].
    pub digest: String,
    /// Of the tensors alone: see [`Checkpoint::state_digest`](crate::Checkpoint::state_digest).
    pub state_digest: String,
}

/// Where the version before the one at `path` stands.
pub fn previous(path: &Path) -> PathBuf {
    path.with_added_extension("previous")
}

impl Metadata {
    /// Reads the file; where it is damaged or missing, the version before it. What that one does
    /// not know of a checkpoint is in the checkpoint's header, and taken in when the run is opened
    /// again.
    pub fn load(path: &Path) -> Result<Self, StoreError> {
        let (error, why) = match Self::read(path) {
            Ok(metadata) => return Ok(metadata),
            Err(error @ StoreError::File(FileError::Damaged { .. })) => (error, "damaged"),
            Err(error @ StoreError::File(FileError::Read { .. })) if !path.exists() => {
                (error, "missing")
            }
            Err(error) => return Err(error),
        };
        let Ok(metadata) = Self::read(&previous(path)) else { return Err(error) };
        checksummed_json::warn_once(path, &format!("it is {why}, so its previous version is used"));
        Ok(metadata)
    }

    /// The file itself, without the version before it.
    pub fn read(path: &Path) -> Result<Self, StoreError> {
        let bytes =
            bounded_read::read(path, bounded_read::RECORD).map_err(FileError::reading(path))?;
        let read = checksummed_json::from_bytes(&bytes).and_then(Self::with_files_of_its_own);
        read.map_err(|e| {
            let message = format!("not a run's metadata: {e}");
            FileError::Damaged { path: path.to_owned(), message }.into()
        })
    }

    /// Refuses a list in which a checkpoint has another file than its epoch or step says: what is
    /// given up is removed by that path.
    fn with_files_of_its_own(self) -> Result<Self, String> {
        let epochs = self.checkpoints.iter().map(|c| (&c.path, Name::Epoch(c.epoch)));
        let partial = self.partial_checkpoint.iter().map(|p| (&p.path, Name::Step(p.global_step)));
        let mut all = epochs.chain(partial);
        match all.find(|(path, name)| **path != CheckpointPath::new(*name)) {
            Some((path, name)) => Err(format!("it lists {path} in the place of {}", name.file())),
            None => Ok(self),
        }
    }

    /// Rewrites the file as a whole; the version that stands there now becomes the previous one.
    pub fn save(&mut self, disk: &Disk, path: &Path) -> Result<(), WriteError> {
        self.updated_at = Utc::now();
        let text = checksummed_json::to_text(self);
        if Self::read(path).is_ok() {
            atomic::link(disk, path, &previous(path))?;
        }
        atomic::write(disk, path, |out| out.write_all(text.as_bytes()))
    }
}

//! What this crate's stages hand to each other: data sets and checkpoints. A stage kind of one's
//! own makes them, or asks for them, by the same types.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pipe_engine::kind::{Artifact, ArtifactType, DependencyMode, Reference};
use pipe_runs::{Checkpoint, CheckpointError, CheckpointRecord, Metadata, Run};

use crate::architecture::ModelConfig;
use crate::data::{Dataset, DatasetSummary};

/// Images with their classes. The preview is a [`DatasetSettings`](crate::data::DatasetSettings).
pub const DATASET: ArtifactType = ArtifactType::new("dataset");

/// A trained model: [`Checkpoints`]. The preview is a [`CheckpointPreview`].
pub const CHECKPOINT: ArtifactType = ArtifactType::new("checkpoint");

/// A setting that names a stage which makes a data set: it counts by its settings, and by its
/// images where those do not decide them.
pub fn dataset_reference(key: &'static str, stage: &str) -> Reference {
    Reference::of_type(DATASET, key, stage, DependencyMode::FingerprintAndContent)
}

/// A setting that names a stage which makes checkpoints: it counts by the best one's content.
pub fn checkpoint_reference(key: &'static str, stage: &str) -> Reference {
    Reference::of_type(CHECKPOINT, key, stage, DependencyMode::Content)
}

/// What a stage that makes checkpoints hands on.
#[derive(Debug, Clone)]
pub enum Checkpoints {
    /// Those of a training.
    Run { run: Run, metadata: Box<Metadata> },
    /// A file by itself.
    File(CheckpointFile),
}

/// One checkpoint. It holds a whole model, or LoRA's weights with the digest of their base model,
/// which stands beside it.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckpointFile {
    pub path: PathBuf,
    /// As its run recorded it, or else that of the file's head.
    pub digest: String,
    /// Completed epochs.
    pub epoch: u64,
    pub bytes: u64,
    /// By name, such as `train_loss`.
    pub metrics: BTreeMap<String, f64>,
}

impl CheckpointFile {
    /// A file as it is on disk now; only its header is read.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let file = Checkpoint::open(path)?;
        Ok(Self {
            path: path.to_owned(),
            digest: file.head_digest().to_owned(),
            epoch: file.header().epoch,
            bytes: std::fs::metadata(path).map_or(0, |found| found.len()),
            metrics: file.header().metrics.clone(),
        })
    }
}

impl Checkpoints {
    pub fn of_run(run: Run, metadata: Metadata) -> Self {
        Self::Run { run, metadata: Box::new(metadata) }
    }

    /// The best checkpoint of what a stage hands on, if that is checkpoints.
    pub fn best_of(artifact: &Artifact) -> Option<CheckpointFile> {
        artifact.get::<Self>()?.best()
    }

    /// As an artifact: it counts by its best checkpoint.
    pub fn artifact(self) -> Artifact {
        let content = match &self {
            Self::Run { metadata, .. } => best_record(metadata).map(|best| best.digest.clone()),
            Self::File(file) => Some(file.digest.clone()),
        };
        Artifact::new(self, content)
    }

    /// The best checkpoint; the last one where none could be judged.
    pub fn best(&self) -> Option<CheckpointFile> {
        self.file(best_record)
    }

    /// The newest one.
    pub fn last(&self) -> Option<CheckpointFile> {
        self.file(|metadata| metadata.checkpoints.last())
    }

    /// That of one epoch.
    pub fn of_epoch(&self, epoch: u64) -> Option<CheckpointFile> {
        let found = self.file(|m| m.checkpoints.iter().find(|c| c.epoch == epoch));
        found.filter(|file| file.epoch == epoch)
    }

    /// The epochs of those that stand.
    pub fn epochs(&self) -> Vec<u64> {
        match self {
            Self::Run { metadata, .. } => metadata.checkpoints.iter().map(|c| c.epoch).collect(),
            Self::File(file) => vec![file.epoch],
        }
    }

    /// The run that they are of, where they stand in one.
    pub fn run(&self) -> Option<&Run> {
        match self {
            Self::Run { run, .. } => Some(run),
            Self::File(_) => None,
        }
    }

    /// The one that is chosen of a run's, or the only one.
    fn file(
        &self,
        choose: impl FnOnce(&Metadata) -> Option<&CheckpointRecord>,
    ) -> Option<CheckpointFile> {
        match self {
            Self::Run { run, metadata } => choose(metadata).map(|record| CheckpointFile {
                path: run.file_of(record),
                digest: record.digest.clone(),
                epoch: record.epoch,
                bytes: record.bytes,
                metrics: record.metrics.clone(),
            }),
            Self::File(file) => Some(file.clone()),
        }
    }
}

fn best_record(metadata: &Metadata) -> Option<&CheckpointRecord> {
    metadata.best_checkpoint.as_ref().or_else(|| metadata.checkpoints.last())
}

/// What a stage will hand on as [`CHECKPOINT`], as far as settings tell.
#[derive(Debug, Clone, Default)]
pub struct CheckpointPreview {
    /// The model, LoRA's weights put on their base.
    pub model: Option<ModelPreview>,
    /// Whether they hold LoRA's weights alone.
    pub is_adapter: Option<bool>,
    /// Names of the metrics that their training can report; `None` where it tells as it goes.
    pub metrics: Option<BTreeSet<String>>,
    /// Which ones a training keeps; `None` for a single file.
    pub saved: Option<SavedEpochs>,
}

/// What is known of a model from the settings that it is trained with.
#[derive(Debug, Clone)]
pub struct ModelPreview {
    /// For any number of classes.
    pub network: Option<ModelConfig>,
    /// 0 for one without classes; `None` where only the images tell.
    pub classes: Option<usize>,
    /// Share of images that are trained without their label.
    pub label_dropout: f64,
}

/// The epochs of whose end a training keeps a checkpoint.
#[derive(Debug, Clone, Copy)]
pub struct SavedEpochs {
    /// Whether it keeps any.
    pub enabled: bool,
    pub every: u64,
    /// In all; the last one is always kept.
    pub epochs: u64,
}

/// What a plan hands on for a data set; its content counts where its settings do not decide it.
pub(super) fn summary_artifact(seen: DatasetSummary) -> Artifact {
    let content = content_of(&seen);
    Artifact::new(seen, content)
}

/// The data set itself.
pub(super) fn dataset_artifact(dataset: Dataset) -> Artifact {
    let content = content_of(&DatasetSummary::of(&dataset));
    Artifact::new(Arc::new(dataset), content)
}

fn content_of(seen: &DatasetSummary) -> Option<String> {
    (!seen.is_synthetic).then(|| seen.digest.clone())
}

/// What is known of the data set that a `dataset` stage hands on.
pub(super) fn dataset_summary(artifact: &Artifact) -> Option<DatasetSummary> {
    let opened = || artifact.get::<Arc<Dataset>>().map(|dataset| DatasetSummary::of(&dataset));
    artifact.get::<DatasetSummary>().map(|seen| (*seen).clone()).or_else(opened)
}

//! The artifacts of this crate's stages: what they hand to each other.

use std::path::PathBuf;
use std::sync::Arc;

use pipe_engine::kind::Artifact;
use pipe_runs::{CheckpointRecord, Metadata, Run};

use crate::data::{Dataset, DatasetSummary};

/// A training with at least one checkpoint.
#[derive(Debug, Clone)]
pub(super) struct TrainedRun {
    pub run: Run,
    pub metadata: Metadata,
}

/// A file that holds a whole model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ModelFile {
    pub path: PathBuf,
    /// As its run recorded it.
    pub digest: String,
}

impl TrainedRun {
    /// The best checkpoint; the last one where none could be judged.
    pub fn best(&self) -> Option<&CheckpointRecord> {
        self.metadata.best_checkpoint.as_ref().or_else(|| self.metadata.checkpoints.last())
    }

    pub fn file(&self, record: &CheckpointRecord) -> ModelFile {
        ModelFile { path: self.run.file_of(record), digest: record.digest.clone() }
    }

    /// The run as an artifact: it counts by its best checkpoint.
    pub fn artifact(self) -> Artifact {
        let content = self.best().map(|best| best.digest.clone());
        Artifact::new(self, content)
    }
}

/// The model file that a `train`, `lora` or `copy_best` stage hands on.
pub(super) fn model_file(artifact: &Artifact) -> Option<ModelFile> {
    if let Some(file) = artifact.get::<ModelFile>() {
        return Some((*file).clone());
    }
    let run = artifact.get::<TrainedRun>()?;
    run.best().map(|best| run.file(best))
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

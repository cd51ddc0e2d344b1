//! What this crate's stages hand to each other: data sets and checkpoints. A stage kind of one's
//! own makes them, or asks for them, by the same types.

use std::collections::BTreeSet;
use std::sync::Arc;

use pipe_engine::kind::{Artifact, ArtifactType, DependencyMode, Reference};
pub use pipe_trainer::artifacts::{
    CHECKPOINT, CheckpointFile, Checkpoints, ProgramPreview, checkpoint_reference,
};

use crate::architecture::ModelConfig;
use crate::data::{Dataset, DatasetSummary};

/// Images with their classes. The preview is a [`DatasetSettings`](crate::data::DatasetSettings).
pub const DATASET: ArtifactType = ArtifactType::new("dataset");

/// A setting that names a stage which makes a data set: it counts by its settings, and by its
/// images where those do not decide them.
pub fn dataset_reference(key: &'static str, stage: &str) -> Reference {
    Reference::of_type(DATASET, key, stage, DependencyMode::FingerprintAndContent)
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
    /// What they are called, in the order of their labels; `None` where only the images tell.
    pub class_names: Option<Vec<String>>,
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
    /// How many of the newest stay; all if unset.
    pub keep_last_n: Option<u64>,
}

/// The preview of an `evaluate` stage: the names of what it finds out.
#[derive(Debug, Clone)]
pub struct JudgePreview(pub BTreeSet<String>);

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

/// The images of a data set that a `dataset` stage hands on, those for validation too.
pub fn dataset_images(artifact: &Artifact) -> Option<u64> {
    dataset_summary(artifact).map(|seen| seen.images)
}

/// What is known of the data set that a `dataset` stage hands on.
pub(super) fn dataset_summary(artifact: &Artifact) -> Option<DatasetSummary> {
    let opened = || artifact.get::<Arc<Dataset>>().map(|dataset| DatasetSummary::of(&dataset));
    artifact.get::<DatasetSummary>().map(|seen| (*seen).clone()).or_else(opened)
}

//! What trainings hand to other stages: checkpoints, whoever wrote them. A stage kind of one's own
//! makes them, or asks for them, by the same type.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pipe_engine::kind::{Artifact, ArtifactType, DependencyMode, Reference};
use pipe_runs::{Checkpoint, CheckpointError, CheckpointRecord, Metadata, Run};

/// A trained model: [`Checkpoints`].
pub const CHECKPOINT: ArtifactType = ArtifactType::new("checkpoint");

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
        Ok(Self::of(&Checkpoint::open(path)?))
    }

    /// The same of one that is open.
    pub fn of(file: &Checkpoint) -> Self {
        Self {
            path: file.path().to_owned(),
            digest: file.head_digest().to_owned(),
            epoch: file.header().epoch,
            bytes: file.bytes(),
            metrics: file.header().metrics.clone(),
        }
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

    /// The run that a training hands on, with its metadata as far as they are handed on.
    pub(crate) fn run_of(artifact: &Artifact) -> Option<(Run, Metadata)> {
        match &*artifact.get::<Self>()? {
            Self::Run { run, metadata } => Some((run.clone(), Metadata::clone(metadata))),
            Self::File(_) => None,
        }
    }

    /// As an artifact: it counts by its best checkpoint.
    pub fn artifact(self) -> Artifact {
        let content = match &self {
            Self::Run { metadata, .. } => {
                let inside = || Some(metadata.partial_checkpoint.as_ref()?.digest.clone());
                best_record(metadata).map(|best| best.digest.clone()).or_else(inside)
            }
            Self::File(file) => Some(file.digest.clone()),
        };
        Artifact::new(self, content)
    }

    /// The best checkpoint; the last one where none could be judged.
    pub fn best(&self) -> Option<CheckpointFile> {
        self.file(best_record).or_else(|| self.inside_epoch())
    }

    /// The newest one.
    pub fn last(&self) -> Option<CheckpointFile> {
        self.inside_epoch().or_else(|| self.file(|metadata| metadata.checkpoints.last()))
    }

    /// That of a training which ended inside an epoch.
    fn inside_epoch(&self) -> Option<CheckpointFile> {
        let Self::Run { run, metadata } = self else { return None };
        metadata.partial_checkpoint.as_ref().map(|partial| CheckpointFile {
            path: run.folder.join(&partial.path),
            digest: partial.digest.clone(),
            epoch: partial.epoch,
            bytes: partial.bytes,
            metrics: BTreeMap::new(),
        })
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

/// The best checkpoint of a run; the newest where none could be judged.
pub(crate) fn best_record(metadata: &Metadata) -> Option<&CheckpointRecord> {
    metadata.best_checkpoint.as_ref().or_else(|| metadata.checkpoints.last())
}

/// The preview of a stage whose checkpoints a program wrote in a form of its own: no other stage of
/// this program reads what is in them.
#[derive(Debug, Clone, Copy)]
pub struct ProgramPreview;

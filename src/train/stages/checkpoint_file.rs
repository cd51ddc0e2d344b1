//! `kind: checkpoint`: a model that one has, of another project or from a hub, for the stages that
//! take a checkpoint.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use figment::Figment;
use pipe_core::progress::Event;
use pipe_engine::kind::{
    ArtifactType, Failure, Files, InspectContext, Inspection, Outcome, PipelineView, Preview,
    Reference, Rejection, RunContext, Stage, StageError, StageKind, StageState, is_inside_project,
};
use pipe_fs::path_in;
use pipe_runs::Checkpoint;
use pipe_runs::checkpoint::named;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::artifacts::{CHECKPOINT, CheckpointFile, CheckpointPreview, Checkpoints};

/// A checkpoint file that stages take as if a stage had trained it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CheckpointSettings {
    /// The checkpoint, wherever it is: a file that `pipe` wrote, or the folder of `pipe ckpt export
    /// --hub`. Relative to the project; `~/` is your home folder. Its content counts, and not its
    /// name.
    #[schemars(extend("x-class" = "runtime"))]
    #[schemars(example = &"models/base.safetensors")]
    #[schemars(extend("x-known-as" = ["path", "checkpoint", "ckpt", "weights"]))]
    file: PathBuf,
}

pub struct CheckpointKind;

impl StageKind for CheckpointKind {
    fn name(&self) -> &'static str {
        "checkpoint"
    }

    fn makes(&self) -> ArtifactType {
        CHECKPOINT
    }

    fn hands_on(&self) -> Option<&'static str> {
        Some("file")
    }

    fn schema(&self) -> schemars::Schema {
        schemars::schema_for!(CheckpointSettings)
    }

    fn resolve(&self, settings: &Figment) -> Result<Arc<dyn Stage>, Rejection> {
        let settings: CheckpointSettings = settings.extract()?;
        let is_named = settings.file.file_name().is_some();
        Rejection::unless("file", is_named, "the path of a checkpoint file")?;
        Ok(Arc::new(CheckpointStage { settings }))
    }
}

struct CheckpointStage {
    settings: CheckpointSettings,
}

impl Stage for CheckpointStage {
    fn settings(&self) -> Value {
        serde_json::to_value(&self.settings).unwrap_or_default()
    }

    fn references(&self) -> Vec<Reference> {
        Vec::new()
    }

    fn files(&self) -> Files {
        let path = Some(&self.settings.file).filter(|path| is_inside_project(path));
        let reads = path.map(|path| ("file".to_owned(), path.display().to_string()));
        Files { reads: reads.into_iter().collect(), writes: Vec::new() }
    }

    /// What is in the file is known once it is looked at.
    fn preview(&self, _: &PipelineView) -> Option<Preview> {
        Some(Arc::new(CheckpointPreview::default()))
    }

    fn inspect(&self, o: &InspectContext) -> Result<Inspection, StageError> {
        if o.pending {
            // What is there now is not what a stage will find.
            return Ok(StageState::Transient.into());
        }
        let found = CheckpointFile::of(&self.open(o.root)?);
        Ok(Inspection::new(StageState::Transient, Some(Checkpoints::File(found).artifact())))
    }

    fn run(&self, context: &RunContext) -> Result<Outcome, StageError> {
        let file = self.open(&context.root)?;
        file.verify().map_err(|e| unusable(e.to_string()))?;
        let found = CheckpointFile::of(&file);
        let summary = format!("epoch {}: {}", found.epoch, self.settings.file.display());
        context.event(Event::Message { text: summary.clone() });
        Ok(Outcome { artifact: Some(Checkpoints::File(found).artifact()), summary, next: None })
    }
}

impl CheckpointStage {
    /// The file with its header read.
    fn open(&self, root: &Path) -> Result<Checkpoint, StageError> {
        let path = path_in(root, &self.settings.file);
        let Some(file) = named(&path) else {
            return Err(unusable(format!("{} is a folder without a checkpoint", path.display())));
        };
        Checkpoint::open(&file).map_err(|e| unusable(e.to_string()))
    }
}

fn unusable(why: String) -> StageError {
    StageError::new(Failure::Input, why).at("file")
}

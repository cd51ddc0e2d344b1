//! `guide` of a `sample` stage: the checkpoint of an earlier or smaller model, against which the
//! sampled one is weighed.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use pipe_engine::kind::{
    Artifact, Diagnostic, PipelineView, Reference, Rejection, StageError, is_inside_project,
    names_file,
};
use pipe_runs::Checkpoint;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::artifacts::{CheckpointFile, CheckpointPreview, Checkpoints, checkpoint_reference};
use super::lint;
use crate::checkpoint::no_guide;

/// The setting's key, and that of its content in a manifest.
pub(super) const KEY: &str = "guide";
const CONTENT: &str = "guide content";

/// A worse model of the same images, away from which the estimates are pushed (autoguidance).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GuideSettings {
    /// A stage that makes checkpoints, or a checkpoint file of the project (with a `/` or a `.` in
    /// its path).
    #[schemars(example = &"base")]
    from: String,
    /// The stage's checkpoint of this epoch, if it still stands; its best one if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    epoch: Option<u64>,
}

impl fmt::Display for GuideSettings {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.from)?;
        self.epoch.map_or(Ok(()), |epoch| write!(f, ", epoch {epoch}"))
    }
}

impl GuideSettings {
    fn stage(&self) -> Option<&str> {
        Some(self.from.as_str()).filter(|from| !names_file(from))
    }

    fn file(&self) -> Option<&str> {
        Some(self.from.as_str()).filter(|from| names_file(from))
    }

    /// The file that is read, with its setting's key.
    pub fn read(&self) -> Option<(String, String)> {
        self.file().map(|file| ("guide.from".to_owned(), file.to_owned()))
    }

    /// Refuses an epoch of a file, and a file outside of the project.
    pub fn validate(&self) -> Result<(), Rejection> {
        let Some(file) = self.file() else { return Ok(()) };
        let is_inside = is_inside_project(Path::new(file));
        Rejection::unless("guide.from", is_inside, "a path inside the project")?;
        let expected = "no epoch beside a file, which is of one epoch";
        Rejection::unless("guide.epoch", self.epoch.is_none(), expected)
    }

    pub fn reference(&self) -> Option<Reference> {
        self.stage().map(|stage| checkpoint_reference(KEY, stage))
    }

    /// What decides the result besides the checkpoint's content, by key of a manifest.
    pub fn decides(&self) -> Option<(String, Value)> {
        self.epoch.map(|epoch| ("guide epoch".to_owned(), epoch.into()))
    }

    /// The file's digest, if one is named and there.
    pub fn content(&self, root: &Path) -> BTreeMap<String, String> {
        let opened = self.file().and_then(|file| Checkpoint::open(&root.join(file)).ok());
        opened.map(|file| (CONTENT.to_owned(), file.head_digest().to_owned())).into_iter().collect()
    }

    /// The checkpoint that is meant.
    ///
    /// # Errors
    /// A file that is none, and a stage that has no checkpoint, or not any more that of the epoch.
    pub fn checkpoint(
        &self,
        inputs: &BTreeMap<String, Artifact>,
        root: &Path,
    ) -> Result<CheckpointFile, StageError> {
        if let Some(file) = self.file() {
            let opened = CheckpointFile::open(&root.join(file));
            return opened.map_err(|e| StageError::setting(e.to_string()).at("guide.from"));
        }
        let from = &self.from;
        let none =
            || StageError::setting(format!("stage {from} has no checkpoint")).at("guide.from");
        let all = inputs.get(KEY).and_then(|artifact| artifact.get::<Checkpoints>());
        let all = all.ok_or_else(none)?;
        let Some(epoch) = self.epoch else { return all.best().ok_or_else(none) };
        all.of_epoch(epoch).ok_or_else(|| {
            let epochs: Vec<String> = all.epochs().iter().map(u64::to_string).collect();
            StageError::setting(format!(
                "stage {from} has no checkpoint of epoch {epoch}: it was not saved, or `keep_last_n` let it \
                 go; it has those of epochs {}. Name one of these, or keep all with `checkpoint: {{keep_last_n: null}}` \
                 in {from}",
                epochs.join(", ")
            )).at("guide.epoch")
        })
    }

    /// Lints of the checkpoint before anything is sampled: whether there will be one, and for the
    /// same images as those of `source`, the stage that is sampled from.
    pub fn lint(&self, source: &str, pipeline: &PipelineView) -> Vec<Diagnostic> {
        let Some(stage) = self.stage() else { return Vec::new() };
        let mut found = lint::check_source(KEY, stage, self.epoch, pipeline);
        found.extend(lint::check_is_readable(KEY, stage, pipeline));
        let model = |stage| pipeline.preview::<CheckpointPreview>(stage)?.model.clone();
        if let Some((ours, theirs)) = model(source).zip(model(stage)) {
            let classes = ours.classes.zip(theirs.classes);
            let shapes = ours.network.as_ref().zip(theirs.network.as_ref());
            let shapes = shapes.map(|(ours, theirs)| {
                [ours, theirs].map(|network| (network.image_size(), network.channels()))
            });
            if let Some(why) = no_guide(shapes, classes.map(|(ours, theirs)| [ours, theirs])) {
                found.push(Diagnostic::error(KEY, format!("`{stage}` {why}")));
            }
        }
        found
    }
}

//! `kind: copy_best`: a training's checkpoint under a name of its own, for whoever comes next.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use figment::Figment;
use pipe_engine::kind::{
    Artifact, DependencyMode, Diagnostic, Failure, Files, InspectContext, Inspection, Outcome,
    PipelineView, Reference, Rejection, RunContext, Stage, StageError, StageKind, StageState,
    is_inside_project,
};
use pipe_engine::state::{Output, Outputs};
use pipe_fs::{atomic, copy};
use pipe_runs::{Checkpoint, CheckpointRecord, file_digest_like};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::artifacts::{ModelFile, TrainedRun};
use super::lint;

/// Copies a checkpoint of a training to a fixed place.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CopyBestSettings {
    /// The `train` stage.
    #[schemars(example = &"base")]
    from: String,
    /// Which checkpoint: `best`, `last`, or `{epoch: N}`.
    #[serde(default)]
    select: Select,
    /// The file to write, relative to the project.
    #[schemars(example = &"checkpoints/base/base_model_last.ckpt")]
    to: PathBuf,
    /// Write even over a file that this stage did not make.
    #[serde(default)]
    #[schemars(extend("x-class" = "runtime"))]
    overwrite: bool,
    /// What the file is: a copy, or with `hard` a further name of the run's file, which takes no
    /// room. Nobody can write to that file then.
    #[serde(default, skip_serializing_if = "Link::is_default")]
    #[schemars(extend("x-class" = "runtime"))]
    link: Link,
}

/// How a copy is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Link {
    /// A file of its own: a reflink where the file system has them.
    #[default]
    None,
    /// A hard link, read-only.
    Hard,
}

impl Link {
    fn is_default(&self) -> bool {
        *self == Self::None
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Select {
    /// The best by the training's `monitor`.
    #[default]
    Best,
    /// The newest epoch's.
    Last,
    /// That of one epoch, if it still stands.
    Epoch(u64),
}

pub struct CopyBestKind;

impl StageKind for CopyBestKind {
    fn name(&self) -> &'static str {
        "copy_best"
    }

    fn schema(&self) -> schemars::Schema {
        schemars::schema_for!(CopyBestSettings)
    }

    fn resolve(&self, settings: &Figment) -> Result<Arc<dyn Stage>, Rejection> {
        let settings: CopyBestSettings = settings.extract()?;
        inside_project(&settings.to).map_err(|message| Rejection::value("to", message))?;
        Ok(Arc::new(CopyBest { settings }))
    }
}

/// What a plan says of a file that is copied.
pub(super) fn copy_cost(bytes: u64) -> String {
    format!("; copies {:.1} MB", bytes as f64 / 1e6)
}

/// Refuses a path that is not a file inside the project.
pub(super) fn inside_project(path: &Path) -> Result<(), &'static str> {
    if is_inside_project(path) && path.file_name().is_some() {
        Ok(())
    } else {
        Err("expected the path of a file inside the project, without `..`")
    }
}

struct CopyBest {
    settings: CopyBestSettings,
}

impl Stage for CopyBest {
    fn settings(&self) -> Value {
        serde_json::to_value(&self.settings).unwrap_or_default()
    }

    fn references(&self) -> Vec<Reference> {
        vec![Reference::to(
            "from",
            &self.settings.from,
            &["train", "select_best"],
            DependencyMode::Content,
        )]
    }

    fn lint(&self, pipeline: &PipelineView) -> Vec<Diagnostic> {
        let epoch =
            if let Select::Epoch(epoch) = self.settings.select { Some(epoch) } else { None };
        let mut found = lint::check_source("from", &self.settings.from, epoch, pipeline);
        found.extend(lint::check_whole_model("from", &self.settings.from, pipeline));
        found
    }

    fn files(&self) -> Files {
        Files { reads: Vec::new(), writes: vec![("to".to_owned(), self.settings.to.clone())] }
    }

    fn inspect(&self, o: &InspectContext) -> Result<Inspection, StageError> {
        let target = o.root.join(&self.settings.to);
        let Some(run) = o.inputs.get("from").and_then(|a| a.get::<TrainedRun>()) else {
            // What the training will bring is not known yet.
            let state = if o.made.is_some() && target.exists() {
                StageState::Done { reason: "up to date".into() }
            } else {
                StageState::absent("not copied yet")
            };
            return Ok(state.into());
        };
        let source = self.selected(&run)?;
        let shown = self.settings.to.display();
        let made = o.made.and_then(|m| m.outputs.first()).filter(|o| o.digest == source.digest);
        let standing = made.and_then(|output| o.if_unchanged(output));
        let state = match (made, target.exists()) {
            (Some(_), true) if standing.is_some() => {
                StageState::Done { reason: format!("up to date, epoch {}", source.epoch) }
            }
            (_, false) => StageState::absent(format!("{shown} is not there{}", self.cost(source))),
            (None, true) if o.made.is_some() => {
                let (epoch, cost) = (source.epoch, self.cost(source));
                StageState::absent(format!(
                    "another checkpoint is selected now, epoch {epoch}{cost}"
                ))
            }
            (_, true) => StageState::absent(format!("{shown} has another content")),
        };
        if let (Some(made), Some(output)) = (o.made, standing) {
            o.confirm(Outputs { outputs: vec![output], ..made.clone() });
        }
        let file = ModelFile { path: target, digest: source.digest.clone() };
        Ok(Inspection { state, artifact: Some(artifact(file)) })
    }

    fn run(&self, context: &RunContext) -> Result<Outcome, StageError> {
        let Some(run) = context.inputs.get("from").and_then(|a| a.get::<TrainedRun>()) else {
            return Err(StageError::setting(format!(
                "from: stage {} has no checkpoint",
                self.settings.from
            )));
        };
        let record = self.selected(&run)?;
        let source = run.file(record);
        let bad = |e: String| StageError::new(Failure::Input, format!("failed to copy: {e}"));
        let file = Checkpoint::open(&source.path).and_then(|file| file.verify().map(|()| file));
        let file = file.map_err(|e| bad(e.to_string()))?;
        // The run's record, if an older program wrote it, has a digest for which the file is read
        // once more.
        if file.head_digest() != record.digest
            && file_digest_like(&source.path, &record.digest).ok().as_ref() != Some(&record.digest)
        {
            let message =
                format!("{} is not the file that its run recorded", source.path.display());
            return Err(bad(message));
        }
        let target = context.root.join(&self.settings.to);
        let replaced = self.check_ownership(context, &target, &source.digest)?;
        let path = self.settings.to.display().to_string();
        let planned = Output::expected(&path, &record.digest, record.bytes);
        // The note first: after a crash between the two, the next run knows both files as its own.
        context.record_outputs(vec![planned], Vec::new(), replaced)?;
        atomic::create_folder(target.parent().unwrap_or(&context.root))?;
        atomic::remove_temporary_files_for(&target);
        match self.settings.link {
            Link::None => copy::copy(&source.path, &target)?,
            Link::Hard => copy::link_read_only(&source.path, &target)?,
        }
        let written = context.output(&path, Some(&source.digest))?;
        if written.digest != source.digest {
            let message = format!("{path} does not have the content that was copied");
            return Err(StageError::new(Failure::Storage, message));
        }
        context.record_outputs(vec![written], Vec::new(), Vec::new())?;
        let file = ModelFile { path: target, digest: source.digest };
        let summary = format!("epoch {} of run {}: {path}", record.epoch, run.run.number);
        Ok(Outcome { artifact: Some(artifact(file)), summary, next: None })
    }
}

fn artifact(file: ModelFile) -> Artifact {
    let content = Some(file.digest.clone());
    Artifact::new(file, content)
}

impl CopyBest {
    fn selected<'a>(&self, run: &'a TrainedRun) -> Result<&'a CheckpointRecord, StageError> {
        let all = &run.metadata.checkpoints;
        let found = match self.settings.select {
            Select::Best => run.best(),
            Select::Last => all.last(),
            Select::Epoch(epoch) => all.iter().find(|c| c.epoch == epoch),
        };
        found.ok_or_else(|| {
            let epochs: Vec<String> = all.iter().map(|c| c.epoch.to_string()).collect();
            let there = if epochs.is_empty() {
                "it has none".to_owned()
            } else {
                format!("it has those of epochs {}", epochs.join(", "))
            };
            StageError::setting(format!(
                "select: run {} has no such checkpoint; {there}",
                run.run.number
            ))
        })
    }

    /// What a copy takes of the disk, for the plan.
    fn cost(&self, source: &CheckpointRecord) -> String {
        match self.settings.link {
            Link::None => copy_cost(source.bytes),
            Link::Hard => String::new(),
        }
    }

    /// The digests of earlier copies that the target may hold. A file of anybody else's is left
    /// alone.
    fn check_ownership(
        &self,
        context: &RunContext,
        target: &Path,
        wanted: &str,
    ) -> Result<Vec<String>, StageError> {
        let made = context.made.as_ref();
        let earlier = made.map(|m| {
            m.outputs.iter().map(|o| o.digest.clone()).chain(m.replaced.clone()).collect::<Vec<_>>()
        });
        let earlier = earlier.unwrap_or_default();
        if !target.exists() || self.settings.overwrite {
            return Ok(earlier);
        }
        for known in std::iter::once(wanted).chain(earlier.iter().map(String::as_str)) {
            let found = file_digest_like(target, known).map_err(|e| {
                StageError::new(Failure::Input, format!("{}: {e}", target.display()))
            })?;
            if found == known {
                return Ok(earlier);
            }
        }
        Err(StageError::setting(format!(
            "to: {} exists and was not made by this stage; move it away, choose another path, or set `overwrite: true`",
            self.settings.to.display()
        )))
    }
}

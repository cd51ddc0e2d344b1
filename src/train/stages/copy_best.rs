//! `kind: copy_best`: a checkpoint under a name of its own, for whoever comes next. LoRA's weights
//! take their base model along, or are merged into it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use figment::Figment;
use pipe_engine::kind::{
    ArtifactType, Diagnostic, Failure, Files, InspectContext, Inspection, Outcome, PipelineView,
    Preview, Reference, Rejection, RunContext, Stage, StageError, StageKind, StageState,
    is_inside_project,
};
use pipe_engine::state::{Output, Outputs};
use pipe_runs::policy::{Mode, metric};
use pipe_runs::{Checkpoint, file_digest_like};
use pipe_trainer::lint_mode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

mod overlooked;
mod program;
mod writing;

use super::artifacts::{
    CHECKPOINT, CheckpointFile, CheckpointPreview, Checkpoints, ProgramPreview,
    checkpoint_reference,
};
use super::{class_names, lint, lint_selection};
use crate::architecture::Architectures;
use crate::checkpoint::base_beside;
use crate::lora::HEADER_KEY;

/// Copies a checkpoint to a fixed place.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CopyBestSettings {
    /// The stage whose checkpoint is copied: any that makes checkpoints.
    #[schemars(example = &"base")]
    from: String,
    /// Which checkpoint: `best`, `last`, or `{epoch: N}`.
    #[serde(default)]
    select: Select,
    /// Of the checkpoints that stand, the best by this metric, in the place of the training's
    /// `monitor`. They must have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"val_loss")]
    by: Option<String>,
    /// Whether a lower or a higher value of `by` is better; `min` if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<Mode>,
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
    /// Put LoRA's weights into those of their base model: the file is a whole model then, without
    /// the optimizer's state. A checkpoint of a whole model is copied as it is.
    #[serde(default, skip_serializing_if = "is_false")]
    merge: bool,
}

fn is_false(flag: &bool) -> bool {
    !flag
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

pub struct CopyBestKind(pub Architectures);

impl StageKind for CopyBestKind {
    fn name(&self) -> &'static str {
        "copy_best"
    }

    fn makes(&self) -> ArtifactType {
        CHECKPOINT
    }

    fn schema(&self) -> schemars::Schema {
        schemars::schema_for!(CopyBestSettings)
    }

    fn resolve(&self, settings: &Figment) -> Result<Arc<dyn Stage>, Rejection> {
        let settings: CopyBestSettings = settings.extract()?;
        inside_project(&settings.to).map_err(|message| Rejection::value("to", message))?;
        let links = settings.merge && !settings.link.is_default();
        Rejection::unless("link", !links, "`none`: a merged model is a file of its own")?;
        let CopyBestSettings { by, mode, select, .. } = &settings;
        let is_named = by.as_ref().is_none_or(|name| !name.trim().is_empty());
        Rejection::unless("by", is_named, "the name of a metric")?;
        let is_free = by.is_none() || *select == Select::Best;
        Rejection::unless("by", is_free, "no `select` beside it: it chooses the best by a metric")?;
        Rejection::unless("mode", by.is_some() || mode.is_none(), "`by` beside it, a metric")?;
        Ok(Arc::new(CopyBest { settings, architectures: self.0.clone() }))
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
    architectures: Architectures,
}

impl Stage for CopyBest {
    fn settings(&self) -> Value {
        serde_json::to_value(&self.settings).unwrap_or_default()
    }

    fn references(&self) -> Vec<Reference> {
        vec![checkpoint_reference("from", &self.settings.from)]
    }

    fn preview(&self, pipeline: &PipelineView) -> Option<Preview> {
        let from = &self.settings.from;
        let Some(source) = pipeline.preview::<CheckpointPreview>(from) else {
            return pipeline.preview::<ProgramPreview>(from).map(|program| program as Preview);
        };
        let is_adapter = if self.settings.merge { Some(false) } else { source.is_adapter };
        Some(Arc::new(CheckpointPreview { is_adapter, saved: None, ..(*source).clone() }))
    }

    fn lint(&self, pipeline: &PipelineView) -> Vec<Diagnostic> {
        let CopyBestSettings { from, select, merge, .. } = &self.settings;
        let epoch = if let Select::Epoch(epoch) = select { Some(*epoch) } else { None };
        let mut found = lint::check_source("from", from, epoch, pipeline);
        if *merge {
            found.extend(lint::check_is_readable("from", from, pipeline));
        }
        let source = pipeline.preview::<CheckpointPreview>(from);
        if *merge && source.is_some_and(|source| source.is_adapter == Some(false)) {
            let message = format!("`{from}` makes whole models: there is nothing to merge");
            found.push(Diagnostic::warning("merge", message));
        }
        if let Some(metric) = &self.settings.by {
            found.extend(self.check_metric(metric, pipeline));
        }
        found
    }

    fn files(&self) -> Files {
        let CopyBestSettings { to, merge, .. } = &self.settings;
        let base = (!merge).then(|| base_beside(to));
        let writes = std::iter::once(to.clone()).chain(base);
        Files { reads: Vec::new(), writes: writes.map(|path| ("to".to_owned(), path)).collect() }
    }

    fn inspect(&self, o: &InspectContext) -> Result<Inspection, StageError> {
        Ok(self.inspect_copy(o)?.with_prospect(class_names::of_source(o, "from")))
    }

    fn run(&self, context: &RunContext) -> Result<Outcome, StageError> {
        let Some(from) = context.inputs.get("from").and_then(|a| a.get::<Checkpoints>()) else {
            return Err(StageError::setting(format!(
                "stage {} has no checkpoint",
                self.settings.from
            ))
            .at("from"));
        };
        let source = self.selected(&from)?;
        if let Some(by) = &self.settings.by {
            overlooked::tell(context, &from, &source, (by, self.mode()));
        }
        let file = Checkpoint::open(&source.path).and_then(|file| file.verify().map(|()| file));
        let file = file.map_err(|e| not_copied(e.to_string()))?;
        // The run's record, if an older program wrote it, has a digest for which the file is read
        // once more.
        if file.head_digest() != source.digest
            && file_digest_like(&source.path, &source.digest).ok().as_ref() != Some(&source.digest)
        {
            let message =
                format!("{} is not the file that its run recorded", source.path.display());
            return Err(not_copied(message));
        }
        let digest = if is_adapter(&file) && self.settings.merge {
            self.write_merged(context, &file, &source)?
        } else {
            self.write_copies(context, &file, &source)?
        };
        let path = self.settings.to.display();
        let of_run = from.run().map(|run| format!(" of run {}", run.number));
        let summary = format!("epoch {}{}: {path}", source.epoch, of_run.unwrap_or_default());
        let copy = CheckpointFile { path: context.root.join(&self.settings.to), digest, ..source };
        Ok(Outcome { artifact: Some(Checkpoints::File(copy).artifact()), summary, next: None })
    }
}

/// Whether it holds LoRA's weights alone.
fn is_adapter(file: &Checkpoint) -> bool {
    file.header().extra.contains_key(HEADER_KEY)
}

fn not_copied(why: String) -> StageError {
    StageError::new(Failure::Input, format!("failed to copy: {why}"))
}

impl CopyBest {
    fn inspect_copy(&self, o: &InspectContext) -> Result<Inspection, StageError> {
        let target = o.root.join(&self.settings.to);
        let Some(from) = o.inputs.get("from").and_then(|a| a.get::<Checkpoints>()) else {
            // What the training will bring is not known yet.
            let state = if o.made.is_some_and(|made| self.is_in_place(made)) && target.exists() {
                StageState::Done { reason: "up to date".into() }
            } else {
                StageState::absent(format!("not copied yet{}", self.target_taken(o, None)))
            };
            return Ok(state.into());
        };
        let source = self.selected(&from)?;
        let made = o.made.filter(|made| self.is_in_place(made) && self.is_made_from(made, &source));
        let standing: Option<Vec<Output>> =
            made.and_then(|m| m.outputs.iter().map(|output| o.if_unchanged(output)).collect());
        let to = self.settings.to.display().to_string();
        let names =
            made.map(|made| made.outputs.iter().map(|output| output.path.clone()).collect());
        let names: Vec<String> = names.unwrap_or_else(|| vec![to.clone()]);
        let gone = names.iter().find(|name| !o.root.join(name).exists());
        let state = match (gone, made, o.made) {
            (_, None, Some(before))
                if Self::is_merged(before) != self.settings.merge || !self.is_in_place(before) =>
            {
                StageState::changed(o.changes_since(&before.manifest))
            }
            (Some(gone), ..) => {
                StageState::absent(format!("{gone} is not there{}", self.cost(&source)))
            }
            (None, Some(_), _) if standing.is_some() => {
                StageState::Done { reason: format!("up to date, epoch {}", source.epoch) }
            }
            (None, None, Some(_)) => {
                let (epoch, cost) = (source.epoch, self.cost(&source));
                StageState::absent(format!(
                    "another checkpoint is selected now, epoch {epoch}{cost}"
                ))
            }
            (None, Some(_), _) => {
                let no_write = if self.settings.overwrite { "" } else { ", and is left alone" };
                StageState::absent(format!("{to} has another content{no_write}"))
            }
            (None, None, None) => {
                let taken = self.target_taken(o, Some(&source.digest));
                StageState::absent(format!("not copied yet{taken}{}", self.cost(&source)))
            }
        };
        if let (Some(made), Some(outputs)) = (made, standing) {
            o.confirm(Outputs { outputs, ..made.clone() });
        }
        // What a merge brings is known once it was made.
        let digest = match made.and_then(|made| made.outputs.first()) {
            Some(output) => Some(output.digest.clone()),
            None => (!self.settings.merge).then(|| source.digest.clone()),
        };
        let copy = digest.map(|digest| CheckpointFile { path: target, digest, ..source });
        let artifact = copy.map(|copy| Checkpoints::File(copy).artifact());
        Ok(Inspection::new(state, artifact))
    }

    /// Whether it is of this checkpoint, by the same settings: a copy has its digest, and a merged
    /// model was made by reading it.
    fn is_made_from(&self, made: &Outputs, source: &CheckpointFile) -> bool {
        let of = made.inputs.first().or_else(|| made.outputs.first());
        Self::is_merged(made) == self.settings.merge
            && of.is_some_and(|file| file.digest == source.digest)
    }

    /// Whether it was made where it is wanted now.
    fn is_in_place(&self, made: &Outputs) -> bool {
        let copy = made.outputs.first();
        copy.is_none_or(|output| Path::new(&output.path) == self.settings.to)
    }

    /// Whether it was made with `merge: true`.
    fn is_merged(made: &Outputs) -> bool {
        made.manifest.get("merge").and_then(Value::as_bool).unwrap_or(false)
    }

    /// Whether the checkpoints can have the metric by which one of them is chosen.
    fn check_metric(&self, metric: &str, pipeline: &PipelineView) -> Vec<Diagnostic> {
        let from = &self.settings.from;
        let judge = metric.split_once('.').map(|(stage, _)| stage);
        if let Some(judge) = judge.filter(|stage| !pipeline.members(stage).is_empty()) {
            let message = format!(
                "it chooses among the checkpoints of `{from}` by a metric of their own, and `{judge}` is a stage"
            );
            let note = format!(
                "among stages that are judged by another one `{{kind: select_best, over: {from}, by: {metric}}}` chooses"
            );
            return vec![Diagnostic::error("by", message).note(note)];
        }
        let over = std::slice::from_ref(from);
        let mut found = lint_selection::check_metric("by", metric, over, pipeline);
        found.extend(lint_mode("by", metric, self.mode()));
        found
    }

    /// Of all that stand the best by a metric; the earlier one of equals.
    fn best_by(&self, metric: &str, from: &Checkpoints) -> Result<CheckpointFile, StageError> {
        let all: Vec<CheckpointFile> =
            from.epochs().into_iter().filter_map(|epoch| from.of_epoch(epoch)).collect();
        let best =
            self.mode().best(all.iter().map(|file| (file, file.metrics.get(metric).copied())));
        let found = best.map(|(best, _)| best.clone());
        found.ok_or_else(|| {
            let known = all.iter().flat_map(|file| file.metrics.keys().map(String::as_str));
            let whoever = format!("{} has", self.whose(from));
            let missing = metric::find(metric, known, &whoever).err();
            let missing = missing.unwrap_or_else(|| format!("{whoever} no finite {metric}"));
            StageError::setting(missing).at("by")
        })
    }

    /// Whether a lower or a higher value of `by` is better.
    fn mode(&self) -> Mode {
        self.settings.mode.unwrap_or(Mode::Min)
    }

    /// Whose checkpoints they are, for messages.
    fn whose(&self, from: &Checkpoints) -> String {
        match from.run() {
            Some(run) => format!("run {}", run.number),
            None => format!("stage {}", self.settings.from),
        }
    }

    fn selected(&self, from: &Checkpoints) -> Result<CheckpointFile, StageError> {
        if let Some(metric) = &self.settings.by {
            return self.best_by(metric, from);
        }
        let found = match self.settings.select {
            Select::Best => from.best(),
            Select::Last => from.last(),
            Select::Epoch(epoch) => from.of_epoch(epoch),
        };
        found.ok_or_else(|| {
            let epochs: Vec<String> = from.epochs().iter().map(u64::to_string).collect();
            let there = if epochs.is_empty() {
                "it has none".to_owned()
            } else {
                format!("it has those of epochs {}", epochs.join(", "))
            };
            let whose = self.whose(from);
            StageError::setting(format!("{whose} has no such checkpoint; {there}")).at("select")
        })
    }
}

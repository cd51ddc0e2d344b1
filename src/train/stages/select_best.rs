//! `kind: select_best`: of several stages that make checkpoints, such as those of a matrix, the best
//! one.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use figment::Figment;
use pipe_core::progress::Event;
use pipe_engine::kind::{
    Artifact, ArtifactType, Diagnostic, InspectContext, Inspection, Outcome, PipelineView, Preview,
    Reference, Rejection, RunContext, Stage, StageError, StageKind, StageState,
};
use pipe_runs::Checkpoint;
use pipe_runs::policy::{MONITORS, Mode};
use schemars::JsonSchema;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::artifacts::{
    CHECKPOINT, CheckpointFile, CheckpointPreview, Checkpoints, ModelPreview, ProgramPreview,
    checkpoint_reference,
};
use super::lint;
use super::training::sample_command;

/// Hands on the best of several stages' checkpoints, by a metric of the best one of each.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SelectBestSettings {
    /// The stages to choose from, all that make checkpoints: one with a `matrix`, or a list.
    #[schemars(example = &"base")]
    #[schemars(example = vec!["base", "lora"])]
    over: Over,
    /// The metric that decides: `train_loss` or `val_loss`.
    #[serde(default = "train_loss")]
    monitor: String,
    /// Whether a lower or a higher value is better.
    #[serde(default = "lower")]
    mode: Mode,
}

/// Names of stages: one, or a list.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(untagged)]
enum Over {
    One(String),
    Several(Vec<String>),
}

impl Over {
    fn names(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Several(names) => names,
        }
    }
}

impl<'de> Deserialize<'de> for Over {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;

        impl<'de> Visitor<'de> for Written {
            type Value = Over;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a stage's name or a list of names")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Over, E> {
                Ok(Over::One(name.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Over, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = items.next_element()? {
                    names.push(name);
                }
                Ok(Over::Several(names))
            }
        }

        deserializer.deserialize_any(Written)
    }
}

fn train_loss() -> String {
    "train_loss".into()
}

fn lower() -> Mode {
    Mode::Min
}

pub struct SelectBestKind;

impl StageKind for SelectBestKind {
    fn name(&self) -> &'static str {
        "select_best"
    }

    fn makes(&self) -> ArtifactType {
        CHECKPOINT
    }

    fn schema(&self) -> schemars::Schema {
        schemars::schema_for!(SelectBestSettings)
    }

    fn resolve(&self, settings: &Figment) -> Result<Arc<dyn Stage>, Rejection> {
        let settings: SelectBestSettings = settings.extract()?;
        let known = MONITORS.contains(&settings.monitor.as_str());
        let names = settings.over.names();
        Rejection::unless("over", !names.is_empty(), "at least one stage")?;
        Rejection::unless("monitor", known, "`train_loss` or `val_loss`")?;
        Ok(Arc::new(SelectBest { settings }))
    }
}

struct SelectBest {
    settings: SelectBestSettings,
}

impl Stage for SelectBest {
    fn settings(&self) -> Value {
        serde_json::to_value(&self.settings).unwrap_or_default()
    }

    fn references(&self) -> Vec<Reference> {
        let of = |name: &String| Reference {
            many: true,
            passes_over_failed: true,
            ..checkpoint_reference("over", name)
        };
        self.settings.over.names().iter().map(of).collect()
    }

    /// What all of them have in common; the rest is that of the first one.
    fn preview(&self, pipeline: &PipelineView) -> Option<Preview> {
        let over = self.settings.over.names().iter();
        let all: Vec<Arc<CheckpointPreview>> = over
            .flat_map(|name| pipeline.each_preview::<CheckpointPreview>(name))
            .map(|(_, preview)| preview)
            .collect();
        if all.is_empty() {
            let mut over = self.settings.over.names().iter();
            let program = over.find_map(|name| pipeline.preview::<ProgramPreview>(name));
            return program.map(|program| program as Preview);
        }
        let model = all.first()?.model.clone().map(|first| ModelPreview {
            classes: agreed(all.iter().map(|p| p.model.as_ref().and_then(|m| m.classes))),
            ..first
        });
        Some(Arc::new(CheckpointPreview {
            model,
            is_adapter: agreed(all.iter().map(|p| p.is_adapter)),
            is_validated: agreed(all.iter().map(|p| p.is_validated)),
            saved: None,
        }))
    }

    fn lint(&self, pipeline: &PipelineView) -> Vec<Diagnostic> {
        lint::check_selection(self.settings.over.names(), &self.settings.monitor, pipeline)
    }

    fn inspect(&self, o: &InspectContext) -> Result<Inspection, StageError> {
        if !o.unknown.is_empty() {
            return Ok(StageState::absent("what it chooses from is not trained yet").into());
        }
        let Some(made) = o.made else { return Ok(StageState::absent("not chosen yet").into()) };
        let changes = o.changes_since(&made.manifest);
        if !changes.is_empty() {
            return Ok(StageState::changed(changes).into());
        }
        let (name, chosen, value) = self.choose(o.inputs.iter())?;
        let reason = format!("up to date, {name} with {} {value:.4}", self.settings.monitor);
        Ok(Inspection { state: StageState::Done { reason }, artifact: Some(chosen.clone()) })
    }

    fn run(&self, context: &RunContext) -> Result<Outcome, StageError> {
        for text in self.passed_over(&context.inputs) {
            context.event(Event::Warning { text });
        }
        let (name, chosen, value) = self.choose(context.inputs.iter())?;
        context.record_outputs(Vec::new(), Vec::new(), Vec::new())?;
        let summary = format!("{name}, {} {value:.4}", self.settings.monitor);
        context.event(Event::Message { text: format!("Selected {summary}") });
        let own = Checkpoints::best_of(chosen)
            .filter(|best| Checkpoint::open(&best.path).is_ok_and(|file| !file.is_of_program()));
        let next = own.map(|CheckpointFile { path, .. }| {
            let shown: &Path = path.strip_prefix(&context.root).unwrap_or(&path);
            sample_command(&shown.to_string_lossy())
        });
        Ok(Outcome { artifact: Some(chosen.clone()), summary, next })
    }
}

/// What all of them are, if they are the same.
fn agreed<T: PartialEq>(mut all: impl Iterator<Item = Option<T>>) -> Option<T> {
    let first = all.next()??;
    all.all(|other| other.as_ref() == Some(&first)).then_some(first)
}

/// The metric of the best checkpoint that a stage hands on, where that is a number.
fn best_metric(artifact: &Artifact, monitor: &str) -> Option<f64> {
    let best = Checkpoints::best_of(artifact)?;
    best.metrics.get(monitor).copied().filter(|value| value.is_finite())
}

impl SelectBest {
    /// A word about each stage that cannot be chosen, where others can.
    fn passed_over(&self, inputs: &BTreeMap<String, Artifact>) -> Vec<String> {
        let monitor = &self.settings.monitor;
        let without = inputs.iter().filter(|(_, made)| best_metric(made, monitor).is_none());
        let word = |name: &str| {
            format!("{name} is passed over: its best checkpoint has no finite {monitor}")
        };
        without.map(|(name, _)| word(name.strip_prefix("over.").unwrap_or(name))).collect()
    }

    /// What is chosen, with the name of its stage and its metric. Of equals the first by name.
    fn choose<'a>(
        &self,
        inputs: impl Iterator<Item = (&'a String, &'a Artifact)>,
    ) -> Result<(&'a str, &'a Artifact, f64), StageError> {
        let SelectBestSettings { over, monitor, mode } = &self.settings;
        let mut best: Option<(&str, &Artifact, f64)> = None;
        for (name, artifact) in inputs {
            let Some(value) = best_metric(artifact, monitor) else { continue };
            if best.as_ref().is_none_or(|(_, _, old)| mode.is_better(value, *old)) {
                best = Some((name.strip_prefix("over.").unwrap_or(name), artifact, value));
            }
        }
        best.ok_or_else(|| {
            let over = over.names().join(", ");
            StageError::setting(format!(
                "monitor: no checkpoint of {over} has a {monitor}; val_loss needs a data set with val_split"
            ))
        })
    }
}

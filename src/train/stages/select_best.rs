//! `kind: select_best`: of several stages that make checkpoints, such as those of a matrix, the best
//! one.

mod judges;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use figment::Figment;
use pipe_core::number_text;
use pipe_core::progress::Event;
use pipe_engine::graph::Graph;
use pipe_engine::kind::{
    Artifact, ArtifactType, DependencyMode, Diagnostic, InspectContext, Inspection, Metrics,
    Outcome, PipelineView, Preview, Reference, Rejection, RunContext, Stage, StageError, StageId,
    StageKind, StageState,
};
use pipe_runs::Checkpoint;
use pipe_runs::policy::{Mode, metric};
use pipe_trainer::lint_mode;
use schemars::JsonSchema;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::artifacts::{
    CHECKPOINT, CheckpointFile, CheckpointPreview, Checkpoints, ModelPreview, ProgramPreview,
    checkpoint_reference,
};
use super::training::sample_command;
use super::{class_names, lint, lint_selection};

/// Hands on the best of several stages' checkpoints, by a metric of the best one of each.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SelectBestSettings {
    /// The stages to choose from, all that make checkpoints: one with a `matrix`, or a list.
    #[schemars(example = &"base")]
    #[schemars(example = vec!["base", "lora"])]
    over: Over,
    /// The metric that decides: one that the best checkpoint of each stage has, or `STAGE.METRIC`
    /// for one that another stage found out about it, such as a `command` with `metrics`. The
    /// checkpoint of one stage of a matrix is judged by the stage with the same values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-instead-of" = "monitor"))]
    #[schemars(example = &"val_loss")]
    #[schemars(example = &"quality.fid")]
    by: Option<String>,
    /// The metric of the checkpoints that decides, whatever its name; `train_loss` if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    monitor: Option<String>,
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
        let mut settings: SelectBestSettings = settings.extract()?;
        Rejection::unless("over", !settings.over.names().is_empty(), "at least one stage")?;
        let both = settings.by.is_some() && settings.monitor.is_some();
        Rejection::unless("by", !both, "`by` or `monitor`, and not both: they mean the same")?;
        let key = if settings.by.is_some() { "by" } else { "monitor" };
        let (judge, metric) = match (&settings.by, &settings.monitor) {
            (Some(by), _) => named(by),
            (None, Some(metric)) => (None, metric.clone()),
            (None, None) => (None, "train_loss".to_owned()),
        };
        Rejection::unless(key, !metric.trim().is_empty(), "the name of a metric")?;
        if judge.is_none() {
            // Said in either way it is the same choice.
            settings.by = None;
            settings.monitor = Some(metric.clone());
        }
        Ok(Arc::new(SelectBest { settings, key, judge, metric }))
    }
}

/// `STAGE.METRIC` apart, or a metric alone. The name of a stage of a matrix may hold dots.
fn named(by: &str) -> (Option<String>, String) {
    let parts = if by.contains('@') { by.rsplit_once('.') } else { by.split_once('.') };
    match parts {
        Some((stage, metric)) => (Some(stage.to_owned()), metric.to_owned()),
        None => (None, by.to_owned()),
    }
}

struct SelectBest {
    settings: SelectBestSettings,
    /// The setting that names the metric.
    key: &'static str,
    /// The stage whose metrics decide, in the place of the checkpoints' own.
    judge: Option<String>,
    metric: String,
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
        let judge = self.judge.iter().map(|stage| Reference {
            many: true,
            passes_over_failed: true,
            ..Reference::of_type(ArtifactType::METRICS, "by", stage, DependencyMode::Content)
        });
        self.settings.over.names().iter().map(of).chain(judge).collect()
    }

    /// Which metric of the stage named in `by`; the stage counts by what it found out.
    fn derived(&self) -> BTreeMap<String, Value> {
        let metric = || ("by".to_owned(), Value::String(self.metric.clone()));
        self.judge.iter().map(|_| metric()).collect()
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
            class_names: agreed(all.iter().map(|p| p.model.as_ref()?.class_names.clone())),
            ..first
        });
        Some(Arc::new(CheckpointPreview {
            model,
            is_adapter: agreed(all.iter().map(|p| p.is_adapter)),
            metrics: agreed(all.iter().map(|p| p.metrics.clone())),
            saved: None,
        }))
    }

    fn lint(&self, pipeline: &PipelineView) -> Vec<Diagnostic> {
        let Self { key, judge, metric, .. } = self;
        let SelectBestSettings { over, mode, .. } = &self.settings;
        let mut found = match judge {
            None => lint_selection::check_metric(key, metric, over.names(), pipeline),
            Some(judge) => {
                let over = over.names().iter().flat_map(|stage| pipeline.members(stage)).collect();
                let judges = pipeline.members(judge).into_iter().collect();
                let unpaired = judges::pair(&over, &judges).err();
                let unpaired = unpaired.map(|e| Diagnostic::error(*key, e.message).note(e.note));
                unpaired
                    .or_else(|| lint_selection::check_judged_metric(key, metric, judge, pipeline))
                    .into_iter()
                    .collect()
            }
        };
        let names = over.names().iter();
        if found.is_empty() {
            found.extend(names.flat_map(|stage| lint::check_source("over", stage, None, pipeline)));
        }
        found.extend(lint_mode(key, metric, *mode));
        found
    }

    fn inspect(&self, o: &InspectContext) -> Result<Inspection, StageError> {
        if !o.unknown.is_empty() {
            let is_trained = o.unknown.iter().all(|input| input.starts_with("by."));
            let reason = if is_trained {
                "the metrics that it chooses by are not there yet"
            } else {
                "what it chooses from is not trained yet"
            };
            let found = Inspection::from(StageState::absent(reason));
            return Ok(found.with_prospect(class_names::of_any(o, "over.")));
        }
        let Some(made) = o.made else { return Ok(StageState::absent("not chosen yet").into()) };
        let changes = o.changes_since(&made.manifest);
        if !changes.is_empty() {
            return Ok(StageState::changed(changes).into());
        }
        let candidates = self.candidates(o.graph, o.stage, o.inputs)?;
        let (chosen, value) = self.best(&candidates)?;
        let value = number_text::short(value);
        let reason = format!("up to date, {} with {} {value}", chosen.name, self.shown());
        let artifact = Some(chosen.artifact.clone());
        Ok(Inspection::new(StageState::Done { reason }, artifact))
    }

    fn run(&self, context: &RunContext) -> Result<Outcome, StageError> {
        let candidates = self.candidates(context.graph, &context.stage, &context.inputs)?;
        let (chosen, value) = self.best(&candidates)?;
        for text in candidates.iter().filter_map(|candidate| self.passed_over(candidate)) {
            context.event(Event::Warning { text });
        }
        context.record_outputs(Vec::new(), Vec::new(), Vec::new())?;
        let value = number_text::short(value);
        let summary = format!("{}, {} {value}", chosen.name, self.shown());
        context.event(Event::Message { text: format!("Selected {summary}") });
        let own = Checkpoints::best_of(chosen.artifact)
            .filter(|best| Checkpoint::open(&best.path).is_ok_and(|file| !file.is_of_program()));
        let next = own.map(|CheckpointFile { path, .. }| {
            let shown: &Path = path.strip_prefix(&context.root).unwrap_or(&path);
            sample_command(&shown.to_string_lossy())
        });
        Ok(Outcome { artifact: Some(chosen.artifact.clone()), summary, next })
    }
}

/// What all of them are, if they are the same.
fn agreed<T: PartialEq>(mut all: impl Iterator<Item = Option<T>>) -> Option<T> {
    let first = all.next()??;
    all.all(|other| other.as_ref() == Some(&first)).then_some(first)
}

/// A stage that can be chosen.
struct Candidate<'a> {
    name: &'a str,
    artifact: &'a Artifact,
    /// The stage that judges it, if it is not judged by its checkpoint's own metrics.
    judge: Option<&'a str>,
    metrics: BTreeMap<String, f64>,
}

impl Candidate<'_> {
    /// A metric, where that is a number.
    fn value(&self, metric: &str) -> Option<f64> {
        self.metrics.get(metric).copied().filter(|value| value.is_finite())
    }
}

impl SelectBest {
    /// The metric as it is written in the file.
    fn shown(&self) -> String {
        match &self.judge {
            Some(judge) => format!("{judge}.{}", self.metric),
            None => self.metric.clone(),
        }
    }

    /// All that there is to choose from, by the stages' names.
    fn candidates<'a>(
        &self,
        graph: &'a Graph,
        stage: &StageId,
        inputs: &'a BTreeMap<String, Artifact>,
    ) -> Result<Vec<Candidate<'a>>, StageError> {
        let all = graph.stage(stage).map_or(&[][..], |stage| &stage.inputs);
        let named = |key: &str| -> BTreeSet<&'a str> {
            all.iter().filter_map(|input| input.name.strip_prefix(key)).collect()
        };
        let judges = match &self.judge {
            Some(_) => judges::pair(&named("over."), &named("by."))
                .map_err(|e| StageError::setting(format!("{}; {}", e.message, e.note)).at("by"))?,
            None => BTreeMap::new(),
        };
        let candidate = |(name, artifact): (&'a String, &'a Artifact)| {
            let name = name.strip_prefix("over.")?;
            let judge = judges.get(name).copied();
            let metrics = match judge {
                Some(judge) => inputs
                    .get(&format!("by.{judge}"))
                    .and_then(|artifact| artifact.get::<Metrics>())
                    .map(|metrics| metrics.0.clone()),
                None => Checkpoints::best_of(artifact).map(|best| best.metrics),
            };
            Some(Candidate { name, artifact, judge, metrics: metrics.unwrap_or_default() })
        };
        Ok(inputs.iter().filter_map(candidate).collect())
    }

    /// What is chosen, with its metric. Of equals the first by name.
    fn best<'c, 'a>(
        &self,
        candidates: &'c [Candidate<'a>],
    ) -> Result<(&'c Candidate<'a>, f64), StageError> {
        let judged = candidates.iter().map(|candidate| (candidate, candidate.value(&self.metric)));
        let best = self.settings.mode.best(judged);
        best.ok_or_else(|| {
            let over = self.settings.over.names().join(", ");
            let whoever = match &self.judge {
                Some(judge) => format!("stage {judge} has"),
                None => format!("the best checkpoint of {over} has"),
            };
            let known = candidates.iter().flat_map(|one| one.metrics.keys().map(String::as_str));
            let found = metric::find(&self.metric, known, &whoever);
            let missing =
                found.err().unwrap_or_else(|| format!("{whoever} no finite {}", self.metric));
            StageError::setting(missing).at(self.key)
        })
    }

    /// A word about a stage that cannot be chosen.
    fn passed_over(&self, candidate: &Candidate) -> Option<String> {
        let Self { metric, .. } = self;
        if candidate.value(metric).is_some() {
            return None;
        }
        let whose = match candidate.judge {
            Some(judge) => format!("{judge} has no {metric}"),
            None => format!("its best checkpoint has no finite {metric}"),
        };
        Some(format!("{} is passed over: {whose}", candidate.name))
    }
}

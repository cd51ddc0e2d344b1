//! `kind: select_best`: of several trainings, such as those of a matrix, the best one.

use std::collections::BTreeMap;
use std::sync::Arc;

use figment::Figment;
use pipe_core::progress::Event;
use pipe_engine::kind::{
    Artifact, DependencyMode, Diagnostic, InspectContext, Inspection, Outcome, PipelineView,
    Reference, Rejection, RunContext, Stage, StageError, StageKind, StageState,
};
use pipe_runs::policy::{MONITORS, Mode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::artifacts::TrainedRun;
use super::lint;
use super::training::sample_command;

/// Takes the best of several trainings on, by a metric of the best checkpoint of each.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SelectBestSettings {
    /// The `train` or `lora` stage with a `matrix`.
    #[schemars(example = &"base")]
    over: String,
    /// The metric that decides: `train_loss` or `val_loss`.
    #[serde(default = "train_loss")]
    monitor: String,
    /// Whether a lower or a higher value is better.
    #[serde(default = "lower")]
    mode: Mode,
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

    fn schema(&self) -> schemars::Schema {
        schemars::schema_for!(SelectBestSettings)
    }

    fn resolve(&self, settings: &Figment) -> Result<Arc<dyn Stage>, Rejection> {
        let settings: SelectBestSettings = settings.extract()?;
        let known = MONITORS.contains(&settings.monitor.as_str());
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
        let over =
            Reference::to("over", &self.settings.over, &["train", "lora"], DependencyMode::Content);
        vec![Reference { many: true, passes_over_failed: true, ..over }]
    }

    fn lint(&self, pipeline: &PipelineView) -> Vec<Diagnostic> {
        lint::check_selection(&self.settings.over, &self.settings.monitor, pipeline)
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
        let (name, run, value) = self.choose(o.inputs.iter())?;
        let reason = format!("up to date, {name} with {} {value:.4}", self.settings.monitor);
        let artifact = Some((*run).clone().artifact());
        Ok(Inspection { state: StageState::Done { reason }, artifact })
    }

    fn run(&self, context: &RunContext) -> Result<Outcome, StageError> {
        for text in self.passed_over(&context.inputs) {
            context.event(Event::Warning { text });
        }
        let (name, run, value) = self.choose(context.inputs.iter())?;
        context.record_outputs(Vec::new(), Vec::new(), Vec::new())?;
        let summary = format!("{name}, {} {value:.4}", self.settings.monitor);
        context.event(Event::Message { text: format!("Selected {summary}") });
        let file = run.best().map(|best| run.file(best).path);
        let next = file.map(|file| {
            sample_command(&file.strip_prefix(&context.root).unwrap_or(&file).to_string_lossy())
        });
        Ok(Outcome { artifact: Some((*run).clone().artifact()), summary, next })
    }
}

/// The metric of a training's best checkpoint, where that is a number.
fn best_metric(run: &TrainedRun, monitor: &str) -> Option<f64> {
    run.best()?.metrics.get(monitor).copied().filter(|value| value.is_finite())
}

impl SelectBest {
    /// A word about each training that cannot be chosen, where others can.
    fn passed_over(&self, inputs: &BTreeMap<String, Artifact>) -> Vec<String> {
        let monitor = &self.settings.monitor;
        let has_none = |artifact: &Artifact| {
            artifact.get::<TrainedRun>().is_some_and(|run| best_metric(&run, monitor).is_none())
        };
        let without = inputs.iter().filter(|(_, artifact)| has_none(artifact));
        let word = |name: &str| {
            format!("{name} is passed over: its best checkpoint has no finite {monitor}")
        };
        without.map(|(name, _)| word(name.strip_prefix("over.").unwrap_or(name))).collect()
    }

    /// The best training, its stage, and its metric. Of equals the first by name.
    fn choose<'a>(
        &self,
        inputs: impl Iterator<Item = (&'a String, &'a Artifact)>,
    ) -> Result<(&'a str, Arc<TrainedRun>, f64), StageError> {
        let SelectBestSettings { over, monitor, mode } = &self.settings;
        let mut best: Option<(&str, Arc<TrainedRun>, f64)> = None;
        for (name, artifact) in inputs {
            let Some(run) = artifact.get::<TrainedRun>() else { continue };
            let Some(value) = best_metric(&run, monitor) else { continue };
            if best.as_ref().is_none_or(|(_, _, old)| mode.is_better(value, *old)) {
                best = Some((name.strip_prefix("over.").unwrap_or(name), run, value));
            }
        }
        best.ok_or_else(|| {
            StageError::setting(format!(
                "monitor: no checkpoint of {over} has a {monitor}; val_loss needs a data set with val_split"
            ))
        })
    }
}

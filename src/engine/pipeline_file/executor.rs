//! `executor:` of a pipeline file: where stages run, and what their jobs get unless they say
//! otherwise.

use std::time::Duration;

use pipe_core::error::{Gathered, SpecError};
use pipe_core::ids::StageId;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::pipeline_file::layers::{Layer, Origin, StageLayers};
use crate::pipeline_file::params::{Names, filled_value};
use crate::pipeline_file::pipeline::PipelineFile;
use crate::pipeline_file::values::error_at;
use crate::pipeline_file::words::describe;
use crate::policy::{Slurm, Span};
use crate::source::Part;

/// Where the stages of a pipeline run.
#[derive(Debug, Clone, PartialEq)]
pub struct ExecutorSettings {
    pub kind: ExecutorKind,
    /// Longest time between two looks at the jobs.
    pub poll: Duration,
    /// What a stage's job gets where the stage itself does not say.
    pub slurm: Slurm,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExecutorKind {
    /// In this process, on this machine.
    #[default]
    Local,
    /// Each stage as a job of Slurm.
    Slurm,
}

/// The keys that are not those of a job.
const OWN: [&str; 2] = ["kind", "poll"];
const POLL: Duration = Duration::from_secs(10);

impl Default for ExecutorSettings {
    fn default() -> Self {
        Self { kind: ExecutorKind::default(), poll: POLL, slurm: Slurm::default() }
    }
}

/// The block as a mapping: `executor: slurm` is `{kind: slurm}`.
pub(super) fn as_block(value: Value) -> Value {
    match value {
        Value::String(kind) => json!({ "kind": kind }),
        other => other,
    }
}

/// What `executor:` says, with what the environment and the command line say on top. What is wrong
/// is told and left out.
pub(super) fn read(
    file: &PipelineFile,
    names: Names,
    over: Vec<Layer>,
    errors: &mut Gathered,
) -> ExecutorSettings {
    let base = vec!["executor".to_owned()];
    let mut layers = Vec::new();
    if let Some(written) = &file.executor {
        let filled = filled_value(&file.source, &base, written, names);
        match errors.take(filled).map(as_block) {
            Some(Value::Object(values)) => {
                // `executor: slurm` has no key of its own to point at.
                let kind = || ("kind".to_owned(), file.source.clone(), base.clone());
                let moved = if written.is_string() { vec![kind()] } else { Vec::new() };
                let origin =
                    Origin::File { source: file.source.clone(), base: base.clone(), moved };
                layers.push(Layer { origin, values });
            }
            Some(other) => {
                let message =
                    format!("expected `local`, `slurm` or a mapping, found {}", describe(&other));
                errors.push(error_at(&file.source, &["executor"], Part::Value, message));
            }
            None => {}
        }
    }
    layers.extend(over);
    let Some(stage) = StageId::new("executor") else { return ExecutorSettings::default() };
    let mut layers = StageLayers { stage, pipeline: file.source.clone(), layers };
    read_layers(&mut layers).unwrap_or_else(|error| {
        errors.push(error);
        ExecutorSettings::default()
    })
}

fn read_layers(layers: &mut StageLayers) -> Result<ExecutorSettings, SpecError> {
    let known = keys();
    for key in layers.layers.iter().flat_map(|layer| layer.values.keys()) {
        if !known.contains(key) {
            let error = layers.error_on(std::slice::from_ref(key), Part::Key, "unknown key".into());
            return Err(error.candidates(key, known.iter().map(String::as_str)));
        }
    }
    #[derive(Deserialize)]
    #[serde(default)]
    struct Own {
        kind: ExecutorKind,
        poll: Span,
    }
    impl Default for Own {
        fn default() -> Self {
            Self { kind: ExecutorKind::default(), poll: Span(POLL) }
        }
    }
    let own = |key: &str| OWN.contains(&key);
    let read = layers.typed(own, |settings| Ok(settings.extract()?));
    let Own { kind, poll } = read.map_err(|rejection| layers.explain(rejection))?;
    if poll.0 < Duration::from_secs(1) {
        return Err(layers.error_at(&["poll".to_owned()], "expected a second or more"));
    }
    let read = layers.typed(|key| !own(key), |settings| Ok(settings.extract()?));
    let slurm: Slurm = read.map_err(|rejection| layers.explain(rejection))?;
    if let Some((key, message)) = slurm.wrong() {
        return Err(layers.error_at(&[key.to_owned()], message));
    }
    Ok(ExecutorSettings { kind, poll: poll.0, slurm })
}

/// The keys of the block, those of a job last.
pub(super) fn keys() -> Vec<String> {
    let schema = schemars::schema_for!(Slurm);
    let of_jobs =
        schema.get("properties").and_then(Value::as_object).map(|p| p.keys().cloned().collect());
    OWN.into_iter().map(str::to_owned).chain(of_jobs.unwrap_or_else(Vec::new)).collect()
}

/// The block's properties for the schema of pipeline files.
pub(crate) fn properties(of_jobs: Map<String, Value>) -> Map<String, Value> {
    let mut all = Map::new();
    all.insert(
        "kind".into(),
        json!({"enum": ["local", "slurm"], "default": "local", "description": "where stages run; `--executor` is stronger"}),
    );
    all.insert(
        "poll".into(),
        json!({"type": "string", "default": "10s", "description": "longest time between two looks at the jobs"}),
    );
    all.extend(of_jobs);
    all
}

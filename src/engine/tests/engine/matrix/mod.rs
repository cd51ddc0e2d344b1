//! All that `matrix:` can be, as people write it.

mod errors;
mod product;
mod random;

use std::path::Path;
use std::sync::Arc;

use figment::Figment;
use pipe_engine::graph::Graph;
use pipe_engine::kind::*;
use pipe_engine::pipeline_file::{self, LoadedStage};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fake::{Project, kinds};

/// A kind whose stages have a seed.
struct Seeded;

#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default = "default_seed")]
    seed: u64,
    #[serde(default)]
    optimizer: Optimizer,
    #[serde(default)]
    rate: f64,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Optimizer {
    name: String,
    decay: f64,
    betas: Vec<f64>,
}

fn default_seed() -> u64 {
    42
}

impl StageKind for Seeded {
    fn name(&self) -> &'static str {
        "seeded"
    }

    fn schema(&self) -> schemars::Schema {
        schemars::schema_for!(Settings)
    }

    fn resolve(&self, settings: &Figment) -> Result<Arc<dyn Stage>, Rejection> {
        Ok(Arc::new(SeededStage(settings.extract()?)))
    }
}

struct SeededStage(Settings);

impl Stage for SeededStage {
    fn settings(&self) -> Value {
        serde_json::to_value(&self.0).unwrap()
    }

    fn references(&self) -> Vec<Reference> {
        Vec::new()
    }

    fn inspect(&self, _: &InspectContext) -> Result<Inspection, StageError> {
        Ok(StageState::Transient.into())
    }

    fn run(&self, _: &RunContext) -> Result<Outcome, StageError> {
        Ok(Outcome { artifact: None, summary: "done".into(), next: None })
    }
}

fn project(matrix: &str) -> Project {
    Project::new(&format!("name: x\nstages:\n  base:\n    kind: seeded\n    matrix: {matrix}\n"))
}

fn load(project: &Project) -> Result<Graph, String> {
    let kinds: Vec<Arc<dyn StageKind>> =
        kinds().into_iter().chain([Arc::new(Seeded) as Arc<dyn StageKind>]).collect();
    let path = Path::new("p.yaml");
    let loaded = pipeline_file::load(project.folder.path(), path, &kinds, &project.sets);
    loaded.and_then(Graph::build).map_err(|errors| errors.to_string())
}

/// The members of `base`, in order, with their settings.
#[track_caller]
fn members(project: &Project) -> Vec<(String, Value)> {
    let graph = load(project).unwrap_or_else(|e| panic!("{e}"));
    let all = graph.pipeline.stages.iter().filter(|stage| stage.id.declared() == "base");
    let one = |stage: &LoadedStage| {
        (stage.id.as_str().trim_start_matches("base@").to_owned(), stage.stage.settings())
    };
    all.map(one).collect()
}

#[track_caller]
fn names(matrix: &str) -> Vec<String> {
    members(&project(matrix)).into_iter().map(|(name, _)| name).collect()
}

#[track_caller]
fn refused(project: Project) -> String {
    match load(&project) {
        Ok(_) => panic!("accepted"),
        Err(error) => error,
    }
}

#[track_caller]
fn error(matrix: &str) -> String {
    refused(project(matrix))
}

#[track_caller]
fn marks(matrix: &str, marked: &str, said: &str) {
    let error = error(matrix);
    let column = format!("    matrix: {matrix}").find(marked).unwrap() + 1;
    let firsts: Vec<&str> = error.lines().filter(|l| l.starts_with("p.yaml:")).collect();
    assert_eq!(firsts, [format!("p.yaml:5:{column}: {said}")], "{error}");
}

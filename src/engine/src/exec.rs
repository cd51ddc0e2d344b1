//! Carries a plan out, stage by stage, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Instant;

use crate::graph::Graph;
use crate::identity::Manifest;
use crate::kind::{Artifact, Failure, Observer, Outcome, Request, RunContext, StageError, StageId, State};
use crate::plan::{Action, Plan};
use crate::progress::{Event, Report};
use crate::stop::Stop;

/// Everything a run needs besides the plan.
pub struct Execution<'a> {
    pub root: &'a Path,
    pub graph: &'a Graph,
    pub manifests: &'a BTreeMap<StageId, Manifest>,
    pub request: Request,
    /// Go on with stages that do not depend on a failed one.
    pub keep_going: bool,
    pub stop: &'a Stop,
    pub report: &'a dyn Report,
}

/// How each stage of a plan ended.
#[derive(Debug, Default)]
pub struct Summary {
    pub finished: Vec<(StageId, String)>,
    pub skipped: Vec<StageId>,
    pub failed: Vec<(StageId, StageError)>,
    /// Never begun: something before them failed, or the run was stopped.
    pub not_begun: Vec<StageId>,
}

/// Asks every selected stage how far it is.
pub fn observe(
    execution: &Execution,
    selected: &BTreeSet<StageId>,
) -> Result<BTreeMap<StageId, State>, (StageId, StageError)> {
    let mut states = BTreeMap::new();
    for stage in execution.graph.stages().filter(|s| selected.contains(&s.id)) {
        let manifest = execution.manifests.get(&stage.id);
        let identity = manifest.map(Manifest::digest).unwrap_or_default();
        let observer = Observer {
            root: execution.root,
            stage: &stage.id,
            identity: &identity,
            manifest: &manifest.map(Manifest::record).unwrap_or_default(),
            request: &execution.request,
        };
        let state = stage.stage.observe(&observer).map_err(|error| (stage.id.clone(), error))?;
        states.insert(stage.id.clone(), state);
    }
    Ok(states)
}

/// Runs the plan's stages in order. Never panics for a stage's panic: that is reported as a bug of the stage.
pub fn execute(execution: &Execution, plan: &Plan) -> Summary {
    let mut summary = Summary::default();
    let mut artifacts: BTreeMap<StageId, Artifact> = BTreeMap::new();
    let mut broken: BTreeSet<StageId> = BTreeSet::new();
    for step in &plan.steps {
        let Some(stage) = execution.graph.stage(&step.stage) else { continue };
        let depends_on_broken =
            execution.graph.dependencies(&stage.id).iter().any(|(_, d)| broken.contains(&d.id));
        let halted = !summary.failed.is_empty() && !execution.keep_going;
        if depends_on_broken || halted || execution.stop.requested().is_some() {
            broken.insert(stage.id.clone());
            summary.not_begun.push(stage.id.clone());
            continue;
        }
        if step.action == Action::Skip {
            execution.report.event(&stage.id, &Event::Skipped { reason: step.reason.clone() });
            summary.skipped.push(stage.id.clone());
            continue;
        }
        execution.report.event(
            &stage.id,
            &Event::Started { action: step.action.to_string(), reason: step.reason.clone() },
        );
        let started = Instant::now();
        match run_stage(execution, stage.id.clone(), &artifacts) {
            Ok(outcome) => {
                let seconds = started.elapsed().as_secs_f64();
                execution
                    .report
                    .event(&stage.id, &Event::Finished { summary: outcome.summary.clone(), seconds });
                if let Some(artifact) = outcome.artifact {
                    artifacts.insert(stage.id.clone(), artifact);
                }
                summary.finished.push((stage.id.clone(), outcome.summary));
            }
            Err(error) => {
                execution.report.event(&stage.id, &Event::Failed { message: error.message.clone() });
                broken.insert(stage.id.clone());
                summary.failed.push((stage.id.clone(), error));
            }
        }
    }
    summary
}

fn run_stage(
    execution: &Execution,
    id: StageId,
    artifacts: &BTreeMap<StageId, Artifact>,
) -> Result<Outcome, StageError> {
    let graph = execution.graph;
    let Some(stage) = graph.stage(&id) else {
        return Err(StageError::new(Failure::Bug, format!("stage {id} is not in the graph")));
    };
    let mut inputs = BTreeMap::new();
    for reference in stage.stage.references() {
        let target = StageId::new(&reference.stage);
        if let Some(artifact) = target.and_then(|t| artifacts.get(&t)) {
            inputs.insert(reference.key, artifact.clone());
        }
    }
    let context = RunContext {
        root: execution.root.to_owned(),
        pipeline: graph.pipeline.name.clone(),
        identity: execution.manifests.get(&id).map(Manifest::digest).unwrap_or_default(),
        manifest: execution.manifests.get(&id).map(Manifest::record).unwrap_or_default(),
        resolved: resolved(graph, &id),
        request: execution.request.clone(),
        stage: id.clone(),
        inputs,
        stop: execution.stop,
        report: execution.report,
    };
    catch_unwind(AssertUnwindSafe(|| stage.stage.run(&context))).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Err(StageError::new(Failure::Bug, format!("stage {id} broke off by a bug in this program: {text}")))
    })
}

/// A pipeline file that says all about one stage and those it needs, without parameters, policies or layers.
fn resolved(graph: &Graph, id: &StageId) -> String {
    let selected = graph.select(&[id.to_string()]).unwrap_or_default();
    let mut stages = serde_yaml::Mapping::new();
    for stage in graph.stages().filter(|s| selected.contains(&s.id)) {
        let mut body = serde_yaml::Mapping::new();
        body.insert("kind".into(), stage.kind.clone().into());
        if let Ok(serde_yaml::Value::Mapping(settings)) = serde_yaml::to_value(stage.stage.settings()) {
            body.extend(settings);
        }
        stages.insert(stage.id.to_string().into(), body.into());
    }
    let mut file = serde_yaml::Mapping::new();
    file.insert("name".into(), graph.pipeline.name.clone().into());
    file.insert("stages".into(), stages.into());
    serde_yaml::to_string(&file).unwrap_or_default()
}

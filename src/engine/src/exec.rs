//! Carries a plan out, stage by stage, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Instant;

use crate::graph::Graph;
use crate::identity::{self, Manifest};
use crate::kind::{
    Artifact, Failure, Observation, Observer, Outcome, Reference, Request, RunContext, StageError, StageId,
    State,
};
use crate::plan::{self, Action, Plan, Step};
use crate::progress::{Event, Report};
use crate::spec::LoadedStage;
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
) -> Result<BTreeMap<StageId, Observation>, (StageId, StageError)> {
    let mut observed = BTreeMap::new();
    let mut artifacts = BTreeMap::new();
    for stage in execution.graph.stages().filter(|s| selected.contains(&s.id)) {
        let observation =
            observe_stage(execution, stage, &artifacts).map_err(|error| (stage.id.clone(), error))?;
        if let Some(artifact) = &observation.artifact {
            artifacts.insert(stage.id.clone(), artifact.clone());
        }
        observed.insert(stage.id.clone(), observation);
    }
    Ok(observed)
}

fn observe_stage(
    execution: &Execution,
    stage: &LoadedStage,
    artifacts: &BTreeMap<StageId, Artifact>,
) -> Result<Observation, StageError> {
    let inputs = inputs(stage, artifacts);
    let (manifest, unknown) = manifest(execution, stage, &inputs);
    stage.stage.observe(&Observer {
        root: execution.root,
        pipeline: &execution.graph.pipeline.name,
        stage: &stage.id,
        identity: &manifest.digest(),
        manifest: &manifest.record(),
        unknown: &unknown,
        inputs: &inputs,
        request: &execution.request,
    })
}

/// What the stages that `stage` refers to hand on, by the setting's key.
fn inputs(stage: &LoadedStage, artifacts: &BTreeMap<StageId, Artifact>) -> BTreeMap<&'static str, Artifact> {
    let artifact = |reference: Reference| {
        let artifact = artifacts.get(&StageId::new(&reference.stage)?)?;
        Some((reference.key, artifact.clone()))
    };
    stage.stage.references().into_iter().filter_map(artifact).collect()
}

fn manifest(
    execution: &Execution,
    stage: &LoadedStage,
    inputs: &BTreeMap<&'static str, Artifact>,
) -> (Manifest, Vec<String>) {
    let manifest = execution.manifests.get(&stage.id).cloned().unwrap_or_default();
    identity::complete(manifest, stage, inputs)
}

/// Runs the plan's stages in order. Never panics for a stage's panic: that is reported as a bug of the stage.
pub fn execute(execution: &Execution, plan: &Plan, observed: BTreeMap<StageId, Observation>) -> Summary {
    let mut run = Run { execution, summary: Summary::default(), artifacts: BTreeMap::new() };
    let transient: BTreeSet<StageId> = observed
        .iter()
        .filter(|(_, o)| matches!(o.state, State::Transient))
        .map(|(id, _)| id.clone())
        .collect();
    let planned: BTreeMap<&StageId, &Action> = plan.steps.iter().map(|s| (&s.stage, &s.action)).collect();
    let skipped = |id: &StageId| planned.get(id) == Some(&&Action::Skip);
    for (id, observation) in observed {
        // What runs hands on something newer.
        if let Some(artifact) = observation.artifact.filter(|_| skipped(&id)) {
            run.artifacts.insert(id, artifact);
        }
    }
    let mut broken: BTreeSet<StageId> = BTreeSet::new();
    let mut wanted: BTreeMap<&StageId, &Step> = BTreeMap::new();
    for step in &plan.steps {
        let Some(stage) = execution.graph.stage(&step.stage) else { continue };
        let id = &stage.id;
        let is_needed = || execution.graph.dependents(id).iter().any(|d| planned.contains_key(&d.id));
        if transient.contains(id) && step.action != Action::Skip && is_needed() {
            // Begun when a stage that needs it begins: that one may turn out to be up to date.
            wanted.insert(id, step);
            continue;
        }
        let dependencies = execution.graph.dependencies(id);
        let is_broken = |broken: &BTreeSet<StageId>| dependencies.iter().any(|(_, d)| broken.contains(&d.id));
        let halted = |run: &Run| {
            (!run.summary.failed.is_empty() && !execution.keep_going) || execution.stop.requested().is_some()
        };
        if is_broken(&broken) || halted(&run) {
            broken.insert(id.clone());
            run.summary.not_begun.push(id.clone());
            continue;
        }
        let unsure = dependencies.iter().any(|(_, d)| !skipped(&d.id) && !transient.contains(&d.id));
        match run.settle(stage, step, unsure) {
            Ok((Action::Skip, reason)) => run.skip(id, reason),
            Ok((action, reason)) => {
                for (_, dependency) in &dependencies {
                    if let Some(step) = wanted.remove(&dependency.id)
                        && !run.begin(dependency, &step.action, &step.reason)
                    {
                        broken.insert(dependency.id.clone());
                    }
                }
                if is_broken(&broken) || execution.stop.requested().is_some() {
                    broken.insert(id.clone());
                    run.summary.not_begun.push(id.clone());
                } else if !run.begin(stage, &action, &reason) {
                    broken.insert(id.clone());
                }
            }
            Err(error) => {
                run.fail(id, error);
                broken.insert(id.clone());
            }
        }
    }
    for id in wanted.into_keys() {
        match run.summary.failed.is_empty() && execution.stop.requested().is_none() {
            true => run.skip(id, "nothing that ran needed it".to_owned()),
            false => run.summary.not_begun.push(id.clone()),
        }
    }
    run.summary
}

/// A plan that is being carried out.
struct Run<'a> {
    execution: &'a Execution<'a>,
    summary: Summary,
    /// What the stages that are up to date by now hand on.
    artifacts: BTreeMap<StageId, Artifact>,
}

impl Run<'_> {
    /// What to do now for a stage, which the plan could not be sure of if it wanted to run one before it.
    fn settle(
        &mut self,
        stage: &LoadedStage,
        step: &Step,
        unsure: bool,
    ) -> Result<(Action, String), StageError> {
        if step.action == Action::Skip || !unsure {
            return Ok((step.action.clone(), step.reason.clone()));
        }
        let observation = observe_stage(self.execution, stage, &self.artifacts)?;
        let decision = plan::decide(&observation.state);
        if let (Action::Skip, Some(artifact)) = (&decision.0, observation.artifact) {
            self.artifacts.insert(stage.id.clone(), artifact);
        }
        Ok(decision)
    }

    fn skip(&mut self, id: &StageId, reason: String) {
        self.execution.report.event(id, &Event::Skipped { reason });
        self.summary.skipped.push(id.clone());
    }

    fn fail(&mut self, id: &StageId, error: StageError) {
        self.execution.report.event(id, &Event::Failed { message: error.message.clone() });
        self.summary.failed.push((id.clone(), error));
    }

    /// Runs a stage; `false` if it failed.
    fn begin(&mut self, stage: &LoadedStage, action: &Action, reason: &str) -> bool {
        let report = self.execution.report;
        let event = Event::Started { action: action.to_string(), reason: reason.to_owned() };
        report.event(&stage.id, &event);
        let started = Instant::now();
        match run_stage(self.execution, stage, &self.artifacts) {
            Ok(outcome) => {
                let seconds = started.elapsed().as_secs_f64();
                report.event(&stage.id, &Event::Finished { summary: outcome.summary.clone(), seconds });
                if let Some(artifact) = outcome.artifact {
                    self.artifacts.insert(stage.id.clone(), artifact);
                }
                self.summary.finished.push((stage.id.clone(), outcome.summary));
                true
            }
            Err(error) => {
                self.fail(&stage.id, error);
                false
            }
        }
    }
}

fn run_stage(
    execution: &Execution,
    stage: &LoadedStage,
    artifacts: &BTreeMap<StageId, Artifact>,
) -> Result<Outcome, StageError> {
    let (graph, id) = (execution.graph, &stage.id);
    let inputs = inputs(stage, artifacts);
    let (manifest, _) = manifest(execution, stage, &inputs);
    let context = RunContext {
        root: execution.root.to_owned(),
        pipeline: graph.pipeline.name.clone(),
        identity: manifest.digest(),
        manifest: manifest.record(),
        resolved: resolved(graph, id),
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

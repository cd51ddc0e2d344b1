//! A plan as jobs of Slurm, from the first submission to the last end.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use pipe_core::ids::StageId;
use pipe_core::progress::Event;

use super::cluster::{Cluster, SlurmError};
use super::follow::{JobMonitor, follow};
use super::script::Invocation;
use super::submit::{Submission, submit};
use super::tail::last_lines;
use crate::exec::execution::{Execution, InspectedStage, Summary, inspect};
use crate::exec::executor::{Executor, ExecutorError};
use crate::graph::{LoadedStage, Selection};
use crate::plan::{self, Action, Plan};
use crate::state::{Job, Jobs};

/// Lines of a log that an error repeats.
const TAIL: usize = 10;

/// Each stage that is to run as a job, which runs this same program for that stage.
pub struct SlurmExecutor<'a> {
    pub cluster: &'a dyn Cluster,
    /// How the jobs call this program.
    pub invocation: Invocation,
    /// The jobs are not waited for.
    pub detach: bool,
}

impl Executor for SlurmExecutor<'_> {
    /// The jobs of a halving are those of one rung at a time: when they have ended, those are
    /// submitted that go on.
    fn run(
        &self,
        execution: &Execution,
        plan: &Plan,
        inspected: HashMap<StageId, InspectedStage>,
    ) -> Result<Summary, ExecutorError> {
        if !plan.steps.iter().any(|step| is_open(inspected.get(&step.stage))) {
            return self.run_jobs(execution, plan, &inspected);
        }
        if self.detach {
            return Err(SlurmError::Asked(NOT_DETACHED.to_owned()).into());
        }
        let selected: HashSet<StageId> = plan.steps.iter().map(|s| s.stage.clone()).collect();
        let selection = Selection { stages: selected, named: BTreeSet::new() };
        let mut whole = Summary::default();
        let (mut execution, mut plan, mut inspected) = (
            Execution {
                forced: execution.forced.clone(),
                carried: carried(&inspected),
                ..execution.again()
            },
            plan.clone(),
            inspected,
        );
        loop {
            let rest = held_back(&execution, &mut plan, &inspected);
            let part = self.run_jobs(&execution, &plan, &inspected)?;
            let is_idle = part.finished.is_empty() && part.failed.is_empty();
            execution.given_up.extend(part.failed.iter().map(|(stage, _)| stage.clone()));
            add(&mut whole, part);
            if rest.is_empty() && !plan.steps.iter().any(|step| is_open(inspected.get(&step.stage)))
            {
                return Ok(whole);
            }
            if is_idle || execution.stop.requested().is_some() {
                whole.not_begun.extend(rest);
                return Ok(whole);
            }
            execution = Execution { carried: BTreeMap::new(), ..execution.again() };
            inspected = inspect(&execution, &selection.stages).map_err(|(stage, error)| {
                SlurmError::Asked(format!("stage {stage}: {}", error.message))
            })?;
            plan = plan::plan(execution.graph, &selection, &BTreeSet::new(), &inspected);
            plan.steps.retain(|step| !execution.given_up.contains(&step.stage));
            execution.carried = carried(&inspected);
        }
    }
}

/// Why a halving needs somebody who waits.
const NOT_DETACHED: &str = "a halving needs a process that decides at each rung who goes on: leave `--detach` out, or run \
                            it inside one job with `--executor local`";

/// Whether a stage may go on from its rung.
fn is_open(found: Option<&InspectedStage>) -> bool {
    found.and_then(|found| found.round.as_ref()).is_some_and(|round| !round.course.is_final)
}

/// How far each stage of a halving is carried now.
fn carried(found: &HashMap<StageId, InspectedStage>) -> BTreeMap<StageId, u64> {
    let until = |found: &InspectedStage| Some(found.round.as_ref()?.until);
    found.iter().filter_map(|(id, found)| Some((id.clone(), until(found)?))).collect()
}

/// Takes the stages out of a plan that wait for those that may go on, or for those that failed.
fn held_back(
    execution: &Execution,
    plan: &mut Plan,
    found: &HashMap<StageId, InspectedStage>,
) -> Vec<StageId> {
    let mut held: Vec<StageId> = Vec::new();
    for step in &plan.steps {
        let waits = |(_, before): &(&str, &LoadedStage)| {
            held.contains(&before.id)
                || execution.given_up.contains(&before.id)
                || is_open(found.get(&before.id))
        };
        let before = execution.graph.dependencies(&step.stage);
        if step.action != Action::Skip && before.iter().any(waits) {
            held.push(step.stage.clone());
        }
    }
    plan.steps.retain(|step| !held.contains(&step.stage));
    held
}

/// Adds what a further rung came to.
fn add(whole: &mut Summary, part: Summary) {
    let Summary { finished, skipped, failed, not_begun, submitted } = part;
    let again: Vec<&StageId> = finished.iter().map(|(id, _)| id).collect();
    whole.finished.retain(|(id, _)| !again.contains(&id));
    whole.skipped.extend(skipped);
    whole.finished.extend(finished);
    let ran: Vec<StageId> = whole.finished.iter().map(|(id, _)| id.clone()).collect();
    whole.skipped.retain(|id| !ran.contains(id));
    whole.skipped.sort_unstable();
    whole.skipped.dedup();
    whole.failed.extend(failed);
    whole.not_begun.extend(not_begun);
    whole.submitted.extend(submitted);
}

impl SlurmExecutor<'_> {
    /// The stages of a plan as jobs, to their end.
    fn run_jobs(
        &self,
        execution: &Execution,
        plan: &Plan,
        inspected: &HashMap<StageId, InspectedStage>,
    ) -> Result<Summary, ExecutorError> {
        let submissions = submit(self.cluster, execution, plan, inspected, &self.invocation)?;
        for Submission { stage, job, new, .. } in &submissions {
            let word = if *new { "submitted as" } else { "has" };
            let text = format!("{word} job {}", job.id);
            execution.report.event(&stage.id, &Event::Message { text });
        }
        if self.detach && !submissions.is_empty() {
            let submitted = submissions.iter().map(|s| (s.stage.id.clone(), s.job.id)).collect();
            return Ok(Summary { submitted, ..Summary::default() });
        }
        let poll = execution.graph.pipeline.executor.poll;
        let monitor = JobMonitor { cluster: self.cluster, execution, poll };
        let mut summary = follow(&monitor, submissions)?;
        let jobs = Jobs::load(execution.root, &execution.graph.pipeline.name);
        for (stage, error) in &mut summary.failed {
            if let Some(job) = jobs.get(stage) {
                error.message.push_str(&end_of_log(execution.root, job));
            }
        }
        let skipped = plan.steps.iter().filter(|step| step.action == Action::Skip);
        summary.skipped.splice(..0, skipped.map(|step| step.stage.clone()));
        Ok(summary)
    }
}

fn end_of_log(root: &Path, job: &Job) -> String {
    match last_lines(&root.join(&job.log), TAIL) {
        Ok(lines) => {
            let lines: String = lines.iter().map(|line| format!("\n  | {line}")).collect();
            format!("{lines}\n  = the whole log: {}", job.log)
        }
        Err(_) => format!(
            "\n  = it left no log at {}; is the project's folder on a file system that the nodes share?",
            job.log
        ),
    }
}

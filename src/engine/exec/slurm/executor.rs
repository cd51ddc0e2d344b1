//! A plan as jobs of Slurm, from the first submission to the last end.

use std::collections::HashMap;
use std::path::Path;

use pipe_core::ids::StageId;
use pipe_core::progress::Event;

use super::cluster::{Cluster, SlurmError};
use super::follow::{JobMonitor, follow};
use super::script::Invocation;
use super::submit::{Submission, submit};
use super::tail::last_lines;
use crate::exec::execution::{Execution, InspectedStage, Summary};
use crate::exec::executor::{Executor, ExecutorError};
use crate::plan::{Action, Plan};
use crate::state::{Job, Jobs};

/// Which stages of a halving go on, one process decides.
fn refuse_halving(execution: &Execution, plan: &Plan) -> Result<(), SlurmError> {
    let steps = plan.steps.iter().filter(|step| step.action != Action::Skip);
    let mut stages = steps.filter_map(|step| execution.graph.stage(&step.stage));
    let Some(stage) = stages.find(|stage| stage.options.halving.is_some()) else { return Ok(()) };
    let name = stage.id.declared();
    Err(SlurmError::Asked(format!(
        "stage `{name}` is halved, and which of its members go on one process decides: run the pipeline inside one job \
         with `--executor local`, or leave the halving out with `--set {name}.halving=null`"
    )))
}

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
    fn run(
        &self,
        execution: &Execution,
        plan: &Plan,
        inspected: HashMap<StageId, InspectedStage>,
    ) -> Result<Summary, ExecutorError> {
        refuse_halving(execution, plan)?;
        let submissions = submit(self.cluster, execution, plan, &inspected, &self.invocation)?;
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

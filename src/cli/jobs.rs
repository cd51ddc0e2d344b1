//! Jobs of Slurm: submitting and following those of `pipe run`, finding those of a pipeline file.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use pipe_core::error::SpecError;
use pipe_core::progress::Event;
use pipe_core::shell::CommandLine;
use pipe_core::stop::Signal;
use pipe_engine::exec::slurm::{
    self, Cluster, Invocation, JobMonitor, Slurm, Submission, last_lines,
};
use pipe_engine::exec::{Execution, InspectedStage, Summary};
use pipe_engine::kind::StageId;
use pipe_engine::pipeline_file::PipelineFile;
use pipe_engine::plan::Plan;
use pipe_engine::source;
use pipe_engine::state::{Job, Jobs};

use super::pipeline_args::{LoadedPipeline, PipelineArgs};
use super::{CliError, project};
use crate::report::stage_status::JobStatus;

/// Lines of a log that an error repeats.
const TAIL: usize = 10;

/// What a signal means to a process that follows jobs.
pub fn signal_message(signal: Signal, file: &Path) -> String {
    let cancel = CommandLine::new(["pipe", "cancel"]).path(file);
    match signal {
        Signal::Interrupt => {
            "cancelling the jobs; those that run save first (Ctrl-C again to stop at once)"
                .to_owned()
        }
        _ => format!("the jobs go on; the same command follows them again, `{cancel}` ends them"),
    }
}

/// The jobs of a pipeline file's stages, or of those that were named; a name of a matrix means all
/// its stages.
pub fn of(file: &Path, stages: &[String]) -> Result<Vec<(StageId, Job)>, CliError> {
    project::enter(Some(file))?;
    let (root, file) = (project::root()?, project::path(file));
    let name = PipelineFile::parse(source::read(&root.join(&file), &file)?)?.name;
    let jobs = Jobs::load(&root, &name);
    for named in stages {
        if !jobs.iter().any(|(stage, _)| stage.as_str() == named || stage.declared() == named) {
            let known = jobs.iter().map(|(stage, _)| stage.as_str());
            let error = SpecError::plain(format!("no job was submitted for stage `{named}`"));
            return Err(error.candidates(named, known).into());
        }
    }
    let is_selected = |stage: &StageId| {
        stages.is_empty()
            || stages.iter().any(|named| stage.as_str() == named || stage.declared() == named)
    };
    Ok(jobs
        .iter()
        .filter(|(stage, _)| is_selected(stage))
        .map(|(stage, job)| (stage.clone(), job.clone()))
        .collect())
}

/// Submits what the plan would run.
pub fn submit<'a>(
    args: &PipelineArgs,
    loaded: &LoadedPipeline,
    execution: &'a Execution,
    plan: &Plan,
    observed: &HashMap<StageId, InspectedStage>,
) -> Result<Vec<Submission<'a>>, CliError> {
    let program = std::env::current_exe()
        .map_err(|e| CliError::failed(format!("failed to find this program's own file: {e}")))?;
    let cancel = CommandLine::new(["pipe", "cancel"]).path(&args.selection.file);
    let call = Invocation { program, file: loaded.file.clone(), settings: args.settings(), cancel };
    let submitted =
        slurm::submit(&Slurm, execution, plan, observed, &call).map_err(CliError::failed)?;
    for Submission { stage, job, new, .. } in &submitted {
        let word = if *new { "submitted as" } else { "has" };
        execution
            .report
            .event(&stage.id, &Event::Message { text: format!("{word} job {}", job.id) });
    }
    Ok(submitted)
}

/// Follows jobs to their end. What went wrong is told with the end of the stage's log.
pub fn follow(
    loaded: &LoadedPipeline,
    execution: &Execution,
    submitted: Vec<Submission>,
) -> Result<Summary, CliError> {
    let poll = loaded.session.graph.pipeline.executor.poll;
    let following = JobMonitor { cluster: &Slurm, execution, poll };
    let mut summary = slurm::follow(&following, submitted).map_err(CliError::failed)?;
    let jobs = Jobs::load(&loaded.session.root, &loaded.session.graph.pipeline.name);
    for (stage, error) in &mut summary.failed {
        if let Some(job) = jobs.get(stage) {
            error.message.push_str(&end_of_log(&loaded.session.root, job));
        }
    }
    Ok(summary)
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

/// The last job of each stage that has one. Slurm is asked about those whose end is not known.
pub fn job_statuses(root: &Path, pipeline: &str) -> BTreeMap<StageId, JobStatus> {
    let jobs = Jobs::load(root, pipeline);
    let open = jobs.iter().filter(|(_, job)| job.ended.is_none()).map(|(_, job)| job.id).collect();
    let states = Slurm.states(&open).unwrap_or_else(|error| {
        crate::report::message::warning(&error.to_string());
        Default::default()
    });
    jobs.iter()
        .map(|(stage, job)| (stage.clone(), JobStatus::new(job, states.get(&job.id))))
        .collect()
}

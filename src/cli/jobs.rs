//! Jobs of Slurm: how `pipe run` makes them, and which ones a pipeline file has.

use std::collections::BTreeMap;
use std::path::Path;

use pipe_core::error::SpecError;
use pipe_core::shell::CommandLine;
use pipe_core::stop::Signal;
use pipe_engine::exec::slurm::{Cluster, Invocation, Slurm, SlurmExecutor};
use pipe_engine::kind::StageId;
use pipe_engine::pipeline_file::PipelineFile;
use pipe_engine::source;
use pipe_engine::state::{Job, Jobs};

use super::pipeline_args::{PipelineArgs, PipelineSession};
use super::{CliError, project};
use crate::report::stage_status::JobStatus;

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

/// What makes jobs of stages that are to run.
pub fn executor(
    args: &PipelineArgs,
    loaded: &PipelineSession,
    detach: bool,
) -> Result<SlurmExecutor<'static>, CliError> {
    let program = std::env::current_exe()
        .map_err(|e| CliError::failed(format!("failed to find this program's own file: {e}")))?;
    let cancel = CommandLine::new(["pipe", "cancel"]).path(&args.selection.file);
    let invocation =
        Invocation { program, file: loaded.file.clone(), settings: args.settings(), cancel };
    Ok(SlurmExecutor { cluster: &Slurm, invocation, detach })
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

//! Within a job of Slurm: what it was told when it was submitted, and how it ends. The arguments
//! are not for people to type.

use std::collections::HashMap;

use chrono::Utc;
use pipe_core::progress::NullListener;
use pipe_core::stop::{Signal, Stop};
use pipe_engine::exec::slurm::{AfterStop, CurrentJob, Slurm, after_stop};
use pipe_engine::exec::{self, Execution, InspectedStage, Summary};
use pipe_engine::kind::{StageId, StageState};
use pipe_engine::plan::{Action, Plan, Step};
use pipe_engine::state::{JobId, Record};

use super::pipeline_args::PipelineSession;
use super::{CliError, ExitCode};
use crate::report::stderr;

/// What a job is held to.
#[derive(clap::Args)]
pub struct JobArguments {
    /// Run this stage and nothing else
    #[arg(long, hide = true, value_name = "STAGE", requires = "planned")]
    pub only: Option<String>,
    /// Digest of the settings that the job was submitted with
    #[arg(long, hide = true, value_name = "DIGEST")]
    planned: Option<String>,
}

impl JobArguments {
    /// Whether an earlier process of the same job began with the stage.
    pub fn was_started(&self, loaded: &PipelineSession) -> bool {
        let record =
            self.only.as_deref().and_then(|_| loaded.session.selection.named.first()).and_then(
                |only| {
                    Record::load(&loaded.session.root, &loaded.session.graph.pipeline.name, only)
                },
            );
        record.is_some_and(|record| record.job.is_some() && record.job == self.job())
    }

    /// The job that this process is.
    pub fn job(&self) -> Option<JobId> {
        self.only.as_ref().and(CurrentJob::find()).map(|inside| inside.0)
    }

    /// Within a job, how its stage stands before it runs, once it is sure that the job does what
    /// it was submitted for.
    pub fn begin(
        &self,
        loaded: &PipelineSession,
        execution: &Execution,
        plan: &Plan,
        inspected: &HashMap<StageId, InspectedStage>,
    ) -> Result<Option<StageState>, CliError> {
        let Some(only) = &self.only else { return Ok(None) };
        self.verify_submission(loaded, execution, plan, inspected)?;
        Ok(inspected.get(only.as_str()).map(|found| found.inspection.state.clone()))
    }

    /// Makes sure that a job does what it was submitted for and nothing else.
    fn verify_submission(
        &self,
        loaded: &PipelineSession,
        execution: &Execution,
        plan: &Plan,
        observed: &HashMap<StageId, InspectedStage>,
    ) -> Result<(), CliError> {
        let Some(only) =
            loaded.session.selection.named.first().and_then(|id| loaded.session.graph.stage(id))
        else {
            return Ok(());
        };
        if self.planned.as_deref().is_some_and(|then| then != exec::planned(execution, only)) {
            return Err(CliError::usage(format!(
                "stage {}: its settings are not those that this job was submitted with; submit it anew",
                only.id
            )));
        }
        // What keeps nothing is made ready again wherever it is needed.
        let kept =
            |step: &&Step| !observed.get(&step.stage).is_some_and(InspectedStage::is_transient);
        let mut others =
            plan.steps.iter().filter(|step| step.stage != only.id && step.action != Action::Skip);
        match others.find(kept) {
            Some(step) => Err(CliError::usage(format!(
                "stage {}: stage {} is not up to date ({}); submit it anew",
                only.id, step.stage, step.reason
            ))),
            None => Ok(()),
        }
    }
}

/// How a job ends that was told to stop: requeued if that is of use.
pub fn end_stopped(
    loaded: &PipelineSession,
    signal: Signal,
    before: &StageState,
    summary: &Summary,
) -> Result<ExitCode, CliError> {
    if summary.failed.is_empty() && summary.not_begun.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let saved = ExitCode::from(signal.exit_code());
    let (Some(CurrentJob(job)), Some(only)) =
        (CurrentJob::find(), loaded.session.selection.named.first())
    else {
        return Ok(saved);
    };
    let quiet = Stop::default();
    let execution = loaded.session.execution(&quiet, &NullListener);
    let after = exec::inspect(&execution, &loaded.session.selection.stages)
        .ok()
        .and_then(|mut all| all.remove(only));
    let begun = summary.failed.iter().any(|(stage, _)| stage == only);
    let stage = after.as_ref().filter(|_| begun).map(|after| (before, &after.inspection.state));
    let limit = loaded
        .session
        .graph
        .stage(only)
        .map(|stage| stage.options.slurm.signal_before())
        .unwrap_or_default();
    let details = Slurm.details(job).map_err(CliError::failed)?;
    match after_stop(&details, stage, limit, Utc::now()) {
        AfterStop::Requeue => {
            stderr::line(format!("job {job} is requeued and goes on from there"));
            stderr::flush();
            Slurm.requeue(job).map_err(|error| {
                CliError::failed(error)
                    .note("what was saved stays; the same command goes on from there")
            })?;
            Ok(saved)
        }
        AfterStop::Fail(why) => Err(CliError::failed(format!("stage {only}: {why}"))),
        AfterStop::Leave(why) => {
            stderr::line(format!("job {job} is left to Slurm: {why}"));
            Ok(saved)
        }
    }
}

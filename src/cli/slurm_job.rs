//! Within a job of Slurm: what it was told when it was submitted, and how it ends. The arguments
//! are not for people to type.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use pipe_core::progress::NullListener;
use pipe_core::stop::{Signal, Stop};
use pipe_engine::exec::slurm::{AfterStop, Cluster, CurrentJob, JobState, Slurm, after_stop};
use pipe_engine::exec::{self, Execution, InspectedStage, RunsElsewhere, Summary};
use pipe_engine::graph::Graph;
use pipe_engine::kind::{Failure, StageId, StageState};
use pipe_engine::pipeline_file::LoadedStage;
use pipe_engine::plan::{Action, Plan, Step};
use pipe_engine::policy::{Moment, Until};
use pipe_engine::state::{JobId, Jobs, Record};

use super::pipeline_args::PipelineSession;
use super::{CliError, ExitCode};
use crate::report::{message, stderr};

/// How often Slurm is asked for the job of another stage.
const BETWEEN_LOOKS: Duration = Duration::from_secs(5);

/// What a job is held to.
#[derive(clap::Args)]
pub struct JobArguments {
    /// Run this stage and nothing else
    #[arg(long, hide = true, value_name = "STAGE", requires = "planned")]
    pub only: Option<String>,
    /// Digest of the settings that the job was submitted with
    #[arg(long, hide = true, value_name = "DIGEST")]
    planned: Option<String>,
    /// How far to carry the stage, where it is halved with others
    #[arg(long, hide = true, value_name = "EPOCH", requires = "planned")]
    rung: Option<u64>,
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

    /// How far the job's stage is carried, where it is halved with others.
    pub fn carried(&self, loaded: &PipelineSession) -> BTreeMap<StageId, u64> {
        let stage = loaded.session.selection.named.first().cloned();
        stage.zip(self.rung).into_iter().collect()
    }

    /// Within a job, how its stage stands before it runs, once it is sure that the job does what
    /// it was submitted for. What other jobs do beside it goes out of the plan.
    pub fn begin(
        &self,
        loaded: &PipelineSession,
        execution: &Execution,
        plan: &mut Plan,
        inspected: &HashMap<StageId, InspectedStage>,
    ) -> Result<Option<StageState>, CliError> {
        let Some(only) = &self.only else { return Ok(None) };
        let graph = &loaded.session.graph;
        if let Some(stage) = loaded.session.selection.named.first().and_then(|id| graph.stage(id)) {
            let before = graph.upstream(&stage.id);
            let is_beside = |step: &Step| {
                step.action != Action::Skip && stage.streams_from(&step.stage)
                    || !before.contains(&step.stage)
            };
            plan.steps.retain(|step| !is_beside(step));
        }
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

/// When the job that this process runs in is told to stop, if it is in one and a stage is to end by
/// then.
pub fn walltime(graph: &Graph) -> Option<DateTime<Utc>> {
    let is_asked = |stage: &&LoadedStage| {
        let until = stage.stage.settings().get("until").cloned();
        let until = until.and_then(|until| serde_json::from_value::<Until>(until).ok());
        until.is_some_and(|until| until.moment == Moment::Walltime)
    };
    let before = graph.stages().find(is_asked)?.options.slurm.signal_before();
    let job = CurrentJob::find()?.0;
    match Slurm.details(job) {
        Ok(details) => Some(details.ends_at? - before),
        Err(error) => {
            message::warning(&format!("nobody knows when job {job} ends: {error}"));
            None
        }
    }
}

/// The jobs of the other stages, for one that takes what they make while they make it.
pub struct OtherJobs {
    root: PathBuf,
    pipeline: String,
    seen: Mutex<HashMap<StageId, (Instant, bool)>>,
}

impl OtherJobs {
    pub fn of(loaded: &PipelineSession) -> Self {
        let (root, pipeline) =
            (loaded.session.root.to_path_buf(), loaded.session.graph.pipeline.name.clone());
        Self { root, pipeline, seen: Mutex::default() }
    }

    /// Asks Slurm. A job that cannot be asked for now counts as it was last seen, or as living.
    fn ask(&self, stage: &StageId, last: bool) -> bool {
        let Some(id) = Jobs::load(&self.root, &self.pipeline).get(stage).map(|job| job.id) else {
            return false;
        };
        match Slurm.states(&BTreeSet::from([id])) {
            Ok(states) => states.get(&id).is_some_and(JobState::is_live),
            Err(error) => {
                tracing::debug!("{error}");
                last
            }
        }
    }
}

impl RunsElsewhere for OtherJobs {
    fn is_live(&self, stage: &StageId) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let last = seen.get(stage).copied();
        if let Some((_, live)) = last.filter(|(at, _)| at.elapsed() < BETWEEN_LOOKS) {
            return live;
        }
        let live = self.ask(stage, last.is_none_or(|(_, live)| live));
        seen.insert(stage.clone(), (Instant::now(), live));
        live
    }
}

/// How a stage stands on disk now.
fn state_of(loaded: &PipelineSession, stage: &StageId) -> Option<StageState> {
    let quiet = Stop::default();
    let execution = loaded.session.execution(&quiet, &NullListener);
    let mut all = exec::inspect(&execution, &loaded.session.selection.stages).ok()?;
    Some(all.remove(stage)?.inspection.state)
}

/// How a job ends that was not told to stop. One of several nodes that lost a process, or the whole
/// node with it, is requeued: it gets nodes that are there. Without anything that it could go on
/// from it would end the same way for ever.
pub fn end(
    loaded: &PipelineSession,
    before: &StageState,
    summary: &Summary,
    ended: Result<ExitCode, CliError>,
) -> Result<ExitCode, CliError> {
    let lost = summary.failed.iter().find(|(_, error)| error.failure == Failure::DeviceLost);
    let stage = lost.and_then(|(stage, _)| loaded.session.graph.stage(stage));
    let stage = stage.filter(|stage| stage.tasks().nodes > 1);
    let (Err(error), Some(stage), Some(CurrentJob(job))) = (&ended, stage, CurrentJob::find())
    else {
        return ended;
    };
    let after = state_of(loaded, &stage.id);
    if !after.is_some_and(|after| matches!(after, StageState::Partial { .. }) && after != *before) {
        return ended;
    }
    error.messages().iter().for_each(|wrong| message::warning(&wrong.text));
    stderr::line(format!("job {job} is requeued and goes on from there"));
    stderr::flush();
    Slurm.requeue(job).map_err(CliError::failed)?;
    Ok(ExitCode::from(Signal::Terminate.exit_code()))
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
    let after = state_of(loaded, only);
    let begun = summary.failed.iter().any(|(stage, _)| stage == only);
    let stage = after.as_ref().filter(|_| begun).map(|after| (before, after));
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

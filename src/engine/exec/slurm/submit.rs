//! From a plan to jobs: which stages get one, which have one already, what waits for what.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use chrono::Utc;
use pipe_core::ids::StageId;
use pipe_fs::Lock;
use sha2::{Digest, Sha256};

use super::script::{Awaited, Invocation, arguments, comment, script};
use super::{Cluster, SlurmError};
use crate::exec::{Execution, InspectedStage, planned};
use crate::graph::Graph;
use crate::identity::hex;
use crate::pipeline_file::LoadedStage;
use crate::plan::{Action, Plan};
use crate::state::{Job, JobId, Jobs};

const LOCK_WAIT: Duration = Duration::from_secs(3);

/// A stage and its job.
pub struct Submission<'a> {
    pub stage: &'a LoadedStage,
    pub job: Job,
    /// It was submitted just now.
    pub new: bool,
    /// The stages whose jobs it waits for until they have ended.
    pub after: Vec<StageId>,
}

/// A stage that gets a job.
struct Wanted<'a> {
    stage: &'a LoadedStage,
    after: Vec<StageId>,
    /// The stages that it begins beside, since it takes what they make while they make that.
    beside: Vec<StageId>,
}

/// The stages that the plan would run, in its order. What is up to date gets no job, and hands on
/// what it waits for itself.
fn wanted<'a>(graph: &'a Graph, plan: &Plan) -> Vec<Wanted<'a>> {
    let runs: HashSet<&StageId> = plan
        .steps
        .iter()
        .filter(|step| step.action != Action::Skip)
        .map(|step| &step.stage)
        .collect();
    let mut after: HashMap<&StageId, Vec<StageId>> = HashMap::new();
    let mut all = Vec::new();
    for stage in graph.stages() {
        let (mut own, mut beside) = (Vec::new(), Vec::new());
        for (_, before) in graph.dependencies(&stage.id) {
            if runs.contains(&before.id) && stage.streams_from(&before.id) {
                beside.push(before.id.clone());
                continue;
            }
            let reached = if runs.contains(&before.id) {
                vec![before.id.clone()]
            } else {
                after.get(&before.id).cloned().unwrap_or_default()
            };
            own.extend(reached.into_iter().filter(|id| !own.contains(id)).collect::<Vec<_>>());
        }
        if runs.contains(&stage.id) {
            all.push(Wanted { stage, after: own.clone(), beside });
        }
        after.insert(&stage.id, own);
    }
    all
}

/// What is to be done about a stage's job.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    Submit,
    /// It has one.
    Follow,
    /// It has one that waits for a job that is gone.
    Replace,
}

/// `live`: whether its job waits, if it has one that has not ended. `renewed`: something before it
/// got a new job.
fn choose(live: Option<bool>, renewed: bool) -> Choice {
    match live {
        None => Choice::Submit,
        Some(true) if renewed => Choice::Replace,
        Some(_) => Choice::Follow,
    }
}

/// Submits a job for each stage of the plan that is to run and has none yet. All or nothing: when
/// one is refused, those that were submitted before it are cancelled.
pub fn submit<'a>(
    cluster: &dyn Cluster,
    execution: &'a Execution,
    plan: &Plan,
    observed: &HashMap<StageId, InspectedStage>,
    call: &Invocation,
) -> Result<Vec<Submission<'a>>, SlurmError> {
    let (root, pipeline) = (execution.root, &execution.graph.pipeline.name);
    let wanted = wanted(execution.graph, plan);
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let _lock = lock(execution)?;
    let mut jobs = Jobs::load(root, pipeline);
    let live = live(cluster, execution, &jobs, &wanted)?;
    agree(execution, call, &wanted, &live)?;
    let unneeded = unneeded(observed, &wanted, &live);
    let mut all: Vec<Submission> = Vec::new();
    let wanted = wanted.into_iter().filter(|w| !unneeded.contains(&w.stage.id));
    for Wanted { stage, after, beside } in wanted {
        if execution.stop.requested().is_some() {
            break;
        }
        let awaits = |id: &StageId| after.contains(id) || beside.contains(id);
        let renewed = all.iter().any(|before| before.new && awaits(&before.stage.id));
        let found = live.get(&stage.id);
        let choice = choose(found.map(|live| live.waits), renewed);
        let submission = match (choice, found) {
            (Choice::Follow, Some(Live { job, .. })) => {
                Submission { stage, job: job.clone(), new: false, after }
            }
            (_, found) => {
                let replaced = found.map(|live| live.job.id);
                let job =
                    replaced.map_or(Ok(()), |id| cluster.cancel(&BTreeSet::from([id]))).and_then(
                        |()| submit_one(cluster, execution, stage, call, &all, (&after, &beside)),
                    );
                match job {
                    Ok(job) => Submission { stage, job, new: true, after },
                    Err(error) => {
                        take_back(cluster, &all);
                        return Err(of_stage(&stage.id, error));
                    }
                }
            }
        };
        if let Err(error) = jobs.note(root, &stage.id, submission.job.clone()) {
            all.push(submission);
            take_back(cluster, &all);
            return Err(error.into());
        }
        all.push(submission);
    }
    Ok(all)
}

/// A living job that was submitted with other settings would do something else.
fn agree(
    execution: &Execution,
    call: &Invocation,
    wanted: &[Wanted],
    live: &BTreeMap<StageId, Live>,
) -> Result<(), SlurmError> {
    for Wanted { stage, .. } in wanted {
        let Some(Live { job, .. }) = live.get(&stage.id) else { continue };
        // Of a job that was found by its comment they are not known here; it compares them itself.
        if !job.settings.is_empty() && job.settings != settings(execution, stage, call) {
            return Err(SlurmError::Asked(format!(
                "job {} of stage {} was submitted with other settings; wait for it, or end it with `{}`",
                job.id,
                stage.id,
                call.cancel.clone().word(stage.id.as_str())
            )));
        }
    }
    Ok(())
}

/// Stages that keep nothing and were made ready already for all that need them: the jobs of those
/// live.
fn unneeded(
    observed: &HashMap<StageId, InspectedStage>,
    wanted: &[Wanted],
    live: &BTreeMap<StageId, Live>,
) -> HashSet<StageId> {
    let lives = |stage: &StageId| live.get(stage).is_some_and(|live| !live.in_vain);
    let all_live = |id: &StageId| {
        let mut needing = wanted.iter().filter(|w| w.after.contains(id)).peekable();
        needing.peek().is_some() && needing.all(|w| lives(&w.stage.id))
    };
    let transient = |id: &StageId| observed.get(id).is_some_and(InspectedStage::is_transient);
    let ids = wanted.iter().map(|w| &w.stage.id);
    ids.filter(|id| !live.contains_key(*id) && transient(id) && all_live(id)).cloned().collect()
}

/// Lets nobody else submit jobs of the pipeline. Somebody who only notes how one ended is waited
/// for.
fn lock(execution: &Execution) -> Result<Lock, SlurmError> {
    let until = Instant::now() + LOCK_WAIT;
    loop {
        match Jobs::lock(execution.root, &execution.graph.pipeline.name)? {
            Ok(lock) => return Ok(lock),
            Err(holder) if Instant::now() >= until => {
                let text = format!(
                    "jobs of this pipeline are being submitted by {}; wait for that",
                    holder.0
                );
                return Err(SlurmError::Asked(text));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// A job that has not ended.
struct Live {
    job: Job,
    waits: bool,
    /// What it waits for is gone.
    in_vain: bool,
}

/// The job of each stage that has one which has not ended.
fn live(
    cluster: &dyn Cluster,
    execution: &Execution,
    jobs: &Jobs,
    wanted: &[Wanted],
) -> Result<BTreeMap<StageId, Live>, SlurmError> {
    let (root, pipeline) = (execution.root, &execution.graph.pipeline.name);
    let own = cluster.own()?;
    let mut candidates = BTreeMap::new();
    for Wanted { stage, .. } in wanted {
        let known = jobs.get(&stage.id).filter(|job| job.ended.is_none()).cloned();
        // Its number was lost: the process that submitted it ended before it could write it down.
        let comment = comment(root, pipeline, &stage.id);
        let marked = own.iter().filter(|(_, text)| *text == comment).map(|(id, _)| *id).max();
        let newer = marked.filter(|id| known.as_ref().is_none_or(|job| job.id < *id));
        let found = match newer {
            Some(id) => Some(Job {
                id,
                submitted_at: Utc::now(),
                settings: String::new(),
                log: Jobs::log(pipeline, &stage.id, Some(id)),
                ended: None,
            }),
            None => known,
        };
        candidates.extend(found.map(|job| (stage.id.clone(), job)));
    }
    let states = cluster.states(&candidates.values().map(|job| job.id).collect())?;
    let alive = |(stage, job): (StageId, Job)| {
        let state = states.get(&job.id).filter(|state| state.is_live())?;
        let (waits, in_vain) = (state.waits(), state.reason == "DependencyNeverSatisfied");
        Some((stage, Live { job, waits, in_vain }))
    };
    Ok(candidates.into_iter().filter_map(alive).collect())
}

fn submit_one(
    cluster: &dyn Cluster,
    execution: &Execution,
    stage: &LoadedStage,
    call: &Invocation,
    before: &[Submission],
    (after, beside): (&[StageId], &[StageId]),
) -> Result<Job, SlurmError> {
    let (root, pipeline) = (execution.root, &execution.graph.pipeline.name);
    let submitted_at = Utc::now();
    let forced = execution.forced.contains(&stage.id);
    let until = execution.carried.get(&stage.id).copied();
    let words = call.words(&stage.id, &planned(execution, stage), forced, until)?;
    let jobs_of = |stages: &[StageId]| -> Vec<JobId> {
        before.iter().filter(|s| stages.contains(&s.stage.id)).map(|s| s.job.id).collect()
    };
    let awaited = Awaited { ended: jobs_of(after), begun: jobs_of(beside) };
    let log = Jobs::log(pipeline, &stage.id, None);
    let arguments = arguments(root, pipeline, stage, &log, &awaited)?;
    let id = cluster.submit(&arguments, &script(pipeline, &stage.id, &words)?)?;
    let log = Jobs::log(pipeline, &stage.id, Some(id));
    Ok(Job { id, submitted_at, settings: settings(execution, stage, call), log, ended: None })
}

/// What a job was submitted with, as far as it decides what is done.
fn settings(execution: &Execution, stage: &LoadedStage, call: &Invocation) -> String {
    let mut hash = Sha256::new();
    hash.update(planned(execution, stage));
    for word in &call.settings {
        hash.update((word.len() as u64).to_le_bytes());
        hash.update(word);
    }
    format!("sha256:{}", hex(&hash.finalize()))
}

fn take_back(cluster: &dyn Cluster, all: &[Submission]) {
    let new: BTreeSet<JobId> = all.iter().filter(|s| s.new).map(|s| s.job.id).collect();
    if !new.is_empty()
        && let Err(error) = cluster.cancel(&new)
    {
        tracing::warn!("{error}");
    }
}

fn of_stage(stage: &StageId, error: SlurmError) -> SlurmError {
    match error {
        SlurmError::Refused { program, message } => {
            SlurmError::Refused { program, message: format!("the job of stage {stage}: {message}") }
        }
        other => other,
    }
}

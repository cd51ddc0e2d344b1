//! Follows jobs to their end: tells what they do, and what becomes of the stages. It may be stopped
//! and begun again at any time: the jobs do not need it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use pipe_core::failure::{Failure, StageError};
use pipe_core::ids::StageId;
use pipe_core::progress::Event;
use pipe_core::stop::Signal;

use super::outcome::{Evidence, JobOutcome, judge};
use super::tail::Tail;
use super::{Cluster, JobState, SlurmError, Submission};
use crate::exec::{Execution, Summary, inspect};
use crate::inspection::StageState;
use crate::policy::OnFailure;
use crate::state::{JobId, Jobs, Record};

/// Shortest time between two looks at the jobs.
const SHORTEST: Duration = Duration::from_secs(1);
/// Looks that do not find a job before it counts as forgotten.
const MISSED: u32 = 2;

/// A job that is followed.
struct Followed<'a> {
    submission: Submission<'a>,
    /// As it was last seen.
    state: Option<JobState>,
    missed: u32,
    over: bool,
    /// Taken back, since a stage before it or beside it failed.
    in_vain: bool,
}

/// What following needs.
pub struct JobMonitor<'a> {
    pub cluster: &'a dyn Cluster,
    pub execution: &'a Execution<'a>,
    /// Longest time between two looks.
    pub poll: Duration,
}

/// Follows until no job is left, or until this process is to end; the jobs outlive it unless it was
/// ended with Ctrl-C.
pub fn follow(following: &JobMonitor, submissions: Vec<Submission>) -> Result<Summary, SlurmError> {
    let execution = following.execution;
    let stages = submissions.iter().map(|s| (s.stage.id.clone(), s.job.submitted_at)).collect();
    let mut tail = Tail::new(execution.root, &execution.graph.pipeline.name, stages);
    let fresh =
        |submission| Followed { submission, state: None, missed: 0, over: false, in_vain: false };
    let mut all: Vec<Followed> = submissions.into_iter().map(fresh).collect();
    let mut summary = Summary::default();
    let (mut wait, mut next, mut cancelled, mut silent) = (SHORTEST, Instant::now(), false, false);
    loop {
        match execution.stop.requested() {
            Some(Signal::Interrupt) if !cancelled => {
                cancelled = true;
                following.cluster.cancel(&living(&all))?;
                (wait, next) = (SHORTEST, Instant::now());
            }
            Some(Signal::Interrupt) | None => {}
            // The jobs go on without this process.
            Some(_) => return Ok(summary),
        }
        if Instant::now() >= next {
            match following.cluster.states(&living(&all)) {
                Ok(states) => {
                    silent = false;
                    let changed = take_in(following, &mut all, &states);
                    pass_on(execution, &mut tail);
                    conclude(following, &mut all, &mut summary, cancelled)?;
                    wait = if changed { SHORTEST } else { following.poll.min(wait.mul_f64(1.5)) };
                }
                // Its controller may be away for a while, its programs are not.
                Err(error @ SlurmError::Start { .. }) => return Err(error),
                Err(error) => {
                    if let (false, Some(first)) = (silent, all.iter().find(|f| !f.over)) {
                        let text = format!("{error}; asking again");
                        execution
                            .report
                            .event(&first.submission.stage.id, &Event::Warning { text });
                    }
                    (silent, wait) = (true, following.poll);
                }
            }
            next = Instant::now() + wait;
        }
        if all.iter().all(|f| f.over) {
            return Ok(summary);
        }
        pass_on(execution, &mut tail);
        std::thread::sleep(
            Duration::from_millis(100).min(next.saturating_duration_since(Instant::now())),
        );
    }
}

fn living(all: &[Followed]) -> BTreeSet<JobId> {
    all.iter().filter(|f| !f.over).map(|f| f.submission.job.id).collect()
}

fn pass_on(execution: &Execution, tail: &mut Tail) {
    for (stage, event) in tail.read() {
        let event = match event {
            // Its job goes on with it, or says at its end that it does not.
            Event::Failed { failure: Failure::Interrupted(_), message } => {
                Event::Message { text: message }
            }
            event => event,
        };
        execution.report.event(&stage, &event);
    }
}

/// Notes how the jobs stand, and tells what changed. Says whether anything did.
fn take_in(
    following: &JobMonitor,
    all: &mut [Followed],
    states: &BTreeMap<JobId, JobState>,
) -> bool {
    let mut changed = false;
    for followed in all.iter_mut().filter(|f| !f.over) {
        let Submission { stage, job, .. } = &followed.submission;
        let Some(state) = states.get(&job.id) else {
            followed.missed += 1;
            continue;
        };
        followed.missed = 0;
        if followed.state.as_ref() == Some(state) {
            continue;
        }
        changed = true;
        let ran = followed.state.as_ref().is_some_and(|before| !before.waits());
        let mut text = if state.waits() && ran {
            format!("job {} was requeued: {state}", job.id)
        } else {
            format!("job {}: {state}", job.id)
        };
        if state.is_held() {
            let _ = write!(text, "; Slurm holds it until `scontrol release {}`", job.id);
        }
        following.execution.report.event(&stage.id, &Event::Message { text });
        followed.state = Some(state.clone());
    }
    changed
}

/// Decides about the jobs that are over, those that others wait for first.
fn conclude(
    following: &JobMonitor,
    all: &mut [Followed],
    summary: &mut Summary,
    cancelled: bool,
) -> Result<(), SlurmError> {
    let execution = following.execution;
    let pipeline = &execution.graph.pipeline.name;
    for place in 0..all.len() {
        let Followed {
            submission: Submission { stage, job, after, .. }, state, missed, over, ..
        } = &all[place];
        let ended = state.as_ref().filter(|state| *missed == 0 && !state.is_live());
        if *over || (ended.is_none() && *missed < MISSED) {
            continue;
        }
        let record = Record::load(execution.root, pipeline, &stage.id);
        let before_it = |id: &StageId| {
            summary.not_begun.contains(id) || summary.failed.iter().any(|(failed, _)| failed == id)
        };
        let evidence = Evidence {
            job: job.id,
            state: ended,
            record: record.as_ref(),
            submitted_at: job.submitted_at,
            done: ended.is_none() && is_done(execution, &stage.id),
            cancelled,
            in_vain: all[place].in_vain || after.iter().any(before_it),
        };
        let verdict = judge(&evidence);
        let id = stage.id.clone();
        let word = ended.map_or("FORGOTTEN", |state| state.word.as_str());
        Jobs::note_end(execution.root, pipeline, &id, job.id, word)?;
        let stops = stage.options.on_failure == OnFailure::Stop && !execution.keep_going;
        all[place].over = true;
        match verdict {
            JobOutcome::Finished(line) => summary.finished.push((id, line)),
            JobOutcome::UpToDate => summary.skipped.push(id),
            JobOutcome::NotBegun => summary.not_begun.push(id),
            JobOutcome::Failed(error) => {
                let broken = !matches!(error.failure, Failure::Interrupted(_));
                summary.failed.push((id, error));
                if stops && broken {
                    take_back(following, all)?;
                }
            }
        }
    }
    Ok(())
}

/// Nothing further begins: what waits is taken back, what runs goes on to its end.
fn take_back(following: &JobMonitor, all: &mut [Followed]) -> Result<(), SlurmError> {
    let waiting: BTreeSet<JobId> = all
        .iter_mut()
        .filter(|f| !f.over && f.state.as_ref().is_none_or(JobState::waits))
        .map(|followed| {
            followed.in_vain = true;
            followed.submission.job.id
        })
        .collect();
    if waiting.is_empty() { Ok(()) } else { following.cluster.cancel(&waiting) }
}

/// Whether nothing is left to do for a stage, as seen on disk.
fn is_done(execution: &Execution, stage: &StageId) -> bool {
    let wanted = crate::graph::Targets { until: vec![stage.to_string()], ..Default::default() };
    let Ok(selection) = execution.graph.select(&wanted) else { return false };
    let found: Result<_, (StageId, StageError)> = inspect(execution, &selection.stages);
    let state =
        found.ok().and_then(|mut all| all.remove(stage)).map(|found| found.inspection.state);
    matches!(state, Some(StageState::Done { .. }))
}

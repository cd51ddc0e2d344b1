//! One stage from its beginning to its end: attempts, the waits between them, the time limit,
//! panics.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use chrono::Utc;
use pipe_core::Status;
use pipe_core::failure::{Failure, StageError, panic_message};
use pipe_core::progress::{Event, EventListener};
use pipe_core::secret;
use pipe_core::stop::Signal;
use pipe_fs::Lock;

use super::execution::{Execution, manifest, request};
use super::journal::Journal;
use super::rounds::Round;
use super::upstream::RunningStages;
use crate::artifact::{Artifact, Outcome};
use crate::aside::Aside;
use crate::kind::RunContext;
use crate::pipeline_file::LoadedStage;
use crate::policy::{Adjustment, RetryDecision};
use crate::state::{Attempt, OutputBaseline, Outputs, Progress, Record};

/// A stage that is to begin now.
pub(super) struct Begin<'a> {
    pub stage: &'a LoadedStage,
    pub action: String,
    pub reason: String,
    /// How far it is.
    pub progress: Option<Progress>,
    /// How far it is carried, where it is halved with others.
    pub round: Option<Round>,
    /// A new run in the place of the one that could be gone on with.
    pub anew: bool,
    /// See [`Record::micro_batch_splits`].
    pub micro_batch_splits: u32,
    pub inputs: BTreeMap<String, Artifact>,
    /// The GPU that is its own while it runs.
    pub gpu: Option<u32>,
    pub made: Option<Outputs>,
    /// See [`Record::before`].
    pub before: Option<OutputBaseline>,
    /// See [`Record::places`].
    pub places: BTreeSet<String>,
    /// A part of a run that is done once more, elsewhere.
    pub aside: Option<Aside>,
}

/// Carries a stage through, with its lock taken; its record says how it ended before this returns.
pub(super) fn carry_out(
    execution: &Execution,
    journal: &Journal,
    begin: Begin,
    (upstreams, lock): (&RunningStages, &Lock),
) -> Result<Outcome, StageError> {
    let id = &begin.stage.id;
    let pipeline = &execution.graph.pipeline.name;
    let (action, reason) = (begin.action.clone(), begin.reason.clone());
    journal.event(id, &Event::Started { action: action.clone(), reason: reason.clone() });
    let mut record =
        Record::begun(pipeline, id, &begin.stage.kind, action, reason, begin.made.clone());
    (record.micro_batch_splits, record.progress, record.job) =
        (begin.micro_batch_splits, begin.progress, execution.job);
    (record.before, record.places) = (begin.before.clone(), begin.places.clone());
    record.until = begin.round.as_ref().map(|round| round.until);
    record.runs = begin.stage.stage.runs();
    let started = Instant::now();
    let result = journal
        .begin(id, record)
        .and_then(|()| attempts(execution, journal, &begin, (upstreams, lock)));
    match &result {
        Ok(outcome) => {
            let (summary, seconds) = (outcome.summary.clone(), started.elapsed().as_secs_f64());
            journal.update(id, |record| {
                record.status = Status::Completed;
                record.message = Some(summary.clone());
                let next = outcome.next.clone();
                (record.score, record.next) =
                    (next.as_ref().and_then(|n| n.score), next.map(|n| n.command));
                record.before = None;
                record.places.clear();
            })?;
            journal.event(id, &Event::Finished { summary, seconds });
        }
        Err(error) => {
            // The first error is the one to report.
            let _ = journal.update(id, |record| {
                record.status = match error.failure {
                    Failure::Interrupted(_) => Status::Interrupted,
                    _ => Status::Failed,
                };
                record.message = Some(error.message.clone());
            });
            journal.event(
                id,
                &Event::Failed { failure: error.failure, message: error.message.clone() },
            );
        }
    }
    result
}

fn attempts(
    execution: &Execution,
    journal: &Journal,
    begin: &Begin,
    held: (&RunningStages, &Lock),
) -> Result<Outcome, StageError> {
    let (id, retry) = (&begin.stage.id, &begin.stage.options.retry);
    let mut failures = Vec::new();
    let mut adjustment =
        Adjustment { micro_batch_splits: begin.micro_batch_splits, ..Adjustment::default() };
    loop {
        let error = match attempt(execution, journal, begin, adjustment, failures.is_empty(), held)
        {
            Ok(outcome) => return Ok(outcome),
            Err(error) => error,
        };
        failures.push(error.failure);
        let next = retry.next(&failures).filter(|_| execution.stop.requested().is_none());
        let failed = Attempt {
            ended_at: Utc::now(),
            failure: error.failure,
            message: error.message.clone(),
            change: next.map(|again| again.change),
        };
        adjustment = next.map_or(adjustment, |again| adjustment.with(again.change));
        journal.update(id, |record| {
            record.attempts.push(failed);
            record.micro_batch_splits = adjustment.micro_batch_splits;
        })?;
        let Some(RetryDecision { wait, change }) = next else { return Err(error) };
        journal.event(
            id,
            &Event::Retrying {
                attempt: failures.len() as u32 + 1,
                failure: error.failure,
                message: error.message.clone(),
                wait_seconds: wait.as_secs_f64(),
                change,
            },
        );
        if !execution.stop.sleep(wait) {
            return Err(error);
        }
    }
}

/// One attempt. Never panics for a stage's panic: that is reported as a bug of the stage.
pub(super) fn attempt(
    execution: &Execution,
    journal: &Journal,
    begin: &Begin,
    adjustment: Adjustment,
    first: bool,
    (upstreams, lock): (&RunningStages, &Lock),
) -> Result<Outcome, StageError> {
    let (stage, id) = (begin.stage, &begin.stage.id);
    let stop = execution.stop.within(stage.options.timeout.map(|limit| limit.0));
    let (manifest, _) = manifest(execution, stage, &begin.inputs, begin.made.as_ref())?;
    let mut request = request(execution, stage, begin.round.as_ref());
    // A further attempt goes on with the run that the first one began.
    request.force = (request.force || begin.anew) && first;
    let context = RunContext {
        root: execution.root.to_owned(),
        pipeline: execution.graph.pipeline.name.clone(),
        identity: manifest.digest(),
        manifest: manifest.record().clone(),
        request,
        stage: id.clone(),
        inputs: begin.inputs.clone(),
        made: begin.made.clone(),
        adjustment,
        aside: begin.aside.clone(),
        gpu: begin.gpu,
        tasks: execution.job.map(|_| stage.tasks()).filter(|tasks| tasks.count() > 1),
        graph: execution.graph,
        formats: execution.formats,
        upstreams,
        stop: &stop,
        journal,
        lock,
    };
    let ended =
        catch_unwind(AssertUnwindSafe(|| stage.stage.run(&context))).unwrap_or_else(|panic| {
            let text = panic_message(panic.as_ref());
            Err(StageError::new(
                Failure::Bug,
                format!("stage {id} broke off by a bug in this program: {text}"),
            ))
        });
    let ended = ended.map_err(|error| StageError::new(error.failure, secret::told(&error.message)));
    ended.map_err(|error| match (error.failure, stage.options.timeout) {
        (Failure::Interrupted(Signal::Timeout), Some(limit)) => {
            StageError::new(Failure::Timeout, format!("{} (timeout: {limit})", error.message))
        }
        _ => error,
    })
}

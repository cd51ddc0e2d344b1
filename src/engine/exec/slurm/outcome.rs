//! How a stage ended whose job is over: what Slurm says and what the stage's record says, put
//! together. Pure.

use chrono::{DateTime, Utc};
use pipe_core::Status;
use pipe_core::failure::{Failure, StageError};
use pipe_core::stop::Signal;

use super::JobState;
use crate::state::{JobId, Record};

/// All that is known.
pub(super) struct Evidence<'a> {
    pub job: JobId,
    /// `None`: Slurm has forgotten the job.
    pub state: Option<&'a JobState>,
    /// The stage's record, of whatever job.
    pub record: Option<&'a Record>,
    pub submitted_at: DateTime<Utc>,
    /// Nothing is left to do for the stage, as seen on disk.
    pub done: bool,
    /// The user wanted the jobs to end.
    pub cancelled: bool,
    /// A stage before it did not end well, or it was taken back for that reason.
    pub in_vain: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum JobOutcome {
    /// With the line for the summary.
    Finished(String),
    /// There was nothing to do.
    UpToDate,
    Failed(StageError),
    NotBegun,
}

pub(super) fn judge(evidence: &Evidence) -> JobOutcome {
    let Evidence { job, state, record, submitted_at, done, cancelled, in_vain } = *evidence;
    let begun = record.filter(|record| record.job == Some(job));
    // What keeps nothing is made ready again by the jobs that need it.
    let again = record
        .filter(|record| record.started_at >= submitted_at && record.status == Status::Completed);
    let message = |record: &Record| record.message.clone().unwrap_or_default();
    let failed = |failure, text: String| JobOutcome::Failed(StageError::new(failure, text));
    let word = state.map(|state| state.word.as_str());
    match (word, begun.map(|record| (record, record.status))) {
        // The record is true: it is written when all else is.
        (Some("COMPLETED") | None, Some((record, Status::Completed))) => {
            JobOutcome::Finished(message(record))
        }
        (Some("COMPLETED"), _) => {
            again.map_or(JobOutcome::UpToDate, |record| JobOutcome::Finished(message(record)))
        }
        (_, Some((record, Status::Failed))) => {
            let kind = record.attempts.last().map_or(Failure::Command, |attempt| attempt.failure);
            failed(kind, message(record))
        }
        (None, None) if done => JobOutcome::UpToDate,
        (Some("CANCELLED"), None) if cancelled || in_vain => JobOutcome::NotBegun,
        (Some("CANCELLED"), _) if cancelled => {
            failed(Failure::Interrupted(Signal::Interrupt), format!("job {job} was cancelled"))
        }
        (Some("CANCELLED"), _) => failed(Failure::Command, format!("job {job} was cancelled")),
        (_, Some((record, Status::Interrupted))) => {
            failed(Failure::Timeout, format!("{}, and job {job} was not requeued", message(record)))
        }
        (Some(word), _) => {
            failed(Failure::Command, format!("job {job} ended with {word}{}", why(state)))
        }
        (None, Some(_)) => failed(Failure::Command, format!("job {job} ended without a word")),
        (None, None) => failed(
            Failure::Command,
            format!("Slurm has forgotten job {job}, and it left no record"),
        ),
    }
}

fn why(state: Option<&JobState>) -> String {
    match state.map(|state| state.reason.as_str()).unwrap_or_default() {
        "" => String::new(),
        reason => format!(" ({reason})"),
    }
}

#[cfg(test)]
mod tests {
    use pipe_core::ids::StageId;

    use super::*;
    use crate::state::Attempt;

    fn record(status: Status, message: &str) -> Record {
        let stage = StageId::new("base").unwrap();
        let mut record = Record::begun("p", &stage, "train", "run".into(), String::new(), None);
        record.status = status;
        (record.message, record.job) = (Some(message.into()), Some("7".parse().unwrap()));
        record
    }

    fn state(word: &str, reason: &str) -> JobState {
        JobState { word: word.into(), reason: reason.into(), node: String::new() }
    }

    /// What is known, changed by `change`.
    fn verdict(
        state: Option<JobState>,
        record: Option<Record>,
        change: impl FnOnce(&mut Evidence),
    ) -> JobOutcome {
        let mut evidence = Evidence {
            job: "7".parse().unwrap(),
            state: state.as_ref(),
            record: record.as_ref(),
            submitted_at: DateTime::UNIX_EPOCH,
            done: false,
            cancelled: false,
            in_vain: false,
        };
        change(&mut evidence);
        judge(&evidence)
    }

    fn says(verdict: JobOutcome) -> String {
        match verdict {
            JobOutcome::Failed(error) => format!("{}: {}", error.failure.name(), error.message),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn the_record_says_what_was_done() {
        let done = || Some(record(Status::Completed, "trained"));
        let finished = JobOutcome::Finished("trained".into());
        assert_eq!(verdict(Some(state("COMPLETED", "")), done(), |_| {}), finished);
        assert_eq!(verdict(None, done(), |_| {}), finished, "without accounting");
        assert_eq!(verdict(Some(state("COMPLETED", "")), None, |_| {}), JobOutcome::UpToDate);
        assert_eq!(
            verdict(Some(state("COMPLETED", "")), done(), |e| {
                (e.job, e.submitted_at) = ("8".parse().unwrap(), Utc::now());
            }),
            JobOutcome::UpToDate,
            "that was an earlier job"
        );
        assert_eq!(verdict(None, None, |e| e.done = true), JobOutcome::UpToDate);
    }

    #[test]
    fn a_failure_has_the_stages_own_words_and_kind() {
        let mut broken = record(Status::Failed, "no room");
        let failure = Failure::Storage;
        broken.attempts.push(Attempt {
            ended_at: Utc::now(),
            failure,
            message: "no room".into(),
            change: None,
        });
        for word in [Some(state("FAILED", "NonZeroExitCode")), None] {
            assert_eq!(says(verdict(word, Some(broken.clone()), |_| {})), "storage: no room");
        }
    }

    #[test]
    fn without_a_record_slurm_is_asked() {
        let died = || Some(record(Status::Running, ""));
        assert_eq!(
            says(verdict(Some(state("OUT_OF_MEMORY", "OutOfMemory")), died(), |_| {})),
            "command: job 7 ended with OUT_OF_MEMORY (OutOfMemory)"
        );
        assert_eq!(says(verdict(None, died(), |_| {})), "command: job 7 ended without a word");
        assert!(says(verdict(None, None, |_| {})).contains("Slurm has forgotten job 7"));
        let stopped = Some(record(Status::Interrupted, "stopped by SIGTERM in epoch 2"));
        assert_eq!(
            says(verdict(Some(state("FAILED", "")), stopped, |_| {})),
            "timeout: stopped by SIGTERM in epoch 2, and job 7 was not requeued"
        );
    }

    #[test]
    fn a_job_that_never_began_is_no_failure_of_its_own() {
        let gone = || Some(state("CANCELLED", "DependencyNeverSatisfied"));
        assert_eq!(verdict(gone(), None, |e| e.in_vain = true), JobOutcome::NotBegun);
        assert_eq!(verdict(gone(), None, |e| e.cancelled = true), JobOutcome::NotBegun);
        assert_eq!(says(verdict(gone(), None, |_| {})), "command: job 7 was cancelled");
        let stopped = || Some(record(Status::Interrupted, "stopped by SIGTERM"));
        assert_eq!(
            says(verdict(gone(), stopped(), |e| e.cancelled = true)),
            "interrupted: job 7 was cancelled"
        );
        assert_eq!(says(verdict(gone(), stopped(), |_| {})), "command: job 7 was cancelled");
    }
}

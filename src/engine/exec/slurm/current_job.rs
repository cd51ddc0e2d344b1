//! Within a job: what follows when it was told to stop. Pure but for the environment.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::JobDetails;
use crate::inspection::StageState;
use crate::state::JobId;

/// The job that this process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CurrentJob(pub JobId);

impl CurrentJob {
    /// `None` outside of a job.
    pub fn find() -> Option<Self> {
        std::env::var("SLURM_JOB_ID").ok()?.parse().ok().map(Self)
    }
}

/// Slurm looks for jobs near their end every so often, and tells them up to this much too early.
const EARLY: Duration = Duration::from_secs(60);

/// What follows for a job that was told to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AfterStop {
    /// It is put back among those that wait, and goes on.
    Requeue,
    /// It was cancelled; or Slurm has requeued it already, for another job's sake or a node's.
    Leave(String),
    /// It would end the same way for ever.
    Fail(&'static str),
}

/// Decides that. `stage`: its stage when the job began with it and when it had stopped; `None` if
/// it never began. `signal_before`: how long before the end of its walltime it is told.
pub fn after_stop(
    details: &JobDetails,
    stage: Option<(&StageState, &StageState)>,
    signal_before: Duration,
    now: DateTime<Utc>,
) -> AfterStop {
    let over = details.reason == "TimeLimit";
    if details.state != "RUNNING" && !over {
        return AfterStop::Leave(format!("Slurm has it as {}", details.state));
    }
    let told = details.ends_at.is_some_and(|end| {
        let left = (end - now).to_std().unwrap_or_default();
        left <= signal_before.saturating_add(EARLY)
    });
    let nothing_kept = stage.is_some_and(|(before, after)| {
        before == after || !matches!(after, StageState::Partial { .. })
    });
    if (told || over) && !details.preempted && nothing_kept {
        AfterStop::Fail(
            "its walltime is over and nothing was kept that another one could go on with; give it more `time`",
        )
    } else {
        AfterStop::Requeue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: Duration = Duration::from_secs(120);

    /// A job with so many seconds left.
    fn running(left: i64) -> JobDetails {
        let ends_at = Some(DateTime::UNIX_EPOCH + chrono::Duration::seconds(left));
        JobDetails { state: "RUNNING".into(), ends_at, ..JobDetails::default() }
    }

    fn decide(details: &JobDetails, stage: Option<(&StageState, &StageState)>) -> AfterStop {
        after_stop(details, stage, BEFORE, DateTime::UNIX_EPOCH)
    }

    fn partial(reason: &str) -> StageState {
        StageState::Partial { done: 1, total: 9, reason: reason.into() }
    }

    #[test]
    fn a_training_that_went_on_is_requeued() {
        let (before, after) = (StageState::absent("no run"), partial("step 3"));
        assert_eq!(decide(&running(120), Some((&before, &after))), AfterStop::Requeue);
        assert_eq!(decide(&running(120), Some((&after, &partial("step 9")))), AfterStop::Requeue);
        let over =
            JobDetails { state: "COMPLETING".into(), reason: "TimeLimit".into(), ..running(0) };
        assert_eq!(decide(&over, Some((&before, &after))), AfterStop::Requeue);
    }

    #[test]
    fn what_no_walltime_would_ever_finish_is_not() {
        let command = StageState::absent("never run");
        assert!(matches!(decide(&running(170), Some((&command, &command))), AfterStop::Fail(_)));
        let stuck = partial("step 3");
        assert!(matches!(decide(&running(120), Some((&stuck, &stuck))), AfterStop::Fail(_)));
        let over =
            JobDetails { state: "COMPLETING".into(), reason: "TimeLimit".into(), ..running(0) };
        assert!(matches!(decide(&over, Some((&stuck, &stuck))), AfterStop::Fail(_)));
        // It was not the walltime: another job needs the node, or an administrator does.
        assert_eq!(decide(&running(4000), Some((&command, &command))), AfterStop::Requeue);
        let taken = JobDetails { preempted: true, ..running(120) };
        assert_eq!(decide(&taken, Some((&command, &command))), AfterStop::Requeue);
        assert_eq!(decide(&running(120), None), AfterStop::Requeue, "it had no time to begin");
    }

    #[test]
    fn a_cancelled_job_stays_cancelled() {
        let cancelled = JobDetails { state: "COMPLETING".into(), ..running(0) };
        assert_eq!(decide(&cancelled, None), AfterStop::Leave("Slurm has it as COMPLETING".into()));
    }
}

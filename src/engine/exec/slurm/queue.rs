//! What `squeue`, `sacct` and `scontrol` print, read. Pure.

use std::collections::BTreeMap;

use chrono::{DateTime, Local, NaiveDateTime, Utc};

use super::SlurmError;
use crate::state::JobId;

/// How a job stands, in Slurm's words.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct JobState {
    /// Such as `PENDING`, `RUNNING`, `COMPLETED`.
    pub word: String,
    /// Why it waits, or how it ended; empty if there is nothing to say.
    pub reason: String,
    /// Where it runs.
    pub node: String,
}

/// States that a job does not leave by itself.
const OVER: [&str; 10] = [
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
];

impl JobState {
    /// Whether it has not ended. A word that is not known is one of a living job: there is no harm
    /// in looking again.
    pub fn is_live(&self) -> bool {
        !OVER.contains(&self.word.as_str())
    }

    /// Whether it has yet to begin, or to begin again.
    pub fn waits(&self) -> bool {
        ["PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"]
            .contains(&self.word.as_str())
    }

    /// Whether it does not begin before somebody releases it, however long it waits.
    pub fn is_held(&self) -> bool {
        // `JobHeldUser`, `JobHeldAdmin`, `JobHoldMaxRequeue`, `launch failed requeued held`.
        let reason = self.reason.to_lowercase();
        let says_so = self.waits() && ["held", "jobhold"].iter().any(|word| reason.contains(word));
        says_so || ["REQUEUE_HOLD", "SPECIAL_EXIT"].contains(&self.word.as_str())
    }

    pub fn succeeded(&self) -> bool {
        self.word == "COMPLETED"
    }
}

impl std::fmt::Display for JobState {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let beside = if self.waits() { &self.reason } else { &self.node };
        if beside.is_empty() {
            f.write_str(&self.word)
        } else {
            write!(f, "{} ({beside})", self.word)
        }
    }
}

/// The format for [`states`].
pub(super) const STATES: &str = "--format=%i|%T|%N|%r";

/// `squeue` with [`STATES`].
pub(super) fn states(text: &str) -> Result<BTreeMap<JobId, JobState>, SlurmError> {
    let line = |line: &str| {
        let mut parts = line.splitn(4, '|').map(str::trim);
        let id = parts.next()?.parse().ok()?;
        let word = parts.next().filter(|word| !word.is_empty())?.to_owned();
        let node = parts.next()?.to_owned();
        let reason = parts.next().filter(|reason| *reason != "None").unwrap_or_default().to_owned();
        Some((id, JobState { word, reason, node }))
    };
    read_lines("squeue", text, line)
}

/// The format for [`accounted`].
pub(super) const ACCOUNTED: [&str; 4] =
    ["--noheader", "--parsable2", "--allocations", "--format=JobIDRaw,State"];

/// `sacct` with [`ACCOUNTED`].
pub(super) fn accounted(text: &str) -> Result<BTreeMap<JobId, JobState>, SlurmError> {
    let line = |line: &str| {
        let (id, state) = line.split_once('|')?;
        // `CANCELLED by 1000`
        let (word, reason) = state.split_once(' ').unwrap_or((state, ""));
        let state =
            JobState { word: word.to_owned(), reason: reason.to_owned(), node: String::new() };
        Some((id.parse().ok()?, state))
    };
    read_lines("sacct", text, line)
}

/// The format for [`comments`].
pub(super) const COMMENTS: &str = "--format=%i|%k";

/// `squeue` with [`COMMENTS`]: jobs that are not ours may be of any form.
pub(super) fn comments(text: &str) -> Vec<(JobId, String)> {
    let line = |line: &str| {
        let (id, comment) = line.split_once('|')?;
        Some((id.trim().parse().ok()?, comment.trim().to_owned()))
    };
    text.lines().filter_map(line).collect()
}

fn read_lines<T>(
    program: &'static str,
    text: &str,
    line: impl Fn(&str) -> Option<(JobId, T)>,
) -> Result<BTreeMap<JobId, T>, SlurmError> {
    let lines = text.lines().filter(|text| !text.trim().is_empty());
    let read = |text: &str| {
        line(text).ok_or_else(|| SlurmError::Answer { program, said: text.to_owned() })
    };
    lines.map(read).collect()
}

/// What a job learns of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobDetails {
    pub state: String,
    /// Why it is in it; empty if there is nothing to say.
    pub reason: String,
    /// When its walltime is over.
    pub ends_at: Option<DateTime<Utc>>,
    /// Whether another job takes its place.
    pub preempted: bool,
}

/// `scontrol show job --oneliner ID`.
pub(super) fn details(text: &str) -> Result<JobDetails, SlurmError> {
    let value = |key: &str| {
        let word =
            text.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))?;
        (!["None", "Unknown", "N/A", "(null)"].contains(&word)).then_some(word)
    };
    let refused = || SlurmError::Answer { program: "scontrol", said: text.trim().to_owned() };
    let time = |text: &str| {
        let local = NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S").ok()?;
        Some(local.and_local_timezone(Local).earliest()?.with_timezone(&Utc))
    };
    Ok(JobDetails {
        state: value("JobState").ok_or_else(refused)?.to_owned(),
        reason: value("Reason").unwrap_or_default().to_owned(),
        ends_at: value("EndTime").and_then(time),
        preempted: value("PreemptTime").is_some(),
    })
}

/// What `sbatch --parsable` prints: the id, and the cluster's name behind it where there are
/// several.
pub(super) fn submitted(text: &str) -> Result<JobId, SlurmError> {
    let refused = || SlurmError::Answer { program: "sbatch", said: text.trim().to_owned() };
    let last = text.lines().map(str::trim).rfind(|line| !line.is_empty()).ok_or_else(refused)?;
    last.split(';').next().and_then(|id| id.parse().ok()).ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> JobId {
        number.to_string().parse().unwrap()
    }

    #[test]
    fn squeue_is_read() {
        let found =
            states("7|PENDING||Dependency\n12|RUNNING|node1|None\n13|COMPLETED|node1|None\n")
                .unwrap();
        let shown: Vec<String> = found.iter().map(|(id, state)| format!("{id} {state}")).collect();
        assert_eq!(shown, ["7 PENDING (Dependency)", "12 RUNNING (node1)", "13 COMPLETED (node1)"]);
        assert!(found[&id(7)].waits() && found[&id(7)].is_live());
        assert!(!found[&id(12)].waits() && found[&id(12)].is_live());
        assert!(!found[&id(13)].is_live() && found[&id(13)].succeeded());
        assert_eq!(states("").unwrap(), BTreeMap::new());
        assert!(states("slurm is down").is_err());
        let long = states("7|PENDING||ReqNodeNotAvail, UnavailableNodes:n[1-3]\n").unwrap();
        assert_eq!(long[&id(7)].reason, "ReqNodeNotAvail, UnavailableNodes:n[1-3]");
    }

    #[test]
    fn a_job_that_is_held_is_told_from_one_that_waits() {
        let held = "1|PENDING||JobHeldUser\n2|PENDING||launch failed requeued held\n\
                    3|PENDING||JobHoldMaxRequeue\n4|REQUEUE_HOLD||None\n";
        assert!(states(held).unwrap().values().all(JobState::is_held));
        let waits = "1|PENDING||Priority\n2|PENDING||BeginTime\n3|RUNNING|held-1|None\n";
        assert!(!states(waits).unwrap().values().any(JobState::is_held));
    }

    #[test]
    fn sacct_is_read() {
        let found = accounted("12|COMPLETED\n13|CANCELLED by 1000\n14|OUT_OF_MEMORY\n").unwrap();
        assert!(found[&id(12)].succeeded());
        assert_eq!(
            (found[&id(13)].word.as_str(), found[&id(13)].reason.as_str()),
            ("CANCELLED", "by 1000")
        );
        assert!(!found[&id(14)].is_live());
        assert!(accounted("12|").unwrap()[&id(12)].is_live(), "not known, so looked at again");
    }

    #[test]
    fn a_job_learns_of_itself() {
        let text = "JobId=1 JobName=x UserId=root(0) JobState=RUNNING Reason=None StartTime=2026-11-25T07:50:58 \
                    EndTime=2026-11-25T07:51:58 PreemptEligibleTime=2026-11-25T07:50:58 PreemptTime=None Comment=pipe:1";
        let found = details(text).unwrap();
        assert_eq!((found.state.as_str(), found.preempted), ("RUNNING", false));
        assert_eq!(
            found.ends_at.unwrap().with_timezone(&Local).format("%T").to_string(),
            "07:51:58"
        );
        let taken =
            details("JobState=RUNNING EndTime=Unknown PreemptTime=2026-11-25T07:51:00").unwrap();
        assert!(taken.preempted && taken.ends_at.is_none());
        assert!(details("slurm_load_jobs error: Invalid job id specified").is_err());
    }

    #[test]
    fn the_id_of_a_new_job_is_read() {
        assert_eq!(submitted("12\n").unwrap(), id(12));
        assert_eq!(submitted("12;west\n").unwrap(), id(12));
        assert_eq!(submitted("a word of the site's plugin\n12\n").unwrap(), id(12));
        assert!(submitted("").is_err() && submitted("0\n").is_err());
    }

    #[test]
    fn comments_of_jobs_that_are_not_ours_do_no_harm() {
        let found = comments("12|pipe:ab\n13_[1-5]|(null)\n14|a|b\n");
        assert_eq!(found, [(id(12), "pipe:ab".into()), (id(14), "a|b".into())]);
    }
}

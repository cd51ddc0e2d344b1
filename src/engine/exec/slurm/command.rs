//! Slurm's own programs. All that is said to them is said here.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Output, Stdio};

use super::queue::{self, JobDetails, JobState};
use super::{Cluster, SlurmError};
use crate::state::JobId;

/// The Slurm that `sbatch` in `PATH` belongs to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Slurm;

impl Cluster for Slurm {
    fn submit(&self, arguments: &[String], script: &str) -> Result<JobId, SlurmError> {
        let program = "sbatch";
        let started = |source| SlurmError::Start { program, source };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(started)?;
        // One that does not read to the end says why on stderr.
        if let Some(mut input) = child.stdin.take() {
            let _ = input.write_all(script.as_bytes());
        }
        let output = child.wait_with_output().map_err(started)?;
        queue::submitted(&heard(program, output)?)
    }

    fn states(&self, jobs: &BTreeSet<JobId>) -> Result<BTreeMap<JobId, JobState>, SlurmError> {
        if jobs.is_empty() {
            return Ok(BTreeMap::new());
        }
        let ids = list(jobs);
        let call = ["--noheader", "--states=all", queue::STATES, &format!("--jobs={ids}")];
        let mut found = match run("squeue", &call) {
            Ok(text) => queue::states(&text)?,
            // One id alone that it has forgotten is an error to it.
            Err(SlurmError::Refused { message, .. }) if message.contains("Invalid job id") => {
                BTreeMap::new()
            }
            Err(error) => return Err(error),
        };
        found.retain(|id, _| jobs.contains(id));
        let missing: BTreeSet<JobId> =
            jobs.iter().filter(|id| !found.contains_key(id)).copied().collect();
        if !missing.is_empty() {
            let ids = format!("--jobs={}", list(&missing));
            let call: Vec<&str> = queue::ACCOUNTED.into_iter().chain([ids.as_str()]).collect();
            // Many clusters keep no accounts; then the stage's record has to say how it ended.
            match run("sacct", &call).and_then(|text| queue::accounted(&text)) {
                Ok(accounted) => found.extend(accounted),
                Err(error) => tracing::debug!("{error}"),
            }
        }
        Ok(found)
    }

    fn own(&self) -> Result<Vec<(JobId, String)>, SlurmError> {
        Ok(queue::comments(&run("squeue", &["--me", "--noheader", queue::COMMENTS])?))
    }

    fn cancel(&self, jobs: &BTreeSet<JobId>) -> Result<(), SlurmError> {
        let ids: Vec<String> = jobs.iter().map(JobId::to_string).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        // Jobs that have ended in the meantime are no error.
        let call: Vec<&str> = ["--quiet"].into_iter().chain(ids).collect();
        run("scancel", &call).map(drop)
    }
}

impl Slurm {
    /// What a job learns of itself.
    pub fn details(&self, job: JobId) -> Result<JobDetails, SlurmError> {
        queue::details(&run("scontrol", &["show", "--oneliner", "job", &job.to_string()])?)
    }

    /// Puts a job that runs back among those that wait.
    pub fn requeue(&self, job: JobId) -> Result<(), SlurmError> {
        run("scontrol", &["requeue", &job.to_string()]).map(drop)
    }
}

fn list(jobs: &BTreeSet<JobId>) -> String {
    jobs.iter().map(JobId::to_string).collect::<Vec<_>>().join(",")
}

fn run(program: &'static str, arguments: &[&str]) -> Result<String, SlurmError> {
    let mut command = Command::new(program);
    // Settings of the user's own for these programs would change what they print.
    for name in [
        "SQUEUE_FORMAT",
        "SQUEUE_FORMAT2",
        "SQUEUE_STATES",
        "SQUEUE_USERS",
        "SQUEUE_PARTITION",
        "SACCT_FORMAT",
    ] {
        command.env_remove(name);
    }
    let output = command.args(arguments).stdin(Stdio::null()).output();
    heard(program, output.map_err(|source| SlurmError::Start { program, source })?)
}

/// What a program printed, if it was content.
fn heard(program: &'static str, output: Output) -> Result<String, SlurmError> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> =
        said.lines().map(|line| line.trim()).filter(|line| !line.is_empty()).collect();
    let message = if lines.is_empty() { output.status.to_string() } else { lines.join("; ") };
    Err(SlurmError::Refused { program, message })
}

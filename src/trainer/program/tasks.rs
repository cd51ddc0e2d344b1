//! A program as several processes on the nodes of a Slurm job.
//!
//! `srun` starts `pipe job rank` once for each process, and that the program: with the variables
//! which torchrun sets and Lightning reads. Process 0 is on the node of the job itself, where the
//! training's socket is; it alone talks to the stage.
//!
//! # How it ends
//!
//! | what | then |
//! |---|---|
//! | the stage is to stop | `srun`'s stdin ends, and with it that of each `pipe job rank` |
//! | that ends | SIGTERM to its program, and after `grace` SIGKILL to its group |
//! | one process fails | `srun` ends the others at once |
//! | process 0 ended well | the others have `grace`; then `srun` ends them, with a warning |
//! | a line breaks the contract | `srun` ends all at once |
//! | `scancel`, a preemption | `srun` gets the signal too, and ends all at once |
//! | this process is killed | the job is over, and Slurm ends all of it |
//!
//! Once all processes of one node have ended, `srun` passes the end of its stdin on to none. Then
//! the others hear of a stop in their answers alone, and `srun` ends them somewhat later.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use pipe_core::failure::{Failure, StageError};
use pipe_core::progress::Event;
use pipe_engine::kind::RunContext;
use pipe_engine::policy::{Span, Tasks};

use super::job::Job;
use super::message::Message;
use super::session::Session;

/// The file beside the socket that says how process 0 ended.
const ENDED: &str = "rank_0";
/// The file in `scratch` of a process that is about to fail.
const FAILURE: &str = ".pipe-failure.json";
/// Ports for the processes to meet at: below those that systems give out by themselves.
const PORTS: std::ops::Range<u32> = 12_000..32_000;
/// Ports apart that are tried one after the other. Coprime to their number.
const STRIDE: u32 = 4_999;
const PORTS_TRIED: u32 = 200;

/// The processes of one attempt.
pub(super) struct Processes {
    /// The words that start the program once for each.
    pub words: Vec<String>,
    grace: Duration,
    /// Where process 0 leaves its exit code.
    ended: PathBuf,
    /// Where one of the others leaves why it is about to fail, as it would tell the stage.
    failure: PathBuf,
    ended_at: Mutex<Option<Instant>>,
    cause: Mutex<Cause>,
}

/// Why a process or a node ended, in the words of Slurm.
#[derive(Debug, Default)]
struct Cause {
    /// What was said first. What follows is the end of the others.
    first: Option<(Failure, String)>,
    /// A node that went away counts whatever was said before it.
    lost: Option<String>,
}

impl Processes {
    /// `folder` has the socket.
    ///
    /// # Errors
    /// The job was submitted for another number of nodes, or the machine has no room for a port.
    pub fn new(
        tasks: Tasks,
        grace: Duration,
        folder: &Path,
        job: &Job,
    ) -> Result<Self, StageError> {
        let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
        if let Some(nodes) = number("SLURM_JOB_NUM_NODES").filter(|nodes| *nodes != tasks.nodes) {
            let wanted = tasks.nodes;
            return Err(StageError::setting(format!(
                "slurm.nodes is {wanted}, and this job was submitted for {nodes}; submit it anew"
            )));
        }
        let (ended, failure) = (folder.join(ENDED), job.scratch.join(FAILURE));
        let port = free_port(number("SLURM_JOB_ID").unwrap_or_default())?;
        let words = words(tasks, grace, port, &ended, number("SLURM_CPUS_PER_TASK"))?;
        let (ended_at, cause) = (Mutex::default(), Mutex::default());
        Ok(Self { words, grace, ended, failure, ended_at, cause })
    }

    /// Takes note of a line that `srun` or the program said.
    pub fn hear(&self, line: &str) {
        let mut cause = self.cause.lock().unwrap_or_else(PoisonError::into_inner);
        if is_lost_node(line) {
            cause.lost.get_or_insert_with(|| line.trim().to_owned());
        } else if let Some(failure) = end_of_task(line) {
            cause.first.get_or_insert_with(|| (failure, line.trim().to_owned()));
        }
    }

    /// Whether process 0 ended well so long ago that the others are to be ended.
    pub fn are_overdue(&self) -> bool {
        let mut at = self.ended_at.lock().unwrap_or_else(PoisonError::into_inner);
        if at.is_none() && std::fs::read_to_string(&self.ended).is_ok_and(|code| code == "0") {
            *at = Some(Instant::now());
        }
        at.is_some_and(|at| at.elapsed() > self.grace)
    }

    /// What the end of `srun` means, with the reason that Slurm gave, or one of the processes.
    /// `overdue`: the others were ended since process 0 had ended well.
    pub fn judge(
        &self,
        context: &RunContext,
        session: &mut Session,
        ended: Result<(), StageError>,
        overdue: bool,
    ) -> Result<(), StageError> {
        let Err(error) = ended else { return Ok(()) };
        if overdue && error.failure == Failure::Command {
            let time = Span(self.grace);
            let text = format!(
                "processes of the program went on for {time} after process 0 had ended, and were ended"
            );
            context.event(Event::Warning { text });
            return Ok(());
        }
        let cause = self.cause.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = cause.lost.as_ref().map(|line| (Failure::DeviceLost, line));
        let first = cause.first.as_ref().map(|(failure, line)| (*failure, line));
        if error.failure != Failure::Command {
            return Err(error);
        }
        // A process that lost another one tells of its connection, whatever the reason was.
        let says_why = |(failure, _): &(Failure, String)| *failure != Failure::Command;
        session.failure = session.failure.take().filter(says_why).or(self.told().filter(says_why));
        if lost.is_some() {
            session.failure = None;
        }
        Err(match lost.or(first) {
            Some((failure, line)) => {
                StageError::new(failure, format!("{line}\n  {}", error.message))
            }
            None => error,
        })
    }

    /// Why a process other than the first was about to fail.
    fn told(&self) -> Option<(Failure, String)> {
        let text = std::fs::read_to_string(&self.failure).ok()?;
        match Message::parse(&text) {
            Ok(Message::Failure { failure, message }) => Some((failure, message)),
            _ => None,
        }
    }
}

/// The words that start a program once for each process. What `srun` would take from the
/// environment and may not do here is said in full.
fn words(
    Tasks { nodes, per_node }: Tasks,
    grace: Duration,
    port: u16,
    ended: &Path,
    cpus: Option<u32>,
) -> Result<Vec<String>, StageError> {
    let failed = |what: String| StageError::new(Failure::Command, what);
    let own = std::env::current_exe()
        .map_err(|e| failed(format!("failed to find the program that starts processes: {e}")))?;
    let text = |path: &Path| {
        let text = path.to_str().map(str::to_owned);
        text.ok_or_else(|| failed(format!("{} cannot be handed to srun", path.display())))
    };
    let mut words = vec!["srun".to_owned(), format!("--nodes={nodes}")];
    words.push(format!("--ntasks={}", nodes.saturating_mul(per_node)));
    words.push(format!("--ntasks-per-node={per_node}"));
    words.extend(cpus.map(|cpus| format!("--cpus-per-task={cpus}")));
    let fixed = [
        // Process 0 is on the first node, where this one is.
        "--distribution=block",
        "--kill-on-bad-exit=1",
        "--wait=0",
        "--export=ALL",
        "--input=all",
        "--output=all",
        "--label",
    ];
    words.extend(fixed.map(str::to_owned));
    words.extend([text(&own)?, "job".into(), "rank".into()]);
    words.push(format!("--port={port}"));
    words.push(format!("--grace={}", grace.as_millis()));
    words.push(format!("--ended={}", text(ended)?));
    words.push("--".into());
    Ok(words)
}

/// A port of this machine that nobody listens at. Jobs that share the machine begin to look at
/// different ones.
fn free_port(job: u32) -> Result<u16, StageError> {
    let count = PORTS.end - PORTS.start;
    let tried = (0..PORTS_TRIED).map(|i| PORTS.start + (job % count + i * STRIDE) % count);
    let mut ports = tried.filter_map(|port| u16::try_from(port).ok());
    let free = ports.find(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok());
    let none = || StageError::new(Failure::Command, "no port is free for MASTER_PORT");
    free.ok_or_else(none)
}

/// Whether Slurm says that a node went away. Lines of the program begin with its number.
fn is_lost_node(line: &str) -> bool {
    let is_of_srun = line.starts_with("srun: ");
    let words = [
        "Node failure",
        "Required node not available",
        "Task launch for",
        "Timed out waiting for job step",
    ];
    (is_of_srun && words.iter().any(|words| line.contains(words)))
        || (line.contains("slurmstepd") && line.contains("DUE TO NODE FAILURE"))
}

/// What kind of failure a line of Slurm's about the end of a process is:
/// `srun: error: NODES: task 1: Exited with exit code 3`.
fn end_of_task(line: &str) -> Option<Failure> {
    if line.contains("slurmstepd") && line.contains("oom_kill event") {
        return Some(Failure::OutOfMemory);
    }
    let (_, of_tasks) = line.strip_prefix("srun: error: ")?.split_once(": task")?;
    let (_, how) = of_tasks.split_once(": ")?;
    match how.trim() {
        "Out Of Memory" => Some(Failure::OutOfMemory),
        // Nobody but the machine or a person ends one so.
        "Killed" | "Exited with exit code 137" => Some(Failure::DeviceLost),
        _ => Some(Failure::Command),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slurm_s_words_are_kinds_of_failure() {
        let cases = [
            ("srun: error: node2: task 1: Exited with exit code 3", Some(Failure::Command)),
            (
                "srun: error: node2: task 1: Segmentation fault (core dumped)",
                Some(Failure::Command),
            ),
            ("srun: error: node[1-2]: tasks 0-3: Killed", Some(Failure::DeviceLost)),
            ("srun: error: node2: task 1: Exited with exit code 137", Some(Failure::DeviceLost)),
            ("srun: error: node2: task 1: Out Of Memory", Some(Failure::OutOfMemory)),
            (
                "0: slurmstepd-node1: error: Detected 1 oom_kill event in StepId=5.0.",
                Some(Failure::OutOfMemory),
            ),
            ("1: srun: error: node2: task 1: Killed", None),
            ("srun: Job step aborted: Waiting up to 12 seconds for job step to finish.", None),
            ("0: epoch 1", None),
        ];
        for (line, kind) in cases {
            assert_eq!(end_of_task(line), kind, "{line}");
            assert!(!is_lost_node(line), "{line}");
        }
        for line in [
            "srun: error: Node failure on node2",
            "srun: error: Unable to create step for job 7: Required node not available (down, drained or reserved)",
            "srun: error: Timed out waiting for job step to complete",
            "srun: error: Task launch for StepId=7.1 failed on node node2: Communication connection failure",
            "slurmstepd: error: *** STEP 5.0 ON node1 CANCELLED AT 2026-01-01T00:00:00 DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***",
        ] {
            assert!(is_lost_node(line), "{line}");
        }
        assert!(!is_lost_node("0: Node failure"), "the program said so");
    }

    #[test]
    fn two_jobs_on_one_machine_look_at_different_ports_and_none_that_is_taken() {
        let one = free_port(70).unwrap();
        assert_ne!(one, free_port(71).unwrap());
        let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, one)).unwrap();
        assert_ne!(free_port(70).unwrap(), one);
        drop(taken);
        assert!((0..1_000).all(|job| PORTS.contains(&u32::from(free_port(job * 77).unwrap()))));
    }
}

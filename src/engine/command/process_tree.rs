//! All that a program started, and all that those started: what left the process group is found
//! too.
//!
//! On Linux this process takes over what loses its parent (`PR_SET_CHILD_SUBREAPER`), so that
//! everything stays below it in the tree of processes. What was taken over belongs to a program by
//! its process group, by a variable of its environment, or by the stage's lock, which every
//! descendant inherits. Elsewhere only the process group is known.

use std::collections::BTreeSet;
use std::io;
#[cfg(target_os = "linux")]
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pipe_fs::Lock;
#[cfg(target_os = "linux")]
use pipe_fs::processes::{self, Process};
#[cfg(unix)]
use rustix::process::{Pid, Signal, kill_process_group};

use super::process::GRACE;
use crate::pipeline_file::environment;

/// What a program left running may take so long to end by itself: what still writes what the
/// program gave it, for instance.
const LINGER: Duration = Duration::from_secs(1);
/// So long is looked for the end of what was ended by force.
const BY_FORCE: Duration = Duration::from_secs(5);
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// The programs that run now, by the process id of each. For the whole process: it reaps all that
/// becomes its child, and must know which of them are waited for.
static RUNNING: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

fn running() -> MutexGuard<'static, BTreeSet<i32>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends every program that runs, and its group, at once: this process is about to end without
/// another look at them.
pub fn end_all() {
    #[cfg(unix)]
    for pid in running().iter().copied().filter_map(Pid::from_raw) {
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

/// Text that no other program has in its environment.
fn token() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = chrono::Utc::now().timestamp_nanos_opt().unwrap_or_default();
    format!("{}-{now:x}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Takes over what loses its parent.
fn adopt() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        tracing::info!("what leaves a program's process group is not found: {error}");
    }
}

/// A program and its descendants.
pub(super) struct ProcessTree {
    leader: i32,
    #[cfg(target_os = "linux")]
    marks: processes::Marks,
}

/// What became of what a program left running.
#[derive(Debug, Default)]
pub(super) struct LeftRunning {
    pub ended: Vec<String>,
    /// It could not be ended.
    pub stays: Vec<String>,
}

impl Drop for ProcessTree {
    fn drop(&mut self) {
        running().remove(&self.leader);
    }
}

impl ProcessTree {
    /// Starts a program that heads a process group and holds the stage's lock, if there is one, as
    /// long as any of its descendants does: then nobody starts a second one beside it, even if this
    /// process is ended by force.
    pub fn start(command: &mut Command, lock: Option<&Lock>) -> io::Result<(Child, Self)> {
        adopt();
        let token = token();
        let outer =
            std::env::var(environment::STAGE_TOKEN).map(|outer| outer + " ").unwrap_or_default();
        command.env(environment::STAGE_TOKEN, format!("{outer}{token}"));
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(command, 0);
        // No other program is started meanwhile: it would inherit the lock, too. What ends
        // meanwhile is not reaped as one that nobody knows.
        let mut running = running();
        #[cfg(unix)]
        let _inherited = lock.map(|lock| {
            lock.inherited().inspect_err(|e| {
                tracing::warn!("the program does not hold the lock of its stage: {e}")
            })
        });
        #[cfg(not(unix))]
        let _ = lock;
        let child = command.spawn()?;
        let leader = i32::try_from(child.id()).unwrap_or(0);
        running.insert(leader);
        let family = Self {
            leader,
            #[cfg(target_os = "linux")]
            marks: processes::Marks::of(
                leader,
                environment::STAGE_TOKEN,
                &token,
                lock.map_or(Path::new(""), Lock::path),
            ),
        };
        Ok((child, family))
    }

    /// Asks the program itself to end: what it started may be needed until it has saved.
    pub fn signal_leader(&self) {
        #[cfg(unix)]
        if let Some(leader) = Pid::from_raw(self.leader) {
            let _ = rustix::process::kill_process(leader, Signal::TERM);
        }
    }

    /// Asks all of them to end, or ends them.
    #[cfg(unix)]
    pub fn signal(&self, by_force: bool) {
        let signal = if by_force { Signal::KILL } else { Signal::TERM };
        #[cfg(target_os = "linux")]
        let apart = self.members();
        if let Some(group) = Pid::from_raw(self.leader) {
            let _ = kill_process_group(group, signal);
        }
        #[cfg(target_os = "linux")]
        for process in apart.iter().filter(|process| process.group != self.leader) {
            process.signal(signal);
        }
    }

    #[cfg(not(unix))]
    pub fn signal(&self, _: bool) {}

    /// Ends what is there after the program itself has ended.
    pub fn finish(&self, stopped: bool) -> LeftRunning {
        if stopped {
            self.signal(true);
            return LeftRunning { ended: Vec::new(), stays: self.wait(BY_FORCE) };
        }
        let mut told = self.wait(LINGER);
        if told.is_empty() {
            return LeftRunning::default();
        }
        self.signal(false);
        let mut stays = self.wait(GRACE);
        let until = Instant::now() + BY_FORCE;
        while !stays.is_empty() && Instant::now() < until {
            self.signal(true);
            stays = self.wait(Duration::from_millis(200));
        }
        told.retain(|name| !stays.contains(name));
        LeftRunning { ended: told, stays }
    }

    /// Waits until nobody is there, and says who is after that time.
    fn wait(&self, time: Duration) -> Vec<String> {
        let until = Instant::now() + time;
        loop {
            let names = self.names();
            if names.is_empty() || Instant::now() >= until {
                return names;
            }
            std::thread::sleep(BETWEEN_LOOKS);
        }
    }
}

#[cfg(target_os = "linux")]
impl ProcessTree {
    fn members(&self) -> Vec<Process> {
        // Nothing is started while this looks.
        let running = running();
        self.marks.members(&processes::all(), &running)
    }

    pub fn names(&self) -> Vec<String> {
        self.members().iter().map(Process::name).collect()
    }

    /// Takes note of the ends of those that were taken over, for which nobody else waits.
    pub fn reap(&self) {
        let running = running();
        processes::reap(&processes::all(), &running);
    }
}

#[cfg(all(unix, not(target_os = "linux")))]
impl ProcessTree {
    pub fn names(&self) -> Vec<String> {
        let there = Pid::from_raw(self.leader)
            .is_some_and(|group| rustix::process::test_kill_process_group(group).is_ok());
        let name = || format!("processes of its group {}", self.leader);
        there.then(name).into_iter().collect()
    }

    pub fn reap(&self) {}
}

#[cfg(not(unix))]
impl ProcessTree {
    pub fn names(&self) -> Vec<String> {
        Vec::new()
    }

    pub fn reap(&self) {}
}

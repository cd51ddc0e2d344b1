//! The processes of this system as `/proc` shows them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// Characters of a command line that are shown.
const SHOWN: usize = 120;

/// A process of this machine, as `/proc` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    parent: i32,
    pub group: i32,
    /// It has ended, and its parent has not taken note of that.
    is_over: bool,
    /// Ticks between the start of the system and its own.
    start: u64,
}

impl Process {
    /// The process of that id, if there is one.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        // The name of the program, which may hold anything, stands in brackets.
        let behind = stat.iter().rposition(|byte| *byte == b')')?;
        let text = String::from_utf8_lossy(stat.get(behind + 1..)?).into_owned();
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field).and_then(|field| field.parse::<i64>().ok());
        Some(Self {
            pid,
            is_over: matches!(fields.first(), Some(&"Z" | &"X")),
            parent: number(1)? as i32,
            group: number(2)? as i32,
            start: number(19)? as u64,
        })
    }

    /// Its command line and its number.
    pub fn name(&self) -> String {
        format!("{} (pid {})", command_line(self.pid), self.pid)
    }

    /// Signals it, if it is still the same process.
    pub fn signal(&self, signal: Signal) {
        if Self::of(self.pid).is_some_and(|now| now.start == self.start)
            && let Some(pid) = Pid::from_raw(self.pid)
        {
            let _ = kill_process(pid, signal);
        }
    }
}

/// What a process was called with, as far as it fits into a line.
pub fn command_line(pid: i32) -> String {
    let read = |what: &str| fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
    let words = read("cmdline");
    let text = if words.is_empty() {
        String::from_utf8_lossy(&read("comm")).trim().to_owned()
    } else {
        String::from_utf8_lossy(&words).replace('\0', " ").trim().to_owned()
    };
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// All processes that this one may see.
pub fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(Process::of).collect()
}

/// What the processes below a program have in common.
pub struct Marks {
    leader: i32,
    /// When the program itself began.
    start: u64,
    /// `NAME=`, of the variable that holds the token.
    variable: String,
    token: String,
    lock: PathBuf,
}

impl Marks {
    /// `variable`: the name of the one in the environment that holds `token`, perhaps among others.
    pub fn of(leader: i32, variable: &str, token: &str, lock: &Path) -> Self {
        let start = Process::of(leader).map_or(0, |process| process.start);
        let lock = lock.canonicalize().unwrap_or_else(|_| lock.to_owned());
        let variable = format!("{variable}=");
        Self { leader, start, variable, token: token.to_owned(), lock }
    }

    /// The program and all below it that have not ended. `leaders`: the programs that run now.
    pub fn members(&self, all: &[Process], leaders: &BTreeSet<i32>) -> Vec<Process> {
        let own = Process::of(std::process::id() as i32);
        let is_root = |process: &&Process| {
            process.group == self.leader
                || own.as_ref().is_some_and(|own| {
                    let is_taken_over = process.parent == own.pid && process.group != own.group;
                    let may_be = is_taken_over
                        && process.start >= self.start
                        && !leaders.contains(&process.pid);
                    // What shows no mark is of the only program that runs.
                    may_be
                        && (self.is_marked(process.pid)
                            || leaders.iter().all(|pid| *pid == self.leader))
                })
        };
        let mut found: BTreeSet<i32> =
            all.iter().filter(is_root).map(|process| process.pid).collect();
        loop {
            let below = all.iter().filter(|p| found.contains(&p.parent) && !found.contains(&p.pid));
            let below: Vec<i32> = below.map(|process| process.pid).collect();
            if below.is_empty() {
                break;
            }
            found.extend(below);
        }
        all.iter()
            .filter(|process| found.contains(&process.pid) && !process.is_over)
            .cloned()
            .collect()
    }

    fn is_marked(&self, pid: i32) -> bool {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let token = environment
            .split(|byte| *byte == 0)
            .find_map(|line| line.strip_prefix(self.variable.as_bytes()));
        let has_token = token.is_some_and(|token| {
            token.split(|byte| *byte == b' ').any(|token| token == self.token.as_bytes())
        });
        has_token || holds(pid, &self.lock)
    }
}

/// Whether a process has a file locked (`flock`), itself or by inheritance, as far as this one may
/// know that.
fn holds(pid: i32, file: &Path) -> bool {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let is_it =
        |entry: &fs::DirEntry| fs::read_link(entry.path()).is_ok_and(|target| target == file);
    open.into_iter().filter(is_it).any(|entry| {
        let about = Path::new("/proc").join(pid.to_string()).join("fdinfo").join(entry.file_name());
        fs::read_to_string(about)
            .is_ok_and(|text| text.lines().any(|line| line.starts_with("lock:")))
    })
}

/// The processes that have a file locked, as far as this one may know that.
pub fn holders(file: &Path) -> Vec<i32> {
    let Ok(file) = file.canonicalize() else { return Vec::new() };
    let mut pids: Vec<i32> = all().iter().map(|process| process.pid).collect();
    pids.retain(|pid| holds(*pid, &file));
    pids
}

/// Takes note of the ends of what this process has taken over. For `leaders` somebody waits.
pub fn reap(all: &[Process], leaders: &BTreeSet<i32>) {
    let Some(own) = Process::of(std::process::id() as i32) else { return };
    let is_taken_over = |p: &&Process| p.parent == own.pid && p.group != own.group;
    for process in
        all.iter().filter(is_taken_over).filter(|p| p.is_over && !leaders.contains(&p.pid))
    {
        if let Some(pid) = Pid::from_raw(process.pid) {
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
    }
}

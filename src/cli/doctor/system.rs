//! Memory, cores, and the programs that some stages call.

use std::path::Path;
use std::time::Duration;

use super::child;
use super::finding::{Finding, commands};
use super::machine::{Machine, Package};
use crate::report::table::bytes;

/// A step of the smallest preset takes half of this, with the program.
const LITTLE_MEMORY: u64 = 2_000_000_000;

/// What of a machine's memory may be used: all, and what nobody uses now.
#[derive(Debug, PartialEq, Eq)]
struct Memory {
    whole: u64,
    free: u64,
}

impl Memory {
    /// By Linux's files, and no more than a container may have. `None` where there are none.
    fn of(machine: &Machine) -> Option<Self> {
        let text = machine.read("/proc/meminfo").ok()?;
        let number = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| 1024 * kib)
        };
        let (whole, free) = (number("MemTotal:")?, number("MemAvailable:")?);
        let files = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
        let limit = |file: &&str| machine.read(file).ok()?.trim().parse::<u64>().ok();
        let limit = files.iter().find_map(limit).unwrap_or(u64::MAX);
        Some(Self { whole: whole.min(limit), free: free.min(limit) })
    }
}

pub fn memory_finding(machine: &Machine, cores: usize) -> Finding {
    let cores = format!("{cores} processor threads");
    let Some(memory) = Memory::of(machine) else { return Finding::ok("memory", cores) };
    let text = format!("{}, {} of it free; {cores}", bytes(memory.whole), bytes(memory.free));
    if memory.free < LITTLE_MEMORY {
        Finding::warning("memory", format!("{text}; a smaller batch needs less"))
            .with_remedy(commands::SMALL_BATCH)
    } else {
        Finding::ok("memory", text)
    }
}

/// What Python says that has the package, on one line; `None` without Python or without it.
pub fn python_finding() -> Finding {
    const ASK: &str = "import sys, importlib.metadata as m\n\
                       print(sys.version.split()[0])\n\
                       try: print(m.version('burn-pipe'))\n\
                       except m.PackageNotFoundError: print()";
    let program = if cfg!(windows) { "python" } else { "python3" };
    let told = child::run(program, &["-c", ASK], Duration::from_secs(20));
    let told = told.ok().filter(|ended| ended.code == Some(0)).map(|ended| ended.stdout);
    python(told.as_deref())
}

fn python(told: Option<&str>) -> Finding {
    let mut lines = told.unwrap_or_default().lines();
    match (lines.next(), lines.next().filter(|version| !version.is_empty())) {
        (Some(python), Some(version)) => {
            Finding::ok("python", format!("{python} with burn_pipe {version}"))
        }
        (Some(python), None) => Finding::ok(
            "python",
            format!("{python} without burn_pipe, which only training programs in Python need"),
        )
        .with_remedy(commands::PACKAGE),
        (None, _) => Finding::ok("python", "none, and needed for trainers in Python alone"),
    }
}

/// Runs note the commit of the project that they are in.
pub fn git_finding(machine: &Machine, project: &Path) -> Finding {
    let told = child::run("git", &["--version"], Duration::from_secs(20));
    let version = told.ok().filter(|ended| ended.code == Some(0)).map(|ended| ended.stdout);
    let is_repository = project.ancestors().any(|folder| folder.join(".git").exists());
    git(machine, version.as_deref(), is_repository)
}

fn git(machine: &Machine, version: Option<&str>, is_repository: bool) -> Finding {
    match (version, is_repository) {
        (Some(version), _) => Finding::ok("git", version.trim().trim_start_matches("git version ")),
        (None, false) => Finding::ok("git", "none, and the project is in no repository"),
        (None, true) => {
            let finding = Finding::warning("git", "none: runs do not note the project's commit");
            match machine.install(Package::Git) {
                Some(command) => finding.with_remedy(command),
                None => finding,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::super::machine::tests::TestMachine;
    use super::*;

    #[test]
    fn memory_is_that_of_the_machine_or_of_the_container() {
        let meminfo = "MemTotal:       16000000 kB\nMemFree: 1 kB\nMemAvailable:    8000000 kB\n";
        let made = TestMachine::new().file("/proc/meminfo", meminfo);
        let whole = Memory { whole: 16_384_000_000, free: 8_192_000_000 };
        assert_eq!(Memory::of(&made.machine), Some(whole));
        let finding = memory_finding(&made.machine, 4);
        assert_eq!(finding.text, "16.4 GB, 8.2 GB of it free; 4 processor threads");
        let unlimited = made.file("/sys/fs/cgroup/memory.max", "max\n");
        assert_eq!(memory_finding(&unlimited.machine, 4), finding);
        let little = unlimited.file("/sys/fs/cgroup/memory.max", "1000000000\n");
        let finding = memory_finding(&little.machine, 4);
        assert_eq!(finding.verdict, Verdict::Warning);
        assert!(finding.text.starts_with("1.0 GB, 1.0 GB of it free"), "{}", finding.text);
        let none = memory_finding(&TestMachine::new().machine, 4);
        assert_eq!(none, Finding::ok("memory", "4 processor threads"));
    }

    #[test]
    fn programs_are_missed_only_where_they_are_of_use() {
        assert_eq!(python(Some("3.12.1\n0.1.0\n")).text, "3.12.1 with burn_pipe 0.1.0");
        let bare = python(Some("3.12.1\n\n"));
        assert_eq!(bare.remedy.as_deref(), Some(commands::PACKAGE));
        assert_eq!((bare.verdict, python(None).verdict), (Verdict::Ok, Verdict::Ok));
        let machine = &TestMachine::new().debian().machine;
        assert_eq!(git(machine, Some("git version 2.47.1\n"), true).text, "2.47.1");
        assert_eq!(git(machine, None, false).verdict, Verdict::Ok);
        let missed = git(machine, None, true);
        assert_eq!(missed.verdict, Verdict::Warning);
        assert_eq!(missed.remedy.as_deref(), Some("apt-get install git"));
    }
}

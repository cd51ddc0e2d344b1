//! The power goes, on real file systems in files: they are shut down without their journal being
//! written, as by their own tests. Needs root, loop devices and the tools of the file systems.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::workloads::{after, writes_in};
use crate::crash::Random;
use crate::project::{Project, send};
use crate::results::{Options, Results, ensure};
use crate::state::{RUN, State, chain, chain_with, goes_on, nothing_reported_is_missing, text};

const SYSTEMS: [System; 3] = [
    System { name: "ext4", make: &["mkfs.ext4", "-q", "-F"], options: "loop" },
    System {
        name: "ext4 that orders nothing",
        make: &["mkfs.ext4", "-q", "-F"],
        options: "loop,data=writeback",
    },
    System { name: "XFS", make: &["mkfs.xfs", "-q", "-f"], options: "loop" },
];

struct System {
    name: &'static str,
    make: &'static [&'static str],
    options: &'static str,
}

/// Most power cuts in one project.
const LIVES: usize = 6;

pub fn section(options: &Options, results: &mut Results) {
    let expected = [after(&chain(), &RUN), after(&writes_in(Project::new()), &RUN)];
    for system in &SYSTEMS {
        let what = format!("real power cut on {}", system.name);
        if let Err(why) = Mounted::new(system, Project::new()).and_then(|mounted| mounted.cut()) {
            results.skip(&what, &why);
            continue;
        }
        let (cuts, rounds) = (AtomicUsize::new(0), 0..options.rounds.min(16));
        results.each(&what, &rounds.collect::<Vec<_>>(), |round| {
            let mut random = Random(options.seed.wrapping_mul(31).wrapping_add(*round as u64) | 1);
            let filled = [chain_with, writes_in][round % 2];
            round_of(system, filled, &expected[round % 2], &mut random, &cuts)
        });
        results.tried(cuts.into_inner());
    }
}

/// Runs until it comes to its end; now and then the power goes. Then it goes once more.
fn round_of(
    system: &System,
    filled: fn(Project) -> Project,
    expected: &State,
    random: &mut Random,
    cuts: &AtomicUsize,
) -> Result<(), String> {
    let mut mounted = Mounted::new(system, Project::new())?;
    mounted.fill(filled);
    run("sync", &["-f".as_ref(), &mounted.place()])?;
    let mut told = Vec::new();
    for life in 0..=LIVES {
        let mut command = mounted.project().command(&RUN);
        command.args(["--log", "json"]).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| e.to_string())?;
        let until = if life == LIVES { 60_000 } else { random.below(500) };
        let ended = wait(&mut child, Duration::from_millis(until))?;
        if !ended {
            send(&child, "STOP");
            std::thread::sleep(Duration::from_millis(5));
        }
        let cut = mounted.cut();
        let _ = child.kill();
        let output = child.wait_with_output().map_err(|e| e.to_string())?;
        cut?;
        cuts.fetch_add(1, Ordering::Relaxed);
        ensure(!ended || output.status.success(), || text(&output.stderr))?;
        told.extend(output.stderr);
        mounted.again()?;
        nothing_reported_is_missing(mounted.project(), &told)?;
        if ended {
            return goes_on(mounted.project(), expected);
        }
    }
    Err("it does not come to its end".into())
}

fn wait(child: &mut std::process::Child, longest: Duration) -> Result<bool, String> {
    let started = std::time::Instant::now();
    while started.elapsed() < longest {
        if child.try_wait().map_err(|e| e.to_string())?.is_some() {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(false)
}

/// A file system in a file, mounted on a project's folder. Unmounted when it is dropped.
struct Mounted<'a> {
    system: &'a System,
    /// Holds the file.
    folder: tempfile::TempDir,
    project: Option<Project>,
}

impl<'a> Mounted<'a> {
    fn new(system: &'a System, project: Project) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        let this = Self { system, folder, project: Some(project) };
        let file = std::fs::File::create(this.image()).map_err(|e| e.to_string())?;
        file.set_len(350 << 20).map_err(|e| e.to_string())?;
        let (program, arguments) = system.make.split_first().unwrap_or((&"", &[]));
        let mut arguments: Vec<&Path> = arguments.iter().map(Path::new).collect();
        let image = this.image();
        arguments.push(&image);
        run(program, &arguments)?;
        this.mount()?;
        Ok(this)
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    fn project(&self) -> &Project {
        self.project.as_ref().unwrap()
    }

    fn fill(&mut self, filled: fn(Project) -> Project) {
        self.project = self.project.take().map(filled);
    }

    fn place(&self) -> PathBuf {
        self.project().path("")
    }

    fn mount(&self) -> Result<(), String> {
        run("mount", &["-o".as_ref(), self.system.options.as_ref(), &self.image(), &self.place()])
    }

    /// The power goes: what is not on the disk now never comes there.
    fn cut(&self) -> Result<(), String> {
        run("xfs_io", &["-x".as_ref(), "-c".as_ref(), "shutdown".as_ref(), &self.place()])
    }

    /// The machine is started again.
    fn again(&self) -> Result<(), String> {
        self.unmount()?;
        self.mount()
    }

    fn unmount(&self) -> Result<(), String> {
        let mut result = Ok(());
        // A program that was started by the one that was killed may have its last moments there.
        for _ in 0..100 {
            result = run("umount", &[&self.place()]);
            if result.is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        result
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        if self.project.is_some() && self.unmount().is_err() {
            let _ = run("umount", &["-l".as_ref(), &self.place()]);
        }
    }
}

fn run(program: &str, arguments: &[&Path]) -> Result<(), String> {
    let output =
        Command::new(program).args(arguments).output().map_err(|e| format!("{program}: {e}"))?;
    ensure(output.status.success(), || format!("{program}: {}", text(&output.stderr).trim()))
}

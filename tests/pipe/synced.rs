//! What the disk is asked, in which order: a library that is loaded before the system's writes it
//! down, and refuses what some file systems do not have.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use crate::project::{Ended, Project, TINY, root, weights};

/// The library; `None`, and a word, where no compiler is at hand.
fn library() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<(tempfile::TempDir, PathBuf)>> = OnceLock::new();
    let build = || {
        let folder = tempfile::tempdir().unwrap();
        let (source, library) =
            (root().join("tests/pipe/odd_disk.c"), folder.path().join("odd_disk.so"));
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source);
        let is_built =
            cfg!(target_os = "linux") && cc.status().is_ok_and(|status| status.success());
        is_built.then_some((folder, library))
    };
    let built = BUILT.get_or_init(build);
    if built.is_none() {
        println!("skipped: there is no C compiler, or this is not Linux");
    }
    built.as_ref().map(|(_, library)| library.as_path())
}

/// Runs `pipe` on the disk that lacks `odd`.
fn on(project: &Project, odd: &str, arguments: &[&str]) -> Option<Ended> {
    let mut command = project.command(arguments);
    command.env("LD_PRELOAD", library()?).env("ODD", odd).env("DISK_LOG", project.path("disk.log"));
    Some(Ended::of(command, arguments))
}

/// What was asked of the disk, in order: what, and the path inside the project.
fn asked(project: &Project) -> Vec<(String, String)> {
    let root = project.path("").canonicalize().unwrap();
    let log = project.read("disk.log");
    let parsed = log.lines().filter_map(|line| line.split_once(' '));
    parsed
        .map(|(what, path)| {
            let path = Path::new(path);
            (what.to_owned(), path.strip_prefix(&root).unwrap_or(path).display().to_string())
        })
        .collect()
}

/// All of these were synced.
#[track_caller]
fn synced(asked: &[(String, String)], paths: &[&str]) {
    for path in paths {
        assert!(
            asked.contains(&("sync".into(), (*path).into())),
            "{path} was not synced in {asked:#?}"
        );
    }
}

fn place(asked: &[(String, String)], what: &str, is: impl Fn(&str) -> bool) -> usize {
    asked
        .iter()
        .position(|(w, path)| w == what && is(path))
        .unwrap_or_else(|| panic!("no {what} in {asked:#?}"))
}

#[test]
fn what_a_program_wrote_is_on_the_disk_before_it_is_recorded() {
    let project = Project::new();
    project.write(
        "p.yaml",
        "name: c
stages:
  make:
    kind: command
    run: 'mkdir -p out/a/b away && echo 1 > out/a/b/1 && echo 2 > out/2 && printf 3 | dd of=old.bin conv=notrunc && \
         echo 4 > away/4 && ln -sf ../away/4 out/link && echo ended x >> disk.log'
    outputs: [out, old.bin]
",
    );
    project.write("old.bin", "old");
    let Some(ended) = on(&project, "", &["run", "p.yaml"]) else { return };
    ended.succeeds();
    let asked = asked(&project);
    let after = &asked[place(&asked, "ended", |_| true)..];
    let recorded = place(after, "rename", |path| path.ends_with("records/c/make.json"));
    let files = ["out/a/b/1", "out/2", "old.bin", "away/4"];
    let folders = ["out/a/b", "out/a", "out", "", "away"];
    synced(&after[..recorded], &files);
    synced(&after[..recorded], &folders);
    let last_file =
        files.map(|file| place(after, "sync", |path| path == file)).into_iter().max().unwrap();
    assert!(
        after[..recorded][last_file..].iter().any(|(_, path)| path == "out"),
        "names after contents"
    );
}

#[test]
fn folders_that_stand_already_are_on_the_disk_before_anything_in_them() {
    let project = Project::new();
    // As a process leaves them that was killed right after it made them.
    for folder in ["records/tiny", "locks/tiny"] {
        std::fs::create_dir_all(project.path(".pipe").join(folder)).unwrap();
    }
    std::fs::create_dir_all(project.path("checkpoints/base_training")).unwrap();
    let Some(ended) = on(&project, "", &["run", "p.yaml"]) else { return };
    ended.succeeds();
    let asked = asked(&project);
    for (at, (_, path)) in asked.iter().enumerate().filter(|(_, (what, _))| what == "rename") {
        let folders =
            Path::new(path).ancestors().skip(2).map(|folder| folder.display().to_string());
        folders.for_each(|folder| synced(&asked[..at], &[&folder]));
    }
}

#[test]
fn a_removed_run_is_gone_for_good_before_its_files_are() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml"]).succeeds();
    let Some(ended) = on(&project, "", &["runs", "rm", "1", "--force"]) else { return };
    ended.succeeds();
    let asked = asked(&project);
    let hidden = place(&asked, "rename", |path| path.contains("/.run_001.tmp-"));
    let removed = place(&asked, "remove", |path| path.contains("/.run_001.tmp-"));
    synced(&asked[hidden..removed], &["checkpoints/base_training"]);
}

#[test]
fn a_checkpoint_has_its_figures_on_the_disk() {
    let project = Project::new();
    let often = ["run", "p.yaml", "--set", "base.checkpoint.save_every_n_steps=1", "--epochs", "3"];
    let Some(ended) = on(&project, "", &often) else { return };
    ended.succeeds();
    let steps: Vec<u64> = project
        .read("checkpoints/base_training/run_001/logs/metrics.jsonl")
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["step"].as_u64().unwrap()
        })
        .collect();
    // Additions to each log up to now, and those that the disk keeps. Each addition is one write.
    let (mut written, mut kept) =
        (BTreeMap::<String, usize>::new(), BTreeMap::<String, usize>::new());
    let mut checkpoints = 0;
    for (what, path) in asked(&project) {
        match what.as_str() {
            "write" => *written.entry(path).or_default() += 1,
            "sync" => {
                if let Some(count) = written.get(&path) {
                    kept.insert(path, *count);
                }
            }
            "rename" => {
                let name = Path::new(&path).file_stem().unwrap().to_string_lossy().into_owned();
                // Four steps make an epoch.
                let step = match name.split_once('_') {
                    Some(("epoch", number)) => 4 * number.parse::<u64>().unwrap(),
                    Some(("step", number)) => number.parse().unwrap(),
                    _ => continue,
                };
                checkpoints += 1;
                let figures = steps.iter().filter(|s| **s <= step).count();
                let kept_of = |log: &str| {
                    kept.iter().find(|(path, _)| path.contains(log)).map_or(0, |(_, n)| *n)
                };
                assert!(kept_of("metrics.jsonl") >= figures, "{path}: {kept:?} of {figures}");
                // One more says what the file is.
                assert!(kept_of("tfevents") > figures, "{path}: {kept:?} of {figures}");
            }
            _ => {}
        }
    }
    assert!(checkpoints >= 12, "{checkpoints}");
}

/// Error numbers of Linux.
const EPERM: i32 = 1;
const EIO: i32 = 5;
const EINVAL: i32 = 22;
const ENOLCK: i32 = 37;
const ENOSYS: i32 = 38;
const EOPNOTSUPP: i32 = 95;

#[test]
fn a_disk_that_lacks_something_is_told_of_once_and_trained_on() {
    let whole = Project::new();
    whole.pipe(&["run", "p.yaml"]).succeeds();
    let trained = |project: &Project| {
        weights(&project.path("checkpoints/base_training/run_001/checkpoints/last.ckpt"))
    };
    let expected = trained(&whole);
    for (what, number, says) in [
        ("flock", ENOLCK, "two machines that run this at once would not notice each other"),
        ("flock", ENOSYS, "would not notice each other"),
        ("flock", EOPNOTSUPP, "would not notice each other"),
        ("flock", EINVAL, "would not notice each other"),
        ("folder", EINVAL, "after a power cut, what was saved last can be missing"),
        ("folder", EOPNOTSUPP, "after a power cut"),
        ("link", EPERM, ""),
    ] {
        let project = Project::new();
        let Some(ended) = on(&project, &format!("{what}={number}"), &["run", "p.yaml"]) else {
            return;
        };
        let told = ended.succeeds().says(says).stderr();
        assert_eq!(told.matches("WARN").count(), usize::from(!says.is_empty()), "{told}");
        assert!(trained(&project) == expected, "{what}={number}");
        on(&project, &format!("{what}={number}"), &["run", "p.yaml"])
            .unwrap()
            .succeeds()
            .says("up to date");
    }
    // What goes wrong is no lack.
    for what in ["folder", "file"] {
        let Some(ended) = on(&Project::new(), &format!("{what}={EIO}"), &["run", "p.yaml"]) else {
            return;
        };
        ended.exits(1).says("Input/output error");
    }
}

#[test]
fn without_locks_processes_of_one_machine_notice_each_other() {
    let project = Project::with("epochs: 2", "epochs: 100000");
    let Some(library) = library() else { return };
    let mut command = project.command(&["run", "p.yaml"]);
    command.env("LD_PRELOAD", library).env("ODD", format!("flock={ENOLCK}"));
    let mut first = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = project.path("checkpoints/base_training/run_001/checkpoints/last.ckpt");
    while !begun.exists() {
        assert_eq!(first.try_wait().unwrap(), None, "it trains");
        std::thread::sleep(Duration::from_millis(20));
    }
    let odd = format!("flock={ENOLCK}");
    let second = on(&project, &odd, &["run", "p.yaml"]).unwrap();
    second.exits(2).says(&format!("pid {}", first.id()));
    first.kill().unwrap();
    first.wait().unwrap();
    // What is left of it is in nobody's way.
    on(&project, &odd, &["run", "p.yaml", "--epochs", "1", "--force"]).unwrap().succeeds();
}

#[test]
fn a_store_on_a_file_server_that_lacks_something_has_all() {
    for odd in [
        format!("link={EPERM}"),
        format!("link={EOPNOTSUPP} folder={EINVAL}"),
        format!("flock={ENOSYS}"),
    ] {
        let (project, place) = (Project::new(), tempfile::tempdir().unwrap());
        let store = format!("file://{}/store", place.path().display());
        let Some(ended) = on(&project, &odd, &["run", "p.yaml", "--store", &store]) else { return };
        let told = ended.succeeds().stderr();
        assert_eq!(
            told.contains("two machines that put the same pipeline's state"),
            odd.contains("link"),
            "{told}"
        );
        let elsewhere = Project::new();
        elsewhere.pipe(&["run", "p.yaml", "--store", &store]).succeeds().says("up to date");
    }
}

#[test]
fn fsync_says_what_is_synced() {
    let synced = |level: &str| {
        let project = Project::new();
        let ended = on(&project, "", &["run", "p.yaml", "--set", &format!("fsync={level}")])?;
        ended.succeeds();
        let asked = asked(&project).into_iter().filter(|(what, _)| what == "sync");
        let (folders, files): (Vec<_>, Vec<_>) = asked.partition(|(_, path)| {
            path.is_empty() || path.starts_with('/') || project.path(path).is_dir()
        });
        Some((!folders.is_empty(), !files.is_empty()))
    };
    let Some(full) = synced("full") else { return };
    assert_eq!(full, (true, true));
    assert_eq!(synced("data"), Some((false, true)));
    assert_eq!(synced("off"), Some((false, false)));
    let project = Project::new();
    project.write("p.yaml", TINY.replace("params:", "fsync: never\nparams:"));
    project
        .pipe(&["plan", "p.yaml"])
        .exits(2)
        .says("expected `full`, `data` or `off`, found \"never\"")
        .says("p.yaml:2");
    project.write("p.yaml", TINY.replace("params:", "fsync: off\nparams:"));
    project.pipe(&["plan", "p.yaml"]).succeeds();
}

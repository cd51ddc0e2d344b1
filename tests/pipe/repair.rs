//! `pipe verify --repair`: whatever is damaged, the next run makes the project what it was.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use crate::chain::{BASE, LORA, chain, results};
use crate::project::{Project, all_tensors};

const RUN: &str = "checkpoints/base_training/run_001";

/// What happens to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    Flipped,
    Cut,
    Zeroed,
    Removed,
}

use Harm::{Cut, Flipped, Removed, Zeroed};

/// A copy of a project in which files with two names have two names.
fn copy(from: &Project) -> Project {
    let project = chain();
    let all = from.path("").join(".");
    assert!(
        Command::new("cp").arg("-a").arg(all).arg(project.path("")).status().unwrap().success()
    );
    project
}

/// The files below a folder, relative to it.
fn files(root: &Path) -> BTreeSet<String> {
    let (mut found, mut folders) = (BTreeSet::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path)
            } else {
                found.insert(path.strip_prefix(root).unwrap().display().to_string());
            }
        }
    }
    found
}

/// Files of which something is noted: no settings, caches, locks, and nothing that is written for
/// people alone.
fn is_noted(file: &str) -> bool {
    let state = file.starts_with(".pipe/records/") || !file.starts_with('.');
    let for_people = ["p.yaml", "config.yaml", ".lock"].iter().any(|end| file.ends_with(end));
    state && !for_people && !file.contains("/logs/") && !file.starts_with("data")
}

/// Harms a file in its place, so that all its names show it.
fn harm(path: &Path, harm: Harm) {
    let mut bytes = std::fs::read(path).unwrap();
    let half = bytes.len() / 2;
    match harm {
        Flipped => bytes[half] ^= 1,
        Cut => bytes.truncate(half),
        Zeroed => bytes.fill(0),
        Removed => return std::fs::remove_file(path).unwrap(),
    }
    std::fs::write(path, bytes).unwrap();
}

fn inode(project: &Project, file: &str) -> Option<u64> {
    std::fs::metadata(project.path(file)).ok().map(|m| m.ino())
}

/// What must not depend on the damage. A best checkpoint that is not the newest one cannot be made
/// again without training all: what is the best of the others then, and what is made from it, is
/// another.
fn outcome(project: &Project, is_best_lost: bool) -> Vec<(String, Vec<u8>)> {
    if !is_best_lost {
        return results(project);
    }
    let last = project.path(&format!("{LORA}/checkpoints/last.ckpt"));
    [all_tensors(&project.path(BASE)), all_tensors(&last)].concat()
}

/// Whether the file is named, or another name of it, or the folder that it belongs to as a whole.
fn is_named(project: &Project, said: &str, file: &str) -> bool {
    let id = inode(project, file);
    let same = |other: &str| other == file || (id.is_some() && inode(project, other) == id);
    let named = said.lines().filter_map(|line| line.strip_prefix("damaged ")?.split_once(": "));
    named.map(|(path, _)| path).any(|path| same(path) || file.starts_with(&format!("{path}/")))
}

#[test]
fn whatever_is_damaged_is_named_and_repaired_and_made_again() {
    let whole = chain();
    whole.pipe(&["run", "p.yaml", "-q"]).succeeds();
    whole.pipe(&["verify"]).succeeds();
    let names: Vec<String> =
        files(&whole.path("")).into_iter().filter(|file| is_noted(file)).collect();
    for kind in [
        ".ckpt",
        "metadata.json",
        ".previous",
        "records/chain/base.json",
        "adapter_config.json",
        "lora.png",
    ] {
        assert!(names.iter().any(|name| name.ends_with(kind)), "no {kind} in {names:?}");
    }
    let mut cases = Vec::new();
    for (number, name) in names.iter().enumerate() {
        cases.push((name, Flipped));
        let other = [Cut, Zeroed, Removed][number % 3];
        // Nobody knows of a record or a spare copy that it should be there.
        let unknown = name.contains("/records/") || name.ends_with(".previous");
        cases.push((name, if unknown && other == Removed { Cut } else { other }));
    }
    let cases = Mutex::new(cases.into_iter());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some((file, kind)) = cases.lock().unwrap().next() else { break };
                    let project = copy(&whole);
                    let best = format!("{LORA}/checkpoints/best.ckpt");
                    let is_lost =
                        kind != Removed && inode(&project, file) == inode(&project, &best);
                    harm(&project.path(file), kind);
                    let case = format!("{file} {kind:?}");
                    let before = files(&project.path(""));
                    let said = project.pipe(&["verify"]).stdout();
                    assert!(is_named(&project, &said, file), "{case}: {said}");
                    assert!(said.contains("`pipe verify --repair`"), "{said}");
                    // Looking changes nothing.
                    project.pipe(&["verify", "--repair", "--dry-run"]).exits(1);
                    assert_eq!(files(&project.path("")), before, "{case}");
                    let said = project.pipe(&["verify", "--repair"]).succeeds().stdout();
                    let run = project.pipe(&["run", "p.yaml", "-q"]);
                    let run = run.exits(0);
                    let context = format!("{case}\n{said}\n{}", run.stderr());
                    assert!(outcome(&project, is_lost) == outcome(&whole, is_lost), "{context}");
                    let left = project.pipe(&["verify"]);
                    assert!(
                        left.stdout().contains("noted") && !left.stdout().contains("damaged"),
                        "{context}\n{}",
                        left.stdout()
                    );
                    left.succeeds();
                    assert!(
                        project.pipe(&["run", "p.yaml"]).succeeds().stdout().contains("up to date"),
                        "{context}"
                    );
                }
            });
        }
    });
}

#[test]
fn what_is_set_aside_is_kept_and_what_somebody_holds_is_left_alone() {
    let project = chain();
    project.pipe(&["run", "p.yaml", "-q"]).succeeds();
    project.write("samples/base.png", "mine");
    let newest = project.path(&format!("{RUN}/checkpoints/epoch_002.ckpt"));
    harm(&newest, Flipped);
    let damaged = std::fs::read(&newest).unwrap();
    // Somebody has the run.
    let lock = std::fs::File::options()
        .write(true)
        .open(project.path(&format!("{RUN}/run.lock")))
        .unwrap();
    lock.lock().unwrap();
    project
        .pipe(&["verify", "--repair"])
        .succeeds()
        .says("left out")
        .says("samples/base.png.damaged");
    assert_eq!(std::fs::read(&newest).unwrap(), damaged);
    assert_eq!(project.read("samples/base.png.damaged"), "mine");
    drop(lock);

    let said = project.pipe(&["verify", "--repair", "--json"]).succeeds().stdout();
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let aside = said["repaired"]["set_aside"][0]["now"].as_str().unwrap().to_owned();
    assert_eq!(std::fs::read(project.path(&aside)).unwrap(), damaged);
    assert_eq!(said["repaired"]["put_in_order"][0], RUN);
    // The links are those of the checkpoint that is left.
    let [best, epoch] =
        ["best", "epoch_001"].map(|name| project.path(&format!("{RUN}/checkpoints/{name}.ckpt")));
    assert_eq!(std::fs::metadata(best).unwrap().ino(), std::fs::metadata(epoch).unwrap().ino());
    // The second damaged file of a name gets a name of its own.
    project.pipe(&["run", "p.yaml", "-q"]).succeeds();
    project.write("samples/base.png", "mine too");
    project.pipe(&["verify", "--repair"]).succeeds().says("samples/base.png.damaged-2");
    assert_eq!(project.read("samples/base.png.damaged"), "mine");
}

#[test]
fn a_run_whose_metadata_is_lost_is_set_aside_as_a_whole() {
    let project = chain();
    project.pipe(&["run", "p.yaml", "-q"]).succeeds();
    let expected = results(&project);
    for name in ["metadata.json", "metadata.json.previous"] {
        harm(&project.path(&format!("{LORA}/{name}")), Flipped);
    }
    project.pipe(&["verify"]).exits(1).says("its checkpoints stay good in its folder");
    project
        .pipe(&["verify", "--repair"])
        .succeeds()
        .says(&format!("set aside {LORA} as {LORA}.damaged"));
    project.pipe(&["ckpt", "verify", &format!("{LORA}.damaged/checkpoints/best.ckpt")]).succeeds();
    project.pipe(&["run", "p.yaml", "-q"]).succeeds();
    assert!(results(&project) == expected);
    project.pipe(&["verify"]).succeeds();
}

#[test]
fn damaged_notes_of_jobs_and_stores_are_found() {
    let project = Project::new();
    let store = format!("--store=file://{}", project.path("store").display());
    project.pipe(&["run", "p.yaml", "-q", &store]).succeeds();
    project.pipe(&["verify"]).succeeds();
    let notes: Vec<PathBuf> = project
        .list(".pipe/store")
        .into_iter()
        .map(|n| project.path(&format!(".pipe/store/{n}")))
        .collect();
    let note =
        notes.iter().find(|path| path.extension().is_some_and(|e| e == "json")).expect("a note");
    harm(note, Flipped);
    project.write(".pipe/slurm/tiny/jobs.json", "{");
    project
        .pipe(&["verify"])
        .exits(1)
        .says("damaged .pipe/store/")
        .says("damaged .pipe/slurm/tiny/jobs.json");
    project.pipe(&["verify", "--repair"]).succeeds();
    project.pipe(&["run", "p.yaml", "-q", &store]).succeeds();
    project.pipe(&["verify"]).succeeds();
}

#[test]
fn a_folder_without_metadata_is_nobodys_and_stays() {
    let project = chain();
    project.pipe(&["run", "p.yaml", "-q"]).succeeds();
    let folder = "checkpoints/base_training/run_007";
    project.write(&format!("{folder}/notes.txt"), "mine");
    for arguments in [&["verify"][..], &["verify", "--repair"]] {
        let said = project.pipe(arguments).succeeds().says("run_007").says("nobody's").stdout();
        assert!(!said.contains("damaged"), "{said}");
    }
    assert_eq!(project.read(&format!("{folder}/notes.txt")), "mine");
    // With a version of its metadata it is a run, whatever they are.
    project.write(&format!("{folder}/metadata.json.previous"), "{");
    project.pipe(&["verify"]).exits(1).says(&format!("damaged {folder}/metadata.json"));
}

#[test]
fn a_run_that_the_project_knows_is_damaged_without_its_metadata() {
    let project = chain();
    project.pipe(&["run", "p.yaml", "-q"]).succeeds();
    for name in ["metadata.json", "metadata.json.previous"] {
        std::fs::remove_file(project.path(&format!("{RUN}/{name}"))).unwrap();
    }
    project.pipe(&["verify"]).exits(1).says(&format!("damaged {RUN}/metadata.json"));
    project.pipe(&["verify", "--repair"]).succeeds().says(&format!("set aside {RUN}"));
}

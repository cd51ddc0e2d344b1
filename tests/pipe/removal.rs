//! Runs that are removed: what is somebody else's in their folders stays, and so does what a stage
//! stands on.

use std::path::PathBuf;

use crate::project::Project;

const RUNS: &str = "checkpoints/base_training";

/// The tiny pipeline, trained once with each of these learning rates.
fn trained(rates: &[&str]) -> Project {
    let project = Project::new();
    for rate in rates {
        project.pipe(&["run", "p.yaml", "--epochs", "1", "--learning-rate", rate]).succeeds();
    }
    project
}

/// Puts files of a person into a run's folder. Returns them as they are told.
fn put_own(project: &Project, run: &str) -> Vec<String> {
    let of_folder = ["NOTES.txt", "checkpoints/my_favorite.ckpt", "samples/best one.png"];
    let of_person = of_folder.map(|name| format!("{RUNS}/{run}/{name}"));
    of_person.iter().for_each(|path| project.write(path, "a year of work"));
    project.write(&format!("{RUNS}/{run}/plots/deep/loss.svg"), "a year of work");
    [of_person.to_vec(), vec![format!("{RUNS}/{run}/plots")]].concat()
}

/// The files below a folder.
fn files(folder: PathBuf) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found
}

#[test]
fn what_people_put_into_a_run_stays_when_the_run_goes() {
    let project = trained(&["1e-3", "2e-3", "3e-3"]);
    let own = put_own(&project, "run_001");
    let mut said = project.pipe(&["runs", "prune", "--keep", "1", "--dry-run"]).succeeds();
    for path in &own {
        said = said.says(&format!("kept {path}: it is no file of a run"));
    }
    let of_run = format!("{RUNS}/run_001/metadata.json");
    assert!(project.path(&of_run).exists());
    let mut said = project.pipe(&["runs", "prune", "--keep", "1"]).succeeds();
    for path in &own {
        said = said.says(&format!("kept {path}: it is no file of a run"));
    }
    said.says(&format!("removed {RUNS}/run_001 ("));
    assert_eq!(project.list(RUNS), ["run_001", "run_003"]);
    let left = files(project.path(&format!("{RUNS}/run_001")));
    assert_eq!(left.len(), 4, "{left:?}");
    for path in left {
        assert_eq!(std::fs::read_to_string(path).unwrap(), "a year of work");
    }
    project.pipe(&["verify"]).succeeds();
    project
        .pipe(&["runs", "prune", "--keep", "1"])
        .succeeds()
        .says("nothing to remove")
        .says("run_001: it has no metadata.json, so it is nobody's");

    // One run, and its number is not given again.
    let own = put_own(&project, "run_003");
    let said = project.pipe(&["runs", "rm", "3", "--force"]).succeeds();
    own.iter().fold(said, |said, path| said.says(&format!("kept {path}: it is no file of a run")));
    assert_eq!(files(project.path(&format!("{RUNS}/run_003"))).len(), 4);
    // What is left is no run that lost its metadata, though the stage's record speaks of one.
    let left = format!("left alone {RUNS}/run_003: it has no metadata.json, so it is nobody's");
    project.pipe(&["verify", "--repair"]).succeeds().says(&left);
    assert_eq!(project.list(RUNS), ["run_001", "run_003"]);
    project.pipe(&["run", "p.yaml", "--epochs", "1"]).succeeds();
    assert_eq!(project.list(RUNS), ["run_001", "run_003", "run_004"]);
    project.pipe(&["gc"]).succeeds().says("nothing to remove");
    assert_eq!(files(project.path(&format!("{RUNS}/run_001"))).len(), 4);
}

#[test]
fn what_a_run_left_of_itself_goes_with_it() {
    let project = trained(&["1e-3", "2e-3"]);
    let run = format!("{RUNS}/run_001");
    for name in [
        "checkpoints/.epoch_002.ckpt.tmp-1-2",
        "checkpoints/epoch_001.ckpt.damaged",
        "metadata.json.previous",
        "save.request",
        "scratch/state",
    ] {
        project.write(&format!("{run}/{name}"), "");
    }
    std::fs::create_dir(project.path(&format!("{run}/empty"))).unwrap();
    let said = project.pipe(&["runs", "prune", "--keep", "1"]).succeeds().stdout();
    assert!(!said.contains("no file of a run"), "{said}");
    assert_eq!(project.list(RUNS), ["run_002"]);
}

#[test]
fn the_run_that_a_stage_stands_on_stays() {
    let project = trained(&["1e-3", "2e-3", "1e-3"]);
    assert_eq!(project.list(RUNS), ["run_001", "run_002"]);
    let stands = "run_001: stage base of tiny stands on it";
    project.pipe(&["runs", "prune", "--keep", "1", "--dry-run"]).succeeds().says(stands);
    project.pipe(&["runs", "prune", "--keep", "1"]).succeeds().says("nothing to remove");
    let first = ["p.yaml", "--epochs", "1", "--learning-rate", "1e-3"];
    project.pipe(&[&["plan"], &first[..]].concat()).succeeds().says("up to date, run 001");
    project
        .pipe(&["runs", "rm", "1"])
        .exits(2)
        .says("stage base of tiny stands on checkpoints/base_training/run_001; `--force`");

    // What is found done once more is not written down once more.
    let record = project.path(".pipe/records/tiny/base.json");
    let written = || record.metadata().unwrap().modified().unwrap();
    let before = written();
    project.pipe(&[&["run"], &first[..]].concat()).succeeds().says("up to date, run 001");
    assert_eq!(written(), before);

    // Of the other one nobody has a use any more.
    project.pipe(&["runs", "rm", "2"]).succeeds();
    project.pipe(&["run", "p.yaml", "--epochs", "1", "--learning-rate", "3e-3"]).succeeds();
    project.pipe(&["runs", "prune", "--keep", "1"]).succeeds().says("removed");
    assert_eq!(project.list(RUNS), ["run_002"]);
    project.pipe(&["runs", "rm", "2"]).exits(2);
    project.pipe(&["runs", "rm", "2", "--force"]).succeeds();
    assert_eq!(project.list(RUNS).len(), 0);
}

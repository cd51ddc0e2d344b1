//! Paths of checkpoints for scripts, and runs whose checkpoints are given up.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::project::{Project, all_tensors, send};

const RUN: &str = "checkpoints/base_training/run_001";

/// The tiny pipeline, trained with every checkpoint kept.
fn trained(epochs: &str) -> Project {
    let project =
        Project::with("batch_size: 16", "batch_size: 16\n    checkpoint: { keep_last_n: null }");
    project.pipe(&["run", "p.yaml", "--epochs", epochs]).succeeds();
    project
}

fn checkpoints(project: &Project) -> Vec<String> {
    project.list(&format!("{RUN}/checkpoints"))
}

/// Epochs that the metadata list, and the best one.
fn listed(project: &Project) -> (Vec<u64>, u64) {
    let metadata = project.metadata(RUN);
    let epochs = metadata["checkpoints"].as_array().unwrap().iter();
    let epochs = epochs.map(|c| c["epoch"].as_u64().unwrap()).collect();
    (epochs, metadata["best_checkpoint"]["epoch"].as_u64().unwrap())
}

#[test]
fn a_path_is_the_one_that_a_script_can_open() {
    let project = trained("3");
    let said = |arguments: &[&str]| {
        project.pipe(&[&["runs", "path"], arguments].concat()).succeeds().stdout()
    };
    let file = |name: &str| format!("{RUN}/checkpoints/{name}\n");
    assert_eq!(said(&["1"]), file("best.ckpt"));
    assert_eq!(said(&["base/1", "--best"]), file("best.ckpt"));
    assert_eq!(said(&["1", "--last"]), file("last.ckpt"));
    assert_eq!(said(&["1", "--epoch", "2"]), file("epoch_002.ckpt"));
    let json: serde_json::Value = serde_json::from_str(&said(&["1", "--json"])).unwrap();
    assert_eq!(json["path"], format!("{RUN}/checkpoints/best.ckpt"));
    project.pipe(&["runs", "path", "1", "--best", "--last"]).exits(2);

    // From a folder of the project it is the path from there.
    std::fs::create_dir(project.path("notebooks")).unwrap();
    let mut command: Command = project.command(&["runs", "path", "1"]);
    let output = command.current_dir(project.path("notebooks")).output().unwrap();
    let typed = String::from_utf8(output.stdout).unwrap();
    let opened = project.path("notebooks").join(typed.trim_end());
    assert_eq!(
        opened.canonicalize().unwrap(),
        project.path(file("best.ckpt").trim_end()).canonicalize().unwrap()
    );
}

#[test]
fn a_path_that_is_not_there_is_an_error_that_lists_what_is() {
    let project = trained("2");
    let ended = project.pipe(&["runs", "path", "1", "--epoch", "7"]).exits(2);
    assert_eq!(ended.stdout(), "");
    ended
        .says("run_001 has no checkpoint of epoch 7")
        .says("epoch_001.ckpt, epoch_002.ckpt, best.ckpt, last.ckpt");
    // The epoch's own name is gone, and another one still holds it.
    std::fs::remove_file(project.path(&format!("{RUN}/checkpoints/epoch_002.ckpt"))).unwrap();
    let said = project.pipe(&["runs", "path", "1", "--epoch", "2"]).succeeds().stdout();
    assert_eq!(said, format!("{RUN}/checkpoints/last.ckpt\n"));
    for name in checkpoints(&project) {
        std::fs::remove_file(project.path(&format!("{RUN}/checkpoints/{name}"))).unwrap();
    }
    project
        .pipe(&["runs", "path", "1"])
        .exits(2)
        .says("run_001 has no best checkpoint")
        .says("it has no checkpoint at all");
    project.pipe(&["runs", "path", "9"]).exits(2).says("there is no run 9");
}

#[test]
fn a_thinned_run_is_up_to_date_and_goes_on_to_the_same_bits() {
    let project = trained("5");
    let before = checkpoints(&project);
    let (all, best) = listed(&project);
    assert_eq!(all, [1, 2, 3, 4, 5]);
    let would = project.pipe(&["runs", "thin", "1", "--keep", "2", "--dry-run"]).succeeds();
    would.says("would remove").says("would be free");
    assert_eq!(checkpoints(&project), before, "a look changes nothing");

    let size = std::fs::metadata(project.path(&format!("{RUN}/checkpoints/epoch_001.ckpt")))
        .unwrap()
        .len();
    let kept: Vec<u64> = all.iter().copied().filter(|epoch| *epoch > 3 || *epoch == best).collect();
    let gone = all.len() - kept.len();
    let ended = project.pipe(&["runs", "thin", "1", "--keep", "2"]).succeeds();
    assert_eq!(ended.stdout().matches("removed ").count(), gone);
    assert!(gone >= 2 && size > 0);
    assert_eq!(listed(&project), (kept.clone(), best));
    let mut files: Vec<String> =
        kept.iter().map(|epoch| format!("epoch_{epoch:03}.ckpt")).collect();
    files.extend(["best.ckpt", "last.ckpt"].map(str::to_owned));
    files.sort();
    assert_eq!(checkpoints(&project), files);

    project.pipe(&["verify"]).succeeds();
    project.pipe(&["gc"]).succeeds().says("nothing to remove");
    project.pipe(&["runs", "thin", "1", "--keep", "2"]).succeeds().says("nothing to remove");
    project.pipe(&["run", "p.yaml", "--epochs", "5"]).succeeds().says("everything is up to date");
    project.pipe(&["run", "p.yaml", "--epochs", "7"]).succeeds().says("Resumed from epoch 5");
    let other = trained("7");
    let last = format!("{RUN}/checkpoints/last.ckpt");
    assert!(all_tensors(&project.path(&last)) == all_tensors(&other.path(&last)));
}

#[test]
fn a_checkpoint_that_something_was_made_from_stays() {
    let project = trained("4");
    let file = format!("checkpoint.resume_checkpoint={RUN}/checkpoints/epoch_001.ckpt");
    project.pipe(&["run", "p.yaml", "--epochs", "2", "--set", &file]).succeeds().says("Run 002");
    project
        .pipe(&["runs", "thin", "1", "--keep", "1"])
        .succeeds()
        .says("epoch_001.ckpt: checkpoints/base_training/run_002 was made from it");
    assert!(listed(&project).0.contains(&1));
    assert!(!listed(&project).0.contains(&2));
    project.pipe(&["run", "p.yaml", "--epochs", "2", "--set", &file]).succeeds().says("up to date");
}

#[test]
fn a_run_that_is_trained_or_can_be_gone_on_with_is_not_thinned() {
    let project = trained("1");
    let mut child = project.start(&["run", "p.yaml", "--seed", "7", "--epochs", "400"]);
    let second = "checkpoints/base_training/run_002/checkpoints";
    let deadline = Instant::now() + Duration::from_secs(60);
    while project.list(second).len() < 5 {
        assert!(Instant::now() < deadline, "no checkpoints after a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
    project
        .pipe(&["runs", "thin", "1", "2", "--keep", "1"])
        .exits(2)
        .says("run_002 is being trained by")
        .says("only a completed run is thinned");
    send(&child, "KILL");
    child.wait().unwrap();
    let before = project.list(second);
    project
        .pipe(&["runs", "thin", "2", "--keep", "1"])
        .exits(2)
        .says("run_002 is interrupted, and can be gone on with");
    assert_eq!(project.list(second), before);
    project.pipe(&["runs", "thin", "2", "--keep", "0"]).exits(2);
}

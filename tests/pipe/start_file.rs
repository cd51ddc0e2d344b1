//! A training that starts from a checkpoint file: the file is an edge and counts by content, and
//! its position by the settings that it was reached with.

use std::time::Duration;

use crate::project::{Project, send};

const BASE: &str = "checkpoints/base_training";

/// Two trainings, the second from a copy of the first one's best checkpoint.
const PAIR: &str = "\
name: tiny
stages:
  more:
    kind: train
    dataset: data
    epochs: 3
    batch_size: 16
    model: { dim: 16, mults: [1], depths: [1], heads: 1, window: 8 }
    device: cpu
    checkpoint: { base_dir: checkpoints/more, resume_checkpoint: best.ckpt }
  best: { kind: copy_best, from: base, select: last, to: best.ckpt }
  base:
    kind: train
    dataset: data
    epochs: 1
    batch_size: 16
    model: { dim: 16, mults: [1], depths: [1], heads: 1, window: 8 }
    device: cpu
  data: { kind: dataset, source: shapes, classes: [circle, square], image_size: 8, num_images: 64 }
";

fn pair() -> Project {
    let project = Project::new();
    project.write("p.yaml", PAIR);
    project
}

#[test]
fn the_file_is_an_edge_and_counts_by_its_content() {
    let project = pair();
    project.pipe(&["graph", "p.yaml"]).succeeds().says("more  train  <- best, data");
    project.pipe(&["run", "p.yaml"]).succeeds();
    project.pipe(&["run", "p.yaml"]).succeeds().says("everything is up to date");
    let ended = project.pipe(&["run", "p.yaml", "--set", "base.seed=7"]).succeeds();
    ended.says("another content of checkpoint.resume_checkpoint");
    assert_eq!(project.list("checkpoints/more"), ["run_001", "run_002"]);
    // Back at the first file, its run goes on.
    project.pipe(&["run", "p.yaml"]).succeeds();
    project.pipe(&["plan", "p.yaml"]).succeeds().says("skip  up to date, run 001");
    assert_eq!(project.list("checkpoints/more"), ["run_001", "run_002"]);
}

#[test]
fn a_run_of_an_earlier_version_does_not_note_the_file_and_keeps_its_identity() {
    let project = pair();
    project.pipe(&["run", "p.yaml"]).succeeds();
    let path = "checkpoints/more/run_001/metadata.json";
    let mut metadata = project.metadata("checkpoints/more/run_001");
    let object = metadata.as_object_mut().unwrap();
    object.remove("checksum");
    let manifest = object["manifest"].as_object_mut().unwrap();
    assert!(manifest.remove("content of checkpoint.resume_checkpoint").is_some());
    project.write(path, metadata.to_string());
    project.pipe(&["run", "p.yaml", "--set", "base.seed=7"]).succeeds();
    assert_eq!(project.list("checkpoints/more"), ["run_001"]);
}

#[test]
fn a_run_that_another_one_started_from_is_not_pruned() {
    let project = pair();
    project.pipe(&["run", "p.yaml"]).succeeds();
    project.pipe(&["run", "p.yaml", "base", "--seed", "7"]).succeeds();
    let pruned = project.pipe(&["runs", "prune", "--keep", "1", "--dry-run"]).succeeds();
    let kept = format!("kept {BASE}/run_001");
    pruned.says(&kept).says("was made from it");
    // The file that it started from may be gone, and its run may have noted the path alone.
    let project = Project::new();
    project.pipe(&["run", "p.yaml", "--epochs", "1"]).succeeds();
    let file = format!("checkpoint.resume_checkpoint={BASE}/run_001/checkpoints/epoch_001.ckpt");
    project.pipe(&["run", "p.yaml", "--set", &file]).succeeds();
    let path = format!("{BASE}/run_002/metadata.json");
    let mut metadata = project.metadata(&format!("{BASE}/run_002"));
    let object = metadata.as_object_mut().unwrap();
    object.remove("checksum");
    object["manifest"].as_object_mut().unwrap().remove("content of checkpoint.resume_checkpoint");
    project.write(&path, metadata.to_string());
    project
        .pipe(&["runs", "prune", "--keep", "1", "--dry-run"])
        .succeeds()
        .says("run_002 was made from it");
}

#[test]
fn a_file_that_is_as_far_as_the_training_is_to_go_is_an_error_before_a_run_is_made() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml"]).succeeds();
    let file = format!("{BASE}/run_001/checkpoints/epoch_002.ckpt");
    project.pipe(&["ckpt", "export", &file, "--weights-only", "-o", "weights.ckpt"]).succeeds();
    for file in [file.as_str(), "weights.ckpt"] {
        let set = format!("checkpoint.resume_checkpoint={file}");
        for command in ["plan", "run"] {
            let ended = project.pipe(&[command, "p.yaml", "--set", &set]).exits(2);
            ended.says("is at epoch 2, and `epochs` is 2 in all").says("set `epochs` to 3 or more");
        }
        assert_eq!(project.list(BASE), ["run_001"], "no run is made");
    }
    let set = "checkpoint.resume_checkpoint=weights.ckpt";
    project.pipe(&["run", "p.yaml", "--set", set, "--epochs", "3"]).succeeds().says("3 epochs");
}

#[test]
fn a_position_inside_an_epoch_counts_by_the_settings_it_was_reached_with() {
    let project = Project::with("num_images: 64", "num_images: 512");
    let small = ["--set", "batch_size=8", "--set", "checkpoint.save_every_n_steps=1"];
    let mut child = project.start(&[&["run", "p.yaml", "--epochs", "1000"], &small[..]].concat());
    let checkpoints = format!("{BASE}/run_001/checkpoints");
    let inside = || project.list(&checkpoints).into_iter().find(|name| name.starts_with("step_"));
    while inside().is_none() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(20));
    }
    send(&child, "TERM");
    child.wait().unwrap();
    let file = inside().expect("one epoch has 64 steps, each with a checkpoint");
    std::fs::copy(project.path(&format!("{checkpoints}/{file}")), project.path("inside.ckpt"))
        .unwrap();
    let set = format!("checkpoint.resume_checkpoint={checkpoints}/{file}");
    let metadata = project.metadata(&format!("{BASE}/run_001"));
    let epoch = metadata["partial_checkpoint"]["epoch"].as_u64().unwrap();
    let epochs = (epoch + 1).to_string();
    let resumed = |more: &[&str]| {
        project.pipe(&[&["run", "p.yaml", "--epochs", &epochs, "--force"], more].concat())
    };
    let ended = resumed(&["--set", &set, "--set", "batch_size=512"]).succeeds();
    let begins = format!("epoch {epochs} begins at its start");
    ended.says("batch_size 8 -> 512").says(&begins);
    let seconds =
        project.metadata(&format!("{BASE}/run_002"))["history"][0]["images_per_second"].clone();
    assert!(seconds.as_f64().unwrap() > 0.0, "its images were seen");
    // By the same settings it goes on inside the epoch.
    let ended = resumed(&["--set", &set, "--set", "batch_size=8"]).succeeds();
    assert!(!ended.stderr().contains("begins at its start"), "{}", ended.stderr());
    let ended =
        resumed(&["--set", "checkpoint.resume_checkpoint=inside.ckpt", "--set", "data.seed=5"])
            .succeeds();
    ended.says("dataset.seed 0 -> 5").says(&begins);
}

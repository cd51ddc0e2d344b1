//! `kind: checkpoint`: a model of another project, or from a hub, for every stage that takes one.

use crate::project::{Project, TINY};

const BEST: &str = "checkpoints/base_training/run_001/checkpoints/best.ckpt";
const FIRST: &str = "checkpoints/base_training/run_001/checkpoints/epoch_001.ckpt";

/// Every kind of stage that takes a checkpoint, behind one that hands on a file.
const TAKERS: &str = "\
name: own
stages:
  pretrained: { kind: checkpoint, file: \"FILE\" }
  data: { kind: dataset, source: shapes, classes: [circle, square], image_size: 8, num_images: 16, val_split: 0.25 }
  tuned:
    kind: train
    init: pretrained
    dataset: data
    epochs: 1
    batch_size: 8
    model: { dim: 16, mults: [1, 2], depths: [1, 1], heads: 2, window: 4 }
    device: cpu
  lora: { kind: lora, base: pretrained, dataset: data, epochs: 1, batch_size: 8, device: cpu, lora: { r: 2, target_modules: [qkv] } }
  grid: { kind: sample, from: pretrained, to: base.png, n: 2, steps: 2, device: cpu }
  drawn: { kind: sample, from: lora, to: lora.png, n: 2, steps: 2, device: cpu }
  kept: { kind: copy_best, from: pretrained, to: kept.ckpt }
  quality: { kind: evaluate, from: pretrained, dataset: data, to: quality, metrics: [val_loss], device: cpu }
";

/// A project that takes a file, and the text of its pipeline.
fn taking(file: &str) -> Project {
    let project = Project::new();
    project.write("p.yaml", TAKERS.replace("FILE", file));
    project
}

fn trained() -> Project {
    let project = Project::new();
    project.write("p.yaml", TINY);
    project.pipe(&["run", "p.yaml", "-q"]).succeeds();
    project
}

#[test]
fn every_stage_takes_it_and_its_content_counts_and_not_its_name() {
    let theirs = trained();
    let file = theirs.path(BEST).display().to_string();
    let project = taking(&file);
    project.pipe(&["run", "p.yaml"]).succeeds().says("epoch 2: ");
    for made in ["base.png", "lora.png", "kept.ckpt", "quality/metrics.json"] {
        assert!(project.path(made).is_file(), "{made}");
    }
    project.pipe(&["run", "p.yaml"]).succeeds().says("everything is up to date");
    // The same file under another name, in the project.
    project.write("models/base.ckpt", std::fs::read(&file).unwrap());
    project.write("p.yaml", TAKERS.replace("FILE", "models/base.ckpt"));
    project.pipe(&["run", "p.yaml"]).succeeds().says("everything is up to date");
    // Another one in its place.
    project.write("models/base.ckpt", std::fs::read(theirs.path(FIRST)).unwrap());
    let planned = project.pipe(&["plan", "p.yaml", "--json"]).succeeds().stdout();
    let planned: serde_json::Value = serde_json::from_str(&planned).unwrap();
    for step in planned["steps"].as_array().unwrap() {
        assert_eq!(step["action"], "run", "{step}");
    }
}

#[test]
fn a_file_that_cannot_be_taken_is_told_before_anything_runs() {
    let torn = std::fs::read(trained().path(BEST)).unwrap();
    let project = taking("models/base.ckpt");
    for (content, said) in [
        (None, "models/base.ckpt"),
        (Some(&b"no checkpoint at all"[..]), "models/base.ckpt"),
        (Some(&torn[..torn.len() - 7]), "its header promises"),
    ] {
        if let Some(content) = content {
            project.write("models/base.ckpt", content);
        }
        let refused = project.pipe(&["run", "p.yaml"]).exits(1).says("file: ").says(said);
        assert!(refused.stderr().contains("pretrained"), "{}", refused.stderr());
        assert!(!project.path("checkpoints").exists() && !project.path("base.png").exists());
    }
    // Weights that have changed behind the header are found when it is read.
    let mut changed = torn.clone();
    *changed.last_mut().unwrap() ^= 1;
    project.write("models/base.ckpt", changed);
    project.pipe(&["run", "p.yaml"]).exits(1);
    assert!(!project.path("checkpoints").exists() && !project.path("base.png").exists());
}

#[test]
fn a_folder_for_a_hub_is_one_too() {
    let theirs = trained();
    theirs.pipe(&["ckpt", "export", BEST, "--hub", "hub"]).succeeds();
    let draw = ["--n", "2", "--steps", "2", "--device", "cpu"];
    theirs.pipe(&[&["sample", "hub"], &draw[..]].concat()).succeeds().says("samples.png");
    let project = taking(&theirs.path("hub").display().to_string());
    project.pipe(&["run", "p.yaml", "drawn", "-q"]).succeeds();
    assert!(project.path("lora.png").is_file());
    project.write("empty/note.txt", "nothing");
    project.write("p.yaml", TAKERS.replace("FILE", "empty"));
    project.pipe(&["run", "p.yaml"]).exits(1).says("is a folder without a checkpoint");
}

#[test]
fn a_file_in_the_place_of_a_stage_is_refused_with_what_to_write() {
    let project = taking("models/base.ckpt");
    project.write("p.yaml", TAKERS.replace("base: pretrained", "base: models/mine.ckpt"));
    project
        .pipe(&["check", "p.yaml"])
        .exits(2)
        .says("no stage is called `models/mine.ckpt`")
        .says("a file is handed on by a stage `{kind: checkpoint, file: models/mine.ckpt}`");
}

#[test]
fn one_that_an_earlier_stage_writes_is_waited_for() {
    let project = Project::new();
    let theirs = "
  written: { kind: copy_best, from: base, to: models/base.ckpt }
  pretrained: { kind: checkpoint, file: models/base.ckpt }
  grid: { kind: sample, from: pretrained, to: base.png, n: 2, steps: 2, device: cpu }
";
    project.write("p.yaml", TINY.to_owned() + theirs);
    project.pipe(&["run", "p.yaml"]).succeeds();
    assert!(project.path("base.png").is_file());
    project.pipe(&["run", "p.yaml"]).succeeds().says("everything is up to date");
}

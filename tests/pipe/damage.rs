//! Weights of which a bit flipped on the disk are used by nobody.

use std::path::Path;

use crate::project::{Project, TINY};

const RUN: &str = "checkpoints/base_training/run_001";
const STEPS: &str = "  best: { kind: copy_best, from: base, to: best.ckpt }
  picture: { kind: sample, from: best, to: picture.png, n: 2, steps: 2, device: cpu }
  trees:
    kind: dataset
    source: trees
    classes: [oak, pine]
    image_size: 8
    num_images: 16
  lora: { kind: lora, base: best, dataset: trees, epochs: 1, batch_size: 8, device: cpu, lora: { r: 2 } }
";

/// Flips a bit of every tensor of weights in a file, in its place and without a trace in its size
/// and time.
#[track_caller]
fn damage(path: &Path) {
    let modified = std::fs::metadata(path).unwrap().modified().unwrap();
    let mut bytes = std::fs::read(path).unwrap();
    let (length, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    for (name, tensor) in header.tensors() {
        let (start, end) = tensor.data_offsets;
        if !name.starts_with("optimizer") && start < end {
            bytes[8 + length + start] ^= 0x40;
        }
    }
    std::fs::write(path, bytes).unwrap();
    std::fs::File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
}

const FOUND: &str = "its content does not have its digest";

#[test]
fn a_flipped_bit_is_found_by_whatever_uses_the_weights() {
    let project = Project::new();
    project.write("p.yaml", format!("{TINY}{STEPS}"));
    project.pipe(&["run", "p.yaml", "picture", "--epochs", "1"]).succeeds();
    // The run's files and the copy share their bytes, or not, as the disk has it.
    let best = format!("{RUN}/checkpoints/best.ckpt");
    for file in [best.as_str(), "best.ckpt"] {
        let path = project.path(file);
        if project.pipe(&["ckpt", "verify", file]).stdout().contains("good") {
            damage(&path);
        }
    }
    let resume = format!("checkpoint.resume_checkpoint={best}");
    for command in [
        &["ckpt", "verify", &best][..],
        &["ckpt", "probe", &best],
        &["ckpt", "export", &best, "--weights-only", "-o", "weights.ckpt"],
        &["sample", &best, "--n", "2", "--device", "cpu"],
        &["run", "p.yaml", "picture", "--epochs", "1", "--set", "picture.seed=5"],
        &["run", "p.yaml", "lora", "--epochs", "1"],
    ] {
        project.pipe(command).exits(1).says(FOUND);
    }
    project.pipe(&["run", "p.yaml", "base", "--set", &resume]).exits(2).says(FOUND);
    assert!(!project.path("weights.ckpt").exists() && !project.path("samples.png").exists());
}

#[test]
fn a_damaged_base_model_is_not_merged() {
    let project = Project::new();
    project.write("p.yaml", format!("{TINY}{STEPS}"));
    project.pipe(&["run", "p.yaml", "lora", "--epochs", "1"]).succeeds();
    let lora = "checkpoints/lora/run_001";
    let best = format!("{lora}/checkpoints/best.ckpt");
    // Where only the adapter is known, what is missing is told, and how to give it.
    std::fs::copy(project.path(&best), project.path("moved.ckpt")).unwrap();
    let alone = project.pipe(&["sample", "moved.ckpt", "--n", "2", "--device", "cpu"]).exits(1);
    alone
        .says("its base model is not at ../base_model.ckpt")
        .says("`pipe sample BASE --lora moved.ckpt`");
    // The adapter in PEFT's format has no digest of its own.
    project.pipe(&["verify"]).succeeds();
    let adapter = format!("{lora}/adapter/adapter_model.safetensors");
    let good = std::fs::read(project.path(&adapter)).unwrap();
    damage(&project.path(&adapter));
    project.pipe(&["verify"]).exits(1).says("damaged checkpoints/lora/run_001/adapter");
    project.write(&adapter, good);

    // Factors that were damaged are not drawn with and not merged.
    std::fs::copy(project.path(&best), project.path("bad.ckpt")).unwrap();
    damage(&project.path("bad.ckpt"));
    let base = format!("{lora}/base_model.ckpt");
    for command in [
        &["sample", &base, "--lora", "bad.ckpt", "--n", "2", "--device", "cpu"][..],
        &["ckpt", "export", "bad.ckpt", "--merge", "-o", "merged.ckpt"],
    ] {
        project.pipe(command).exits(1).says(FOUND);
    }

    let sample = ["sample", &base, "--lora", "moved.ckpt", "--n", "2", "--device", "cpu"];
    project.pipe(&sample).succeeds();
    damage(&project.path(&base));
    project.pipe(&sample).exits(1).says(FOUND);
    project.pipe(&["ckpt", "export", &best, "--merge", "-o", "merged.ckpt"]).exits(1).says(FOUND);
    assert!(!project.path("merged.ckpt").exists());
}

#[test]
fn verify_finds_whatever_is_not_as_it_was_noted() {
    let project = Project::new();
    project.write("p.yaml", format!("{TINY}{STEPS}"));
    project.pipe(&["run", "p.yaml", "picture", "--epochs", "2"]).succeeds();
    project.pipe(&["verify"]).succeeds().says("files are as they were noted");
    project.pipe(&["verify", "p.yaml"]).succeeds();

    let record = ".pipe/records/tiny/picture.json";
    let noted = project.read(record);
    project.write(record, noted.replacen("completed", "completeD", 1));
    project.pipe(&["verify"]).exits(1).says("damaged .pipe/records/tiny/picture.json");
    project.write(record, noted);

    let picture = std::fs::read(project.path("picture.png")).unwrap();
    project.write("picture.png", "another");
    let found = project.pipe(&["verify", "--json"]).exits(1).stdout();
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found["damaged"][0]["path"], "picture.png");
    project.write("picture.png", picture);

    let metadata = format!("{RUN}/metadata.json");
    let noted = project.read(&metadata);
    project.write(&metadata, noted.replacen("\"epoch\": 2", "\"epoch\": 1", 1));
    project.pipe(&["verify"]).exits(1).says("its previous version is used");
    project.write(&metadata, noted);

    project.pipe(&["verify"]).succeeds();
    let last = format!("{RUN}/checkpoints/last.ckpt");
    damage(&project.path(&last));
    project.pipe(&["verify"]).exits(1).says(FOUND).says("the run goes on from an older one");
    for name in ["epoch_002", "best", "last"] {
        std::fs::remove_file(project.path(&format!("{RUN}/checkpoints/{name}.ckpt"))).unwrap();
    }
    project
        .pipe(&["verify"])
        .exits(1)
        .says("epoch_002.ckpt: its run lists it, and it is not there");
}

#[test]
fn what_was_removed_with_its_stage_is_no_damage() {
    let project = Project::new();
    project.write("p.yaml", format!("{TINY}{STEPS}"));
    project.pipe(&["run", "p.yaml", "picture", "--epochs", "1"]).succeeds();
    let without: String =
        STEPS.lines().filter(|line| !line.contains("picture")).map(|l| format!("{l}\n")).collect();
    project.write("p.yaml", format!("{TINY}{without}"));
    project.pipe(&["verify"]).succeeds();
    std::fs::remove_file(project.path("picture.png")).unwrap();
    for arguments in [&["verify"][..], &["verify", "p.yaml"], &["verify", "--repair"]] {
        project.pipe(arguments).succeeds().says(
            "left out picture.png: it is not there, and stage picture of tiny, which made it",
        );
    }
    // A file that cannot be read may be the one that has the stage.
    project.write("pipelines/other.yaml", "name: tiny\nstages: {");
    project.pipe(&["verify"]).exits(1).says("damaged picture.png");
    std::fs::remove_dir_all(project.path("pipelines")).unwrap();
    // What one has is made again.
    project.write("p.yaml", format!("{TINY}{STEPS}"));
    project.pipe(&["verify"]).exits(1).says("without it `pipe run` makes it again");
    project.pipe(&["run", "p.yaml", "picture", "--epochs", "1"]).succeeds();
    project.pipe(&["verify"]).succeeds();
}

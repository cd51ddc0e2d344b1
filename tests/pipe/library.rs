//! The product as a library: `examples/custom_stage.rs` is `pipe` with a stage kind of its own,
//! `examples/custom_architecture.rs` with an architecture of its own.

use std::path::Path;
use std::process::{Command, Output};

use crate::project::Project;

const PIPELINE: &str = "\
name: words
stages:
  text: { kind: command, run: 'echo one two three > text.txt', outputs: [text.txt] }
  words: { kind: word_count, from: text.txt, to: words.txt }
";

/// An example program in a project. `None`, with a word, where it was not built: `cargo test`
/// builds examples unless it is told which tests to build.
fn example(name: &str, project: &Project, arguments: &[&str]) -> Option<Output> {
    let program = Path::new(env!("CARGO_BIN_EXE_pipe")).with_file_name("examples");
    let program = program.join(name);
    if !program.is_file() {
        eprintln!("skipped: {} is not there", program.display());
        return None;
    }
    Some(Command::new(program).args(arguments).current_dir(project.path("")).output().unwrap())
}

/// What an example program that succeeds prints.
fn succeeds(name: &str, project: &Project, arguments: &[&str]) -> Option<String> {
    let ended = example(name, project, arguments)?;
    let told = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{arguments:?}: {told}");
    Some(String::from_utf8(ended.stdout).unwrap())
}

#[test]
fn a_stage_kind_of_one_s_own_has_the_whole_command_line() {
    let project = Project::new();
    project.write("p.yaml", PIPELINE);
    let said = |arguments: &[&str]| succeeds("custom_stage", &project, arguments);
    let Some(first) = said(&["run", "p.yaml"]) else { return };
    assert!(first.contains("words: 3 words"), "{first}");
    assert_eq!(std::fs::read_to_string(project.path("words.txt")).unwrap(), "3\n");
    let again = said(&["run", "p.yaml"]).unwrap();
    assert!(again.contains("everything is up to date"), "{again}");
    // It stands behind the command by the file that it reads.
    let changed = PIPELINE.replace("one two", "one");
    project.write("p.yaml", changed);
    let third = said(&["run", "p.yaml"]).unwrap();
    assert!(third.contains("words: 2 words"), "{third}");
    let schema = said(&["schema", "word_count"]).unwrap();
    assert!(schema.contains("The file whose words are counted"), "{schema}");
    // The plain program does not know it, and says what it knows.
    let refused = project.pipe(&["check", "p.yaml"]).exits(2).stderr();
    assert!(refused.contains("word_count"), "{refused}");
}

const TWO_CONVS: &str = "\
name: two_convs
stages:
  data: { kind: dataset, source: shapes, classes: [circle, square], image_size: 8, num_images: 32 }
  base:
    kind: train
    dataset: data
    epochs: 1
    batch_size: 16
    model: { arch: two_convs, width: 8 }
    device: cpu
  best: { kind: copy_best, from: base, to: best.ckpt }
  trees: { kind: dataset, source: trees, classes: [oak, pine, palm], image_size: 8, num_images: 32 }
  lora:
    kind: lora
    base: best
    dataset: trees
    epochs: 1
    batch_size: 16
    device: cpu
    lora: { r: 2, target_modules: [noise, fc1] }
  picture: { kind: sample, from: lora, to: lora.png, n: 3, steps: 2, device: cpu }
";

#[test]
fn an_architecture_of_one_s_own_is_trained_resumed_fine_tuned_and_sampled() {
    let project = Project::new();
    project.write("p.yaml", TWO_CONVS);
    let said = |arguments: &[&str]| succeeds("custom_architecture", &project, arguments);
    let Some(first) = said(&["run", "p.yaml"]) else { return };
    assert!(first.contains("lora.png"), "{first}");
    let again = said(&["run", "p.yaml"]).unwrap();
    assert!(again.contains("everything is up to date"), "{again}");

    // A checkpoint alone rebuilds the model, and a training goes on from it.
    let shown = said(&["ckpt", "show", "best.ckpt", "--json"]).unwrap();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let expected = serde_json::json!({
        "arch": "two_convs", "width": 8, "image": {"size": 8, "channels": 3, "classes": 2},
    });
    assert_eq!(shown["model_config"], expected);
    said(&["sample", "best.ckpt", "--n", "2", "--steps", "2", "--device", "cpu"]).unwrap();
    let plan = said(&["plan", "p.yaml", "--set", "base.epochs=2"]).unwrap();
    assert!(plan.contains("extend"), "{plan}");
    said(&["run", "p.yaml", "base", "--set", "base.epochs=2"]).unwrap();
    let runs = "checkpoints/base_training/run_001/checkpoints";
    assert!(project.list(runs).contains(&"epoch_002.ckpt".to_owned()));
    let lora = "checkpoints/lora/run_001/checkpoints/best.ckpt";
    said(&["ckpt", "export", lora, "--merge", "-o", "merged.ckpt"]).unwrap();
    let first = |file: &str| {
        let probe: serde_json::Value =
            serde_json::from_str(&said(&["ckpt", "probe", file]).unwrap()).unwrap();
        probe["first"][0].as_f64().unwrap()
    };
    let (adapted, merged) = (first(lora), first("merged.ckpt"));
    assert!((adapted - merged).abs() <= 1e-4 * adapted.abs().max(1e-2), "{adapted} {merged}");

    // Its words are in the schema and in messages; what it refuses names the key.
    let schema = said(&["schema", "train"]).unwrap();
    for word in ["Two convolutions.", "two_convs_64", "Channels between the two convolutions."] {
        assert!(schema.contains(word), "{word}");
    }
    let refused = |set: &str, words: &str| {
        let ended = example("custom_architecture", &project, &["check", "p.yaml", "--set", set]);
        let ended = ended.unwrap();
        let told = String::from_utf8_lossy(&ended.stderr) + String::from_utf8_lossy(&ended.stdout);
        assert!(ended.status.code() == Some(2) && told.contains(words), "{set}: {told}");
    };
    refused("base.model.width=7", "`width` must be even");
    refused("base.model.widht=8", "did you mean `width`?");
    refused("base.model.width=wide", "model.width");
    refused("base.model.arch=two_conv", "did you mean `two_convs`?");
    refused("base.model.heads=2", "`arch: two_convs` has no such setting; its own are width");
    // The plain program does not know it, and says what it knows.
    let unknown = project.pipe(&["sample", "best.ckpt", "--device", "cpu"]).exits(1).stderr();
    assert!(unknown.contains("unknown variant `two_convs`, expected `diffit` or `unet`"));
}

//! `pipe fork`: a new run that shares a run's epochs up to one.

use serde_json::json;

use crate::advice::{after, typed};
use crate::chain::chain;
use crate::project::{Project, all_tensors, send};

const BASE: &str = "checkpoints/base_training";

fn last(project: &Project, run: &str) -> Vec<(String, Vec<u8>)> {
    all_tensors(&project.path(&format!("{BASE}/{run}/checkpoints/last.ckpt")))
}

#[test]
fn a_fork_is_the_run_of_the_lines_that_it_prints() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml", "--epochs", "3"]).succeeds();
    let before = last(&project, "run_001");
    let fork = ["fork", "1", "--at", "3", "--set", "base.learning_rate=1e-4", "--epochs", "5"];
    let dry = project.pipe(&[&fork[..], &["--dry-run"]].concat()).succeeds();
    dry.says("shares epochs 1-3 with run 001");
    assert_eq!(project.list(BASE), ["run_001"]);
    let ended = project.pipe(&fork).succeeds();
    let lines = ended.stdout();
    assert_eq!(lines, "epochs: 5\nthen: [{from: 3, learning_rate: 0.0001}]\n");
    ended.says("Resumed from epoch 3").says("write under `base`");
    assert!(last(&project, "run_001") == before, "it stays as it was");
    assert_eq!(project.metadata(&format!("{BASE}/run_001"))["epochs"], json!(3));
    // Once more it is there, and by the pipeline with the lines too.
    project.pipe(&fork).succeeds().says("up to date, run 002");
    let text = project.read("p.yaml").replace("    epochs: ${params.epochs}\n", "");
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    project.write(
        "kept.yaml",
        text.replace("    device: cpu\n", &format!("    device: cpu\n{lines}")),
    );
    project.pipe(&["run", "kept.yaml"]).succeeds().says("everything is up to date");
    project.pipe(&["plan", "kept.yaml"]).succeeds().says("up to date, run 002");
    assert_eq!(project.list(BASE), ["run_001", "run_002"]);
    let whole = Project::new();
    whole
        .pipe(&[
            "run",
            "p.yaml",
            "--epochs",
            "5",
            "--set",
            "base.then=[{from: 3, learning_rate: 1e-4}]",
        ])
        .succeeds();
    assert!(last(&project, "run_002") == last(&whole, "run_001"));
    // A fork of the fork has its entries, and those of one epoch are one.
    let again = ["fork", "base/2", "--at", "4", "--set", "ema.decay=0.9", "--set", "batch_size=8"];
    let lines = project.pipe(&again).succeeds().stdout();
    let entry = "{from: 4, batch_size: 8, ema: {decay: 0.9}}";
    assert_eq!(lines, format!("then: [{{from: 3, learning_rate: 0.0001}}, {entry}]\n"));
    let same = ["fork", "3", "--at", "4", "--set", "learning_rate=0.5", "--dry-run"];
    let entry = "{from: 4, batch_size: 8, ema: {decay: 0.9}, learning_rate: 0.5}";
    project.pipe(&same).succeeds().says(entry);
    project.pipe(&["audit", "3"]).succeeds().says("the same, bit for bit");
}

#[test]
fn what_cannot_be_forked_is_told_with_what_to_do() {
    let project = Project::new();
    let rate = ["--set", "learning_rate=1e-4"];
    project
        .pipe(&[&["fork", "1", "--at", "1"][..], &rate].concat())
        .exits(2)
        .says("there is no run 1");
    project
        .pipe(&["run", "p.yaml", "--epochs", "3", "--set", "checkpoint.keep_last_n=1"])
        .succeeds();
    let at = |epoch: &str, more: &[&str]| {
        project.pipe(&[&["fork", "1", "--at", epoch][..], more].concat())
    };
    at("9", &rate).exits(2).says("run 001 has not completed epoch 9: it has come to epoch 3");
    at("3", &rate).exits(2).says("nothing would be left to train; add --epochs 4 or more");
    at("2", &["--set", "seed=7"]).exits(2).says("--set seed=7").says("it decides what all epochs");
    at("2", &["--set", "epochs=7"]).exits(2).says("say how long it is to be with --epochs");
    at("2", &["--set", "learning_rate=0"]).exits(2).says("expected a number above 0");
    at("2", &["--set", "learning_rat=1"]).exits(2).says("learning_rate");
    let best = &project.metadata(&format!("{BASE}/run_001"))["best_checkpoint"]["epoch"];
    assert_eq!(best, &json!(3), "or another one would be kept");
    let gone = at("2", &rate).exits(2);
    let said = gone.says("run 1 keeps no checkpoint up to epoch 2").stderr();
    let again = said.split('`').nth(1).unwrap().to_owned();
    assert_eq!(again, "pipe ckpt again base/1 --epoch 2");
    typed(&project, "", &again);
    at("2", &rate).succeeds().says("Resumed from epoch 2");

    // A run that was changed by its number, one whose schedule depends on the length, another kind.
    let changed = [
        "run",
        "p.yaml",
        "--run-number",
        "1",
        "--resume",
        "--learning-rate",
        "1e-5",
        "--epochs",
        "4",
    ];
    project.pipe(&changed).succeeds();
    at("2", &rate).exits(2).says("run 001 went on with changed settings from epoch 4");
    let project = Project::new();
    project.pipe(&["run", "p.yaml", "--set", "base.schedule={kind: cosine}"]).succeeds();
    let longer = ["fork", "1", "--at", "1", "--set", "batch_size=8", "--epochs", "9"];
    project
        .pipe(&longer)
        .exits(2)
        .says("nothing can be branched off from run 1")
        .says("schedule horizon 2 -> 9");
    project.pipe(&longer[..6]).succeeds().says("Resumed from epoch 1");
}

#[test]
fn a_lora_is_forked_with_its_base_as_it_was() {
    let project = chain();
    project.pipe(&["run", "p.yaml"]).succeeds();
    let fork = [
        "fork",
        "lora/1",
        "--at",
        "1",
        "--set",
        "label_dropout=0.5",
        "--set",
        "lora.lora.lora_dropout=0.1",
    ];
    let ended = project.pipe(&[&fork[..], &["--epochs", "3"]].concat()).succeeds();
    ended.says("Resumed from epoch 1").says("label_dropout 0.1 -> 0.5");
    assert_eq!(project.list("checkpoints/lora"), ["run_001", "run_002"]);
    project.pipe(&["audit", "lora/2"]).succeeds().says("the same, bit for bit");
    std::fs::remove_dir_all(project.path(&format!("{BASE}/run_001"))).unwrap();
    let refused = project.pipe(&[&fork[..], &["--epochs", "4"]].concat()).exits(2);
    refused.says("it is not up to date");
}

#[test]
fn an_interrupted_fork_says_how_it_goes_on() {
    let project = Project::new();
    let many = ["--set", "num_images=512"];
    project.pipe(&[&["run", "p.yaml"], &many[..]].concat()).succeeds();
    let fork = ["fork", "1", "--at", "1", "--set", "learning_rate=1e-4", "--epochs", "6"];
    let mut command = project.command(&fork);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    while project.list(&format!("{BASE}/run_002/checkpoints")).is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    send(&child, "INT");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let said = String::from_utf8(output.stderr).unwrap();
    let again = after(&said, "go on with: ");
    assert_eq!(again, "pipe fork 1 --at 1 --set learning_rate=1e-4 --epochs 6");
    let said = typed(&project, "", &again);
    assert!(said.contains("Run 002"), "{said}");
    assert_eq!(project.list(BASE), ["run_001", "run_002"]);
}

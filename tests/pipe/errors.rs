//! Bad usage, files and settings: exit code 2, and a message that helps.

use crate::project::Project;

#[test]
fn an_unknown_key_of_a_real_stage() {
    Project::with("batch_size: 16", "batch_sise: 16")
        .pipe(&["check", "p.yaml"])
        .exits(2)
        .says("error: p.yaml:14:5: stages.base.batch_sise: unknown key")
        .says("14 |     batch_sise: 16")
        .says("did you mean `batch_size`?");
}

#[test]
fn deeper_keys_and_types() {
    let bad = |from: &str, to: &str, piece: &str| {
        Project::with(from, to).pipe(&["check", "p.yaml"]).exits(2).says(piece);
    };
    bad("heads: 2", "heds: 2", "stages.base.model.heds: unknown key");
    bad(
        "heads: 2",
        "heads: two",
        "stages.base.model.heads: expected a whole number, 0 or more, found text \"two\"",
    );
    bad("batch_size: 16", "batch_size: 0", "stages.base.batch_size: expected at least 1");
    bad("device: cpu", "device: cuda", "unknown device `cuda`; expected auto, cpu, gpu or gpu:N");
    bad("source: shapes", "source: shaps", "stages.data.source: unknown value `shaps`");
    bad("classes: [circle, square]", "classes: 7", "stages.data.classes");
    bad(
        "image_size: 8",
        "image_size: 4",
        "stages.data.image_size: 4 is not between 8 and 1024 pixels",
    );
    bad(
        "dataset: data",
        "dataset: base",
        "stage `base` makes a checkpoint; expected one that makes a dataset",
    );
    bad("    dataset: data\n", "", "stages.base: missing key `dataset`");
    bad(
        "  data:\n    kind: dataset",
        "  data:\n    needs: base\n    kind: dataset",
        "data -> base -> data",
    );
}

#[test]
fn a_model_that_cannot_be_built_for_the_images() {
    Project::with("window: 4", "window: 3").pipe(&["run", "p.yaml"]).exits(2).says("`window`");
}

#[test]
fn a_class_that_is_not_there() {
    let ended = Project::with("[circle, square]", "[circle, sqare]").pipe(&["run", "p.yaml"]);
    ended.exits(2).says("sqare").says("square");
}

#[test]
fn validation_that_is_monitored_must_exist() {
    let project = Project::new();
    project
        .pipe(&["run", "p.yaml", "--set", "checkpoint.monitor=val_loss"])
        .exits(2)
        .says("set its val_split");
    assert!(project.list("checkpoints").is_empty(), "nothing was begun");
}

#[test]
fn missing_files_and_stages() {
    let project = Project::new();
    project.pipe(&["run", "none.yaml"]).exits(2).says("none.yaml: no such file");
    project
        .pipe(&["run", "p.yaml", "bas"])
        .exits(2)
        .says("no stage is called `bas`")
        .says("did you mean `base`?");
    project
        .pipe(&["run", "p.yaml", "--set", "base.epocs=3"])
        .exits(2)
        .says("--set base.epocs=3: unknown key");
    project.pipe(&["run", "p.yaml", "--epochs", "many"]).exits(2).says("expected a whole number");
    project.pipe(&["run", "p.yaml", "--nonsense"]).exits(2);
    project.pipe(&["ckpt", "show", "p.yaml"]).exits(1).says("p.yaml: not a safetensors file");
    project.pipe(&["runs", "show", "7"]).exits(2).says("there is no run 7");
}

#[test]
fn several_files_are_checked_at_once() {
    let project = Project::new();
    project.write("bad.yaml", "name: x\nstages: {}\n");
    let ended = project.pipe(&["check", "p.yaml", "bad.yaml", "none.yaml"]).exits(2);
    ended.says("p.yaml: valid, 2 stages").says("bad.yaml:").says("none.yaml: no such file");
}

#[test]
fn the_environment_is_weaker_than_the_command_line() {
    let project =
        Project::new().environment("PIPE_EPOCHS", "7").environment("PIPE_BASE__BATCH_SIZE", "0");
    project.pipe(&["run", "p.yaml"]).exits(2).says("PIPE_BASE__BATCH_SIZE: expected at least 1");
    let ended =
        project.pipe(&["run", "p.yaml", "--set", "base.batch_size=16", "--epochs", "1"]).succeeds();
    ended.says("Epoch 1/1");
    let project = Project::new().environment("PIPE_EPOCS", "7");
    project
        .pipe(&["run", "p.yaml", "--dry-run"])
        .succeeds()
        .says("warning: PIPE_EPOCS: no parameter")
        .says("ignored");
}

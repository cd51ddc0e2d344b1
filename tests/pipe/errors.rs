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
    project
        .pipe(&["ckpt", "show", "p.yaml"])
        .exits(1)
        .says("p.yaml: no checkpoint of pipe, which are safetensors files");
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

const FOLDER: &str = "\
name: own
params:
  pictures: nowhere
stages:
  data:
    kind: dataset
    source: image_folder
    root: ${params.pictures}
    image_size: 8
";

#[test]
fn what_a_stage_finds_wrong_is_told_at_the_setting_that_is_to_blame() {
    let project = Project::new();
    project.write("p.yaml", FOLDER);
    let at = "error: p.yaml:8:11: stages.data.root: failed to read the image folder";
    for command in ["plan", "run", "data"] {
        let ended = project.pipe(&[command, "p.yaml"]).exits(1).says(at);
        ended.says("8 |     root: ${params.pictures}").says("it is not there; set `root`");
    }
    // A value from the command line stands in no file, and not where the one it replaces stands.
    let ended = project.pipe(&["plan", "p.yaml", "--set", "data.root=elsewhere"]).exits(1);
    let said = ended.says("error: --set data.root=elsewhere: failed to read").stderr();
    assert!(!said.contains("p.yaml:"), "{said}");
    // One of a config file stands there.
    project.write("own.yaml", "root: theirs\n");
    let with = FOLDER.replace("root: ${params.pictures}", "config: own.yaml");
    project.write("p.yaml", with.replace("params:\n  pictures: nowhere\n", ""));
    project.pipe(&["plan", "p.yaml"]).exits(1).says("error: own.yaml:1:7: ").says("theirs");
    // Of a matrix the member is named.
    let root = "matrix: { root: [one, two] }";
    project.write(
        "p.yaml",
        FOLDER
            .replace("root: ${params.pictures}", root)
            .replace("params:\n  pictures: nowhere\n", ""),
    );
    let ended = project.pipe(&["plan", "p.yaml"]).exits(1);
    ended.says("p.yaml:6:").says("data@root=one: failed to read");
}

#[test]
fn a_class_that_is_not_there_is_told_where_it_stands() {
    let ended = Project::with("[circle, square]", "[circle, sqare]").pipe(&["plan", "p.yaml"]);
    ended.exits(2).says("error: p.yaml:7:14: stages.data.classes: ").says("sqare");
}

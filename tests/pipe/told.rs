//! Commands and options that errors, plans and checks tell people to type: each is typed in the
//! state in which it was told.

use std::path::Path;

use crate::advice::{after, typed};
use crate::chain::{BASE, CHAIN, LORA, chain};
use crate::project::{Project, TINY};

const RUN: &str = "checkpoints/base_training/run_001";

/// Changes the last byte of a file, which has no other name afterwards.
fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// What stands between backticks, each.
fn quoted(said: &str) -> Vec<&str> {
    said.split('`').skip(1).step_by(2).collect()
}

#[test]
fn an_empty_folder_gets_a_project() {
    let project = Project::new();
    std::fs::remove_file(project.path("p.yaml")).unwrap();
    project.pipe(&["run"]).exits(2).says("`pipe init` makes a project");
    let below = Project::new();
    std::fs::remove_file(below.path("p.yaml")).unwrap();
    below.write("mine/pipelines/p.yaml", TINY);
    let said = below.pipe(&["plan"]).exits(2).stderr();
    let line = after(&said, "go there first, such as with ");
    assert!(typed(&below, "", &format!("{line} && pipe plan")).contains("no run yet"));
    assert!(typed(&project, "", "pipe init").contains("pipe run"));
}

#[test]
fn what_verify_finds_is_put_in_order_as_it_says() {
    let project = chain();
    project.pipe(&["run", "p.yaml", "-q"]).succeeds();
    project.pipe(&["verify"]).succeeds();
    // An output, a record, an adapter.
    damage(&project.path("samples/base.png"));
    project.pipe(&["verify"]).exits(1).says("samples/base.png").says("`pipe run` makes it again");
    typed(&project, "", "pipe run p.yaml -q && pipe verify");
    project.write(".pipe/records/chain/best.json", "nothing");
    project.pipe(&["verify"]).exits(1).says("the stage counts as never run");
    typed(&project, "", "pipe run p.yaml -q && pipe verify");
    damage(&project.path(&format!("{LORA}/adapter/adapter_model.safetensors")));
    let said = project.pipe(&["verify", "p.yaml"]).exits(1).stdout();
    assert!(said.contains("without it `pipe run` makes it again"), "{said}");
    let command =
        quoted(&said).into_iter().find(|command| command.starts_with("pipe verify")).unwrap();
    assert_eq!(command, "pipe verify p.yaml --repair");
    typed(&project, "", &format!("{command} && pipe run p.yaml -q && pipe verify"));
    std::fs::remove_file(project.path(&format!("{LORA}/base_model.ckpt"))).unwrap();
    project.pipe(&["verify"]).exits(1).says("without it `pipe run` copies the base model again");
    typed(&project, "", "pipe verify --repair && pipe run p.yaml -q && pipe verify");
}

#[test]
fn a_run_with_a_damaged_checkpoint_goes_on_from_an_older_one_as_verify_says() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml", "-q"]).succeeds();
    for name in ["epoch_002.ckpt", "best.ckpt", "last.ckpt"] {
        damage(&project.path(&format!("{RUN}/checkpoints/{name}")));
    }
    let said = project.pipe(&["verify"]).exits(1).stdout();
    assert!(said.contains("without it the run goes on from an older one"), "{said}");
    assert!(
        typed(&project, "", "pipe verify --repair && pipe run p.yaml").contains("Resumed from")
    );
    project.pipe(&["verify"]).succeeds();
}

#[test]
fn all_keys_are_described_where_a_list_was_cut() {
    let project = Project::with("batch_size: 16", "batchsize: 16");
    let said = project.pipe(&["check", "p.yaml"]).exits(2).stderr();
    let command =
        quoted(&said).into_iter().find(|command| command.starts_with("pipe schema")).unwrap();
    assert!(typed(&project, "", command).contains("\"batch_size\""));
}

#[test]
fn runs_outside_the_project_are_trained_without_the_store() {
    let elsewhere = tempfile::tempdir().unwrap();
    let folder =
        format!("checkpoint: {{ base_dir: {} }}\n    device: cpu", elsewhere.path().display());
    let project = Project::with("device: cpu", &folder);
    let store = format!("--store=file://{}", project.path("store").display());
    project.pipe(&["run", "p.yaml", &store]).exits(2).says("(`--store none`)");
    typed(&project, "", "pipe run p.yaml -q --store none");
    assert!(elsewhere.path().join("run_001").exists());
}

#[test]
fn a_lora_checkpoint_without_its_base_is_used_with_the_base_named() {
    let project = chain();
    project.pipe(&["run", "p.yaml", "-q"]).succeeds();
    std::fs::copy(
        project.path(&format!("{LORA}/checkpoints/best.ckpt")),
        project.path("alone.ckpt"),
    )
    .unwrap();
    let said = project.pipe(&["sample", "alone.ckpt", "--device", "cpu"]).exits(1).stderr();
    let commands: Vec<&str> =
        quoted(&said).into_iter().filter(|command| command.starts_with("pipe ")).collect();
    assert_eq!(commands.len(), 2, "{said}");
    for command in commands {
        let line = command.replace("BASE", BASE).replace("OUT", "merged.ckpt");
        let drawing = if line.contains("sample") { " --n 2 --steps 2 --device cpu" } else { "" };
        typed(&project, "", &format!("{line}{drawing}"));
    }
}

#[test]
fn lora_weights_become_a_whole_model_that_a_training_starts_from() {
    let project = chain();
    project.pipe(&["run", "p.yaml", "-q"]).succeeds();
    let best = format!("{LORA}/checkpoints/best.ckpt");
    let trees = CHAIN.split("  best:").next().unwrap();
    let trees = trees.replace(
        "source: shapes, classes: [circle, square]",
        "source: trees, classes: [oak, pine, palm]",
    );
    let from = |file: &str| {
        let start = format!("device: cpu\n    checkpoint: {{ resume_checkpoint: {file} }}");
        trees
            .replace("device: cpu", &start)
            .replace("epochs: 2", "epochs: 5")
            .replace("name: chain", "name: more")
    };
    project.write("q.yaml", from(&best));
    let said = project.pipe(&["run", "q.yaml"]).exits(2).stderr();
    let command =
        quoted(&said).into_iter().find(|command| command.starts_with("pipe ckpt export")).unwrap();
    typed(&project, "", &format!("{command} {best} -o whole.ckpt"));
    project.write("q.yaml", from("whole.ckpt"));
    typed(&project, "", "pipe run q.yaml -q");
}

#[test]
fn a_run_of_a_renamed_pipeline_is_taken_over_by_its_number() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml", "-q", "--epochs", "1"]).succeeds();
    project.write("p.yaml", project.read("p.yaml").replace("name: tiny", "name: renamed"));
    let said = project.pipe(&["plan", "p.yaml"]).succeeds().stdout();
    let option = quoted(&said)
        .into_iter()
        .find(|option| option.starts_with("--set base.checkpoint.run_number"))
        .unwrap();
    typed(&project, "", &format!("pipe run p.yaml -q {option}"));
    assert_eq!(project.list("checkpoints/base_training"), ["run_001"]);
    assert_eq!(project.metadata(RUN)["epochs"], 2);
}

#[test]
fn fewer_epochs_and_other_settings_than_a_run_has_are_a_new_run_if_asked_for() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml", "-q"]).succeeds();
    project.pipe(&["run", "p.yaml", "--epochs", "1"]).succeeds().says("`--force` trains a new run");
    typed(&project, "", "pipe run p.yaml -q --epochs 1 --force");
    assert!(project.path("checkpoints/base_training/run_002").exists());
    let other = ["run", "p.yaml", "--learning-rate", "0.5e-3", "--run-number", "1", "--resume"];
    project.pipe(&other).exits(2).says("start a new run by leaving the number and `--resume` out");
    typed(&project, "", "pipe run p.yaml -q --learning-rate 0.5e-3");
    assert!(project.path("checkpoints/base_training/run_003").exists());
}

#[test]
fn a_change_of_a_run_is_noted_as_offered() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml", "-q"]).succeeds();
    let named = "p.yaml -q --learning-rate 0.5e-3 --epochs 3 --run-number 1";
    let said = project
        .pipe(&[&["run"], &named.split(' ').collect::<Vec<_>>()[..]].concat())
        .exits(2)
        .stderr();
    let option = quoted(&said).into_iter().find(|option| *option == "--resume").unwrap();
    typed(&project, "", &format!("pipe run {named} {option}"));
    assert_eq!(project.metadata(RUN)["changes"][0]["from_epoch"], 3);
}

#[test]
fn several_settings_are_trained_at_the_same_time_in_a_matrix() {
    let project =
        Project::with("    epochs: ${params", "    matrix: { seed: [1, 2] }\n    epochs: ${params");
    let line = "pipe run p.yaml -q --set 'base.matrix.seed=[1, 2]' --jobs 2";
    typed(&project, "", line);
    assert_eq!(project.list("checkpoints/base_training"), ["run_001", "run_002"]);
}

#[test]
fn what_cannot_be_swept_is_told_with_what_can() {
    let project = Project::new();
    let said = project.pipe(&["plan", "p.yaml", "--sweep", "epochs=2,3"]).exits(2).stderr();
    assert!(said.contains("a parameter cannot be swept"), "{said}");
    assert!(
        said.contains("`--sweep STAGE.KEY=VALUE,VALUE`") && said.contains("`base.epochs`"),
        "{said}"
    );
    let plan = project.pipe(&["plan", "p.yaml", "--sweep", "base.epochs=2,3"]).succeeds();
    plan.says("base@epochs=2").says("base@epochs=3");
}

//! Where a project is, where its runs are, and how one names them.

use std::path::Path;

use serde_json::Value;

use crate::advice::{after, typed};
use crate::chain::chain;
use crate::project::{Ended, Project};

const RUNS: &str = "checkpoints/base_training";

/// Runs in a folder of the project, or anywhere else.
fn inside(project: &Project, folder: impl AsRef<Path>, arguments: &[&str]) -> Ended {
    let mut command = project.command(arguments);
    command.current_dir(project.path("").join(folder));
    Ended::of(command, arguments)
}

#[test]
fn every_command_finds_the_project_from_a_folder_inside_it() {
    let project = Project::new();
    project.write("configs/c.yaml", "epochs: 1\n");
    project.write(
        "p.yaml",
        project.read("p.yaml").replace("epochs: ${params.epochs}", "config: configs/c.yaml"),
    );
    project.write("p.yaml", project.read("p.yaml").replace("params: { epochs: 2 }\n", ""));
    project.pipe(&["run", "p.yaml"]).succeeds();
    project.write("deep/inside/notes.txt", "");
    let deep = |arguments: &[&str]| inside(&project, "deep/inside", arguments).succeeds();
    deep(&["runs"]).says("checkpoints/base_training:").says("project: ");
    deep(&["runs", "show", "1"]).says("Run 001");
    deep(&["check", "../../p.yaml"]).says("valid");
    deep(&["plan", "../../p.yaml"]).says("up to date");
    deep(&["status", "../../p.yaml"]).says("done");
    deep(&["graph", "../../p.yaml"]).says("base");
    deep(&["gc", "--dry-run"]).says("nothing to remove");
    deep(&["runs", "--dir", "../../checkpoints/base_training"]).says("completed");
    deep(&["report", "../../p.yaml", "-o", "here.html"]);
    deep(&["export", "argo", "../../p.yaml", "-o", "here.yaml"]);
    deep(&["plan", "../../p.yaml", "--seed", "3", "-o", "here.json"]);
    assert_eq!(project.list("deep/inside"), ["here.html", "here.json", "here.yaml", "notes.txt"]);
    assert!(project.read("deep/inside/here.yaml").contains("p.yaml"));
    // A plan that was made there, and what is told at the end, work there.
    let said = deep(&["run", "--plan", "here.json"]).stdout();
    typed(&project, "deep/inside", &after(&said, "next: "));
    assert_eq!(project.list(RUNS), ["run_001", "run_002"]);
    assert_eq!(project.list("deep"), ["inside"]);
}

#[test]
fn a_pipeline_file_brings_its_project_with_it() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml"]).succeeds();
    // From a folder without a project, and from another project.
    let elsewhere = Project::new();
    let file = project.path("p.yaml").display().to_string();
    inside(&elsewhere, "", &["run", &file])
        .succeeds()
        .says("everything is up to date")
        .says("project: ");
    elsewhere.write(
        "q.yaml",
        elsewhere.read("p.yaml").replace("name: tiny", "name: other").replace("64", "32"),
    );
    elsewhere.pipe(&["run", "q.yaml"]).succeeds();
    elsewhere.pipe(&["run", &file]).succeeds().says("everything is up to date");
    // What a project has run itself stays its own, wherever the file is.
    elsewhere.pipe(&["run", "p.yaml"]).succeeds();
    elsewhere.pipe(&["run", &file, "--force"]).succeeds();
    assert_eq!(elsewhere.list(RUNS), ["run_001", "run_002", "run_003"]);
    assert_eq!(project.list(RUNS), ["run_001"]);
    // A project that was made inside another one, and has run nothing yet.
    elsewhere.pipe(&["init", "new"]).succeeds();
    let new = "new/pipelines/base_training.yaml";
    elsewhere.pipe(&["plan", new]).succeeds().says("/new\n").says("no run yet");
    // What is printed from elsewhere works there.
    std::fs::remove_dir_all(elsewhere.path(".pipe")).unwrap();
    let said = inside(&elsewhere, "", &["run", &file, "--seed", "5"]).succeeds().stdout();
    typed(&elsewhere, "", &after(&said, "next: "));
    assert!(project.path("samples.png").is_file());
}

#[test]
fn a_stray_folder_above_makes_no_project_of_what_is_below() {
    let outside = tempfile::tempdir().unwrap();
    let at = |path: &str| outside.path().join(path);
    std::fs::create_dir_all(at("home/.pipe")).unwrap();
    std::fs::create_dir_all(at("work/repo/.git")).unwrap();
    std::fs::create_dir_all(at("work/.pipe")).unwrap();
    std::fs::create_dir_all(at("home/project")).unwrap();
    let text = Project::new().read("p.yaml");
    let project = Project::new().environment("HOME", at("home").display().to_string());
    for folder in ["home/project", "work/repo"] {
        std::fs::write(at(folder).join("p.yaml"), &text).unwrap();
        inside(&project, at(folder), &["run", "p.yaml", "--epochs", "1"]).succeeds();
        assert!(at(folder).join(RUNS).is_dir(), "{folder} is a project of its own");
    }
    // In the home folder itself it is one, and a new project inside another is one.
    std::fs::write(at("home/p.yaml"), &text).unwrap();
    inside(&project, at("home"), &["run", "p.yaml", "--epochs", "1"]).succeeds();
    assert!(at("home").join(RUNS).is_dir());
    inside(&project, at("work"), &["init", "new"]).succeeds();
    inside(&project, at("work/new/pipelines"), &["runs"])
        .succeeds()
        .says("work/new\n")
        .says("no runs yet");
}

#[test]
fn runs_are_found_wherever_they_are_kept() {
    let project = Project::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let absolute = elsewhere.path().join("runs").display().to_string();
    let kept = ["models/mine", "checkpoints/deeper/still", &absolute];
    for (seed, folder) in kept.iter().enumerate() {
        let seed = seed.to_string();
        let set = format!("checkpoint.base_dir={folder}");
        project
            .pipe(&["run", "p.yaml", "--epochs", "1", "--seed", &seed, "--set", &set])
            .succeeds();
    }
    let count = || {
        let all: Value =
            serde_json::from_str(&project.pipe(&["runs", "--json"]).succeeds().stdout()).unwrap();
        all.as_array().unwrap().len()
    };
    // Only the last one is in the stage's record; the log of events knows the others.
    assert_eq!(count(), 3);
    project.pipe(&["report"]).succeeds();
    let removed = project.pipe(&["runs", "prune", "--keep", "1"]).succeeds().stdout();
    assert_eq!(removed.matches("kept ").count(), 3, "each is the newest of its folder: {removed}");
}

#[test]
fn a_run_has_a_name_where_its_number_is_not_enough() {
    let project = chain();
    project.pipe(&["run", "p.yaml"]).succeeds();
    for name in [
        "base/1",
        "base_training/1",
        "checkpoints/base_training/1",
        "checkpoints/base_training/run_001/",
    ] {
        project.pipe(&["runs", "show", name]).succeeds().says("stage       base of chain");
    }
    project.pipe(&["runs", "show", "chain/lora/1"]).succeeds().says("stage       lora of chain");
    project.pipe(&["runs", "show", "1"]).exits(2).says("say which: base/1, lora/1");
    let table = project.pipe(&["runs"]).succeeds().stdout();
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("1 ")).collect();
    let name = |row: &&str| row.split_whitespace().nth(1).unwrap().to_owned();
    assert_eq!(rows.iter().map(name).collect::<Vec<_>>(), ["base/1", "lora/1"], "{table}");
    let of_json = project.pipe(&["runs", "show", "lora/1", "--json"]).succeeds().stdout();
    assert!(of_json.contains("\"name\": \"lora/1\""), "{of_json}");
    project
        .pipe(&["runs", "show", "bse/1"])
        .exits(2)
        .says("there is no run bse/1")
        .says("there is base/1, lora/1");
    project.pipe(&["runs", "compare", "base/1", "lora/1"]).succeeds().says("base/1").says("lora/1");
    project
        .pipe(&["runs", "compare", "base/1", "base_training/1"])
        .exits(2)
        .says("`base/1` and `base_training/1` are the same run");
    let json = project.pipe(&["runs", "compare", "base/1", "lora/1", "--json"]).succeeds().stdout();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json.as_object().unwrap().len(), 2, "{json}");
    project.pipe(&["runs", "note", "lora/1", "fine"]).succeeds();
    project.pipe(&["runs", "rm", "base/1"]).exits(2).says("--force");
    project.pipe(&["runs", "rm", "base/1", "--force"]).succeeds();
    project.pipe(&["runs", "show", "1"]).succeeds().says("note        fine");
    // A run's folder is good for its best checkpoint.
    let lora = "checkpoints/lora/run_001";
    let slip = format!("{lora}/checkpoints/best.ckp");
    project.pipe(&["sample", &slip]).exits(1).says(&format!("did you mean {slip}t?"));
    project.pipe(&["sample", lora, "--n", "3", "--steps", "1", "-o", "a.png"]).succeeds();
    project.pipe(&["ckpt", "verify", lora, "checkpoints/lora/run_001/checkpoints"]).succeeds();
    let said = project.pipe(&["sample", "checkpoints/lora"]).exits(2).stderr();
    let named = after(&said, "name one, such as ");
    let named = named.split(';').next().unwrap();
    project.pipe(&["ckpt", "show", named]).succeeds();
    project.pipe(&["sample", "samples"]).exits(2).says("samples is a folder without a checkpoint");
    let base = "checkpoints/base/base_model_last.ckpt";
    project.pipe(&["sample", base, "--lora", lora, "--n", "3", "--steps", "1"]).succeeds();
}

#[test]
fn a_filter_that_no_run_can_fulfil_is_an_error_with_the_nearest_name() {
    let project = Project::new();
    project.pipe(&["runs", "--filter", "anything=1"]).succeeds().says("no runs yet");
    project.pipe(&["run", "p.yaml"]).succeeds();
    let refused = |arguments: &[&str], piece: &str| {
        project.pipe(&[&["runs"], arguments].concat()).exits(2).says(piece);
    };
    refused(&["--filter", "lerning_rate<1"], "did you mean `learning_rate`?");
    refused(&["--sort", "-train_los"], "did you mean `train_loss`?");
    refused(&["--filter", "model.dims=16"], "did you mean `model.dim`?");
    refused(&["--filter", "status=complete"], "did you mean `completed`?");
    refused(&["--filter", "zzzzzzzz=1", "--json"], "expected a column (run, experiment,");
    for good in
        ["best<9", "tags=x", "note!=x", "checkpoint.keep_last_n=3", "val_split=0", "status=failed"]
    {
        let key = good.replace("val_split", "dataset.val_split");
        project.pipe(&["runs", "--filter", &key]).succeeds();
    }
}

#[test]
fn what_people_wrote_of_a_run_keeps_it_from_being_pruned() {
    let project = Project::new();
    for seed in ["1", "2", "3", "4"] {
        project.pipe(&["run", "p.yaml", "--epochs", "1", "--seed", seed]).succeeds();
    }
    project.pipe(&["runs", "tag", "1", "good"]).succeeds();
    project.pipe(&["runs", "note", "2", "the first that worked"]).succeeds();
    let said = project.pipe(&["runs", "prune", "--keep", "1"]).succeeds();
    let said =
        said.says("run_001: tagged good").says("run_002: noted \"the first that worked\"").stdout();
    assert_eq!(project.list(RUNS), ["run_001", "run_002", "run_004"], "{said}");
    project.pipe(&["runs", "tag", "1", "good", "--remove"]).succeeds();
    project
        .pipe(&["runs", "prune", "--keep", "1"])
        .succeeds()
        .says("removed checkpoints/base_training/run_001");
}

//! Numbered runs: new numbers, the same run again, extending, listing.

use serde_json::json;

use crate::project::{Project, weights};

const BASE: &str = "checkpoints/base_training";

#[test]
fn the_same_command_again_has_nothing_to_do() {
    let project = Project::new();
    project
        .pipe(&["run", "p.yaml"])
        .succeeds()
        .says("Base Model Training - Run 001")
        .says("Training completed!");
    let again = project.pipe(&["run", "p.yaml"]).succeeds();
    assert_eq!(again.stdout(), "everything is up to date (`--force` runs it again)\n");
    project.pipe(&["run", "p.yaml", "--force"]).succeeds().says("Run 002");
}

#[test]
fn another_experiment_gets_another_number() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml", "--learning-rate", "1e-3"]).succeeds();
    let plan = project.pipe(&["run", "p.yaml", "--learning-rate", "1e-4", "--dry-run"]).succeeds();
    assert_eq!(
        plan.stdout(),
        "data  run  base needs it\nbase  run  learning_rate 0.001 -> 0.0001 (new run_002)\n"
    );
    project.pipe(&["run", "p.yaml", "--learning-rate", "1e-4"]).succeeds();
    project.pipe(&["run", "p.yaml", "--set", "data.num_images=128"]).succeeds();
    assert_eq!(project.list(BASE), ["run_001", "run_002", "run_003"]);
    // The first is still there and still up to date.
    project.pipe(&["run", "p.yaml"]).succeeds().says("up to date");
    let table = project.pipe(&["runs"]).succeeds().stdout();
    let rows: Vec<&str> = table.lines().collect();
    assert!(rows[1].starts_with("Run #  Experiment  Created"), "{table}");
    assert_eq!(rows.len(), 6, "{table}");
    assert!(rows[3].starts_with("1      tiny") && rows[3].contains("completed  2/2"), "{table}");
    let json: serde_json::Value =
        serde_json::from_str(&project.pipe(&["runs", "--json"]).stdout()).unwrap();
    assert_eq!(json[1]["settings"]["learning_rate"], json!(1e-4));
    project
        .pipe(&["runs", "show", "2"])
        .succeeds()
        .says("Run 002: tiny")
        .says("status      completed");
}

#[test]
fn settings_without_effect_keep_the_run() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml"]).succeeds();
    let settings =
        ["num_workers=0", "checkpoint.keep_last_n=9", "log_every_n_steps=5", "data.root=elsewhere"];
    for setting in settings {
        project.pipe(&["run", "p.yaml", "--set", setting]).succeeds().says("up to date");
    }
}

#[test]
fn what_changes_nothing_beside_other_settings_keeps_the_run_and_each_bit() {
    let project = Project::with("    epochs:", "    ema: { enabled: false }\n    epochs:");
    project.pipe(&["run", "p.yaml"]).succeeds();
    let last =
        |run: usize| weights(&project.path(&format!("{BASE}/run_{run:03}/checkpoints/last.ckpt")));
    let sets: [&[&str]; 6] = [
        &["ema.decay=0.5"],
        &["schedule.min_lr_ratio=0.5"],
        &["schedule.reference_steps=3"],
        &["schedule.decay_share=0.5"],
        &["data.augmentation.rotation_degrees=45"],
        &["data.fit=pad", "data.background=black", "data.recursive=true"],
    ];
    for (i, set) in sets.into_iter().enumerate() {
        let sets: Vec<&str> = set.iter().flat_map(|set| ["--set", *set]).collect();
        let run = |more: &[&str]| project.pipe(&[&["run", "p.yaml"], more, &sets[..]].concat());
        run(&[]).succeeds().says("up to date");
        run(&["--force"]).succeeds();
        assert!(last(i + 2) == last(1), "{set:?}");
    }
    // Beside others, each of them counts.
    for set in [
        ["ema.enabled=true", "ema.decay=0.5"],
        ["schedule.kind=cosine", "schedule.min_lr_ratio=0.5"],
        ["data.augmentation.enabled=true", "data.augmentation.rotation_degrees=45"],
    ] {
        let plan = ["plan", "p.yaml", "--set", set[0], "--set", set[1]];
        let key = set[1].split_once('=').unwrap().0;
        project.pipe(&plan).succeeds().says("base  run").says(key.trim_start_matches("data."));
    }
}

#[test]
fn more_epochs_extend_the_run_to_the_same_bits() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml"]).succeeds();
    let plan = project.pipe(&["run", "p.yaml", "--epochs", "5", "--dry-run"]).succeeds().stdout();
    assert!(plan.ends_with("base  extend 2 -> 5  more epochs of the same run\n"), "{plan}");
    project
        .pipe(&["run", "p.yaml", "--run-number", "1", "--resume", "--epochs", "5"])
        .succeeds()
        .says("Resumed from epoch 2")
        .says("Epoch 3/5");
    project.pipe(&["run", "p.yaml", "--epochs", "5", "--force"]).succeeds();
    let last = |run: &str| weights(&project.path(&format!("{BASE}/{run}/checkpoints/last.ckpt")));
    assert_eq!(last("run_001"), last("run_002"));
    let history = project.metadata(&format!("{BASE}/run_001"))["history"].clone();
    let epochs: Vec<u64> =
        history.as_array().unwrap().iter().map(|e| e["epoch"].as_u64().unwrap()).collect();
    assert_eq!(epochs, [1, 2, 3, 4, 5], "epoch numbers never restart");
}

#[test]
fn a_schedule_that_depends_on_its_length_is_not_stretched_behind_ones_back() {
    let project = Project::with(
        "batch_size: 16",
        "batch_size: 16\n    schedule: { kind: cosine, min_lr_ratio: 0.1 }",
    );
    project.pipe(&["run", "p.yaml"]).succeeds();
    project
        .pipe(&["run", "p.yaml", "--run-number", "1", "--resume", "--epochs", "4"])
        .exits(2)
        .says("schedule horizon 2 -> 4")
        .says("`schedule_epochs: 2`");
    project
        .pipe(&["plan", "p.yaml", "--epochs", "4"])
        .says("base  run  schedule horizon 2 -> 4 (new run_002; a cosine schedule depends on its length: extend it with `schedule_epochs: 2`)");
    let resumed = [
        "run",
        "p.yaml",
        "--run-number",
        "1",
        "--resume",
        "--epochs",
        "4",
        "--set",
        "schedule_epochs=2",
    ];
    project.pipe(&resumed).succeeds();
    assert_eq!(project.metadata("checkpoints/base_training/run_001")["epochs"], 4);
}

#[test]
fn a_run_with_other_settings_is_not_resumed() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml"]).succeeds();
    project
        .pipe(&["run", "p.yaml", "--run-number", "1", "--resume", "--batch-size", "8"])
        .exits(2)
        .says("run 1 was trained with other settings: batch_size 16 -> 8");
}

#[test]
fn nothing_to_resume_starts_new() {
    let project = Project::new();
    project
        .pipe(&["run", "p.yaml", "--run-number", "4", "--resume"])
        .succeeds()
        .says("No checkpoint found for run 4; starting new training");
    assert_eq!(project.list(BASE), ["run_004"]);
    project.pipe(&["run", "p.yaml", "--seed", "7"]).succeeds();
    assert_eq!(project.list(BASE), ["run_004", "run_005"]);
}

#[test]
fn a_moved_run_still_works() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml"]).succeeds();
    std::fs::rename(project.path("checkpoints"), project.path("elsewhere")).unwrap();
    let arguments =
        ["run", "p.yaml", "--epochs", "3", "--set", "checkpoint.base_dir=elsewhere/base_training"];
    project.pipe(&arguments).succeeds().says("Resumed from epoch 2");
}

#[test]
fn a_named_checkpoint_starts_a_new_run() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml"]).succeeds();
    let file = format!("checkpoint.resume_checkpoint={BASE}/run_001/checkpoints/epoch_001.ckpt");
    project
        .pipe(&["run", "p.yaml", "--set", &file])
        .succeeds()
        .says("Run 002")
        .says("Resumed from epoch 1");
    let last = |run: &str| weights(&project.path(&format!("{BASE}/{run}/checkpoints/last.ckpt")));
    assert_eq!(
        last("run_001"),
        last("run_002"),
        "the same settings from the same state give the same bits"
    );
    project
        .pipe(&["run", "p.yaml", "--set", "checkpoint.resume_checkpoint=none.ckpt"])
        .exits(2)
        .says("none.ckpt");
}

#[test]
fn checkpoints_can_be_switched_off_and_thinned() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml", "--set", "checkpoint.enabled=false"]).succeeds();
    assert!(project.list(&format!("{BASE}/run_001/checkpoints")).is_empty());
    let thin = [
        "run",
        "p.yaml",
        "--seed",
        "1",
        "--epochs",
        "5",
        "--set",
        "checkpoint.save_every_n_epochs=2",
    ];
    project.pipe(&thin).succeeds();
    let metadata = project.metadata(&format!("{BASE}/run_002"));
    let saved: Vec<u64> = metadata["checkpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["epoch"].as_u64().unwrap())
        .collect();
    assert_eq!(saved, [2, 4, 5]);
}

#[test]
fn half_precision_trains_alike() {
    let loss = |precision: &str| {
        let project = Project::new();
        project.pipe(&["run", "p.yaml", "--set", &format!("precision={precision}")]).succeeds();
        let metadata = project.metadata("checkpoints/base_training/run_001");
        let dtypes =
            weights(&project.path("checkpoints/base_training/run_001/checkpoints/last.ckpt"));
        assert!(
            dtypes
                .iter()
                .all(|(_, shape, bytes)| bytes.len() == 4 * shape.iter().product::<usize>())
        );
        metadata["history"][1]["metrics"]["train_loss"].as_f64().unwrap()
    };
    let full = loss("f32");
    for precision in ["bf16", "f16"] {
        let half = loss(precision);
        assert!(half != full && (half - full).abs() < 0.01, "{precision}: {half}, f32: {full}");
    }
}

#[test]
fn a_loss_that_is_not_finite_names_its_step_and_spoils_no_checkpoint() {
    let project = Project::with("batch_size: 16", "batch_size: 16\n    gradient_clip_val: null");
    let ended = project.pipe(&["run", "p.yaml", "--learning-rate", "1e38"]).exits(1);
    ended.says("at step 2").says("the last good checkpoint stands");
    assert_eq!(project.list("checkpoints/base_training/run_001/checkpoints"), [] as [&str; 0]);
    assert_eq!(project.metadata("checkpoints/base_training/run_001")["status"], "failed");
}

#[test]
fn runs_are_sorted_filtered_labelled_and_plotted() {
    let project = Project::new();
    for rate in ["0.001", "0.003"] {
        project.pipe(&["run", "p.yaml", "--learning-rate", rate]).succeeds();
    }
    let numbers = |arguments: &[&str]| -> Vec<u64> {
        let text = project.pipe(&[&["runs", "--json"], arguments].concat()).succeeds().stdout();
        let runs: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        runs.iter().map(|run| run["run_number"].as_u64().unwrap()).collect()
    };
    assert_eq!(numbers(&["--sort=-learning_rate"]), [2, 1]);
    assert_eq!(numbers(&["--sort", "learning_rate"]), [1, 2]);
    assert_eq!(numbers(&["--filter", "learning_rate>0.002"]), [2]);
    assert_eq!(numbers(&["--filter", "status=completed", "--filter", "run!=2"]), [1]);
    assert_eq!(numbers(&["--filter", "best<0"]), [0; 0]);
    project.pipe(&["runs", "--filter", "best<0"]).succeeds().says("no run fulfils that");
    project.pipe(&["runs", "--filter", "best"]).exits(2).says("expected a condition such as");

    project.pipe(&["runs", "note", "2", "higher, \"bolder\""]).succeeds();
    project.pipe(&["runs", "tag", "2", "good", "keep"]).succeeds().says("run 002: good keep");
    project.pipe(&["runs", "tag", "2", "keep", "--remove"]).succeeds().says("run 002: good");
    project.pipe(&["runs", "tag", "2", "two words"]).exits(2).says("a tag is one word");
    assert_eq!(numbers(&["--filter", "tags=good"]), [2]);
    project.pipe(&["runs"]).succeeds().says("Tags").says("higher, \"bolder\"");
    let csv = project.pipe(&["runs", "--csv"]).succeeds().stdout();
    assert!(csv.starts_with("run,experiment,pipeline,stage,created,status,epochs,best,"), "{csv}");
    assert!(csv.contains("\"higher, \"\"bolder\"\"\",good,"), "quoted as RFC 4180 says: {csv}");
    let csv = project.pipe(&["runs", "compare", "1", "2", "--csv"]).succeeds().stdout();
    assert!(
        csv.starts_with("key,run 001,run 002\n") && csv.contains("learning_rate,0.001,0.003"),
        "{csv}"
    );
    let shown =
        project.pipe(&["runs", "show", "2", "--curve"]).succeeds().says("note        higher");
    assert!(
        shown.stdout().contains("train_loss\n") && shown.stdout().contains("epoch 1"),
        "{}",
        shown.stdout()
    );
    // A training that goes on leaves what people wrote.
    project.pipe(&["run", "p.yaml", "--learning-rate", "0.003", "--epochs", "3"]).succeeds();
    project.pipe(&["runs", "show", "2"]).succeeds().says("tags        good");
    project.pipe(&["runs", "note", "2"]).succeeds().says("has no note now");
}

//! What a run leaves on disk, read by others: the safetensors library, TensorBoard, plain JSON.

use std::process::Command;

use serde_json::json;

use crate::project::{Project, weights};

const RUN: &str = "checkpoints/base_training/run_001";

fn trained(arguments: &[&str]) -> Project {
    let project = Project::new();
    project.pipe(&[&["run", "p.yaml"], arguments].concat()).succeeds();
    project
}

#[test]
fn the_run_folder_is_as_the_reference_page_has_it() {
    let project = trained(&["--epochs", "5"]);
    assert_eq!(project.list("checkpoints/base_training"), ["run_001"]);
    assert_eq!(
        project.list(RUN),
        [
            "checkpoints",
            "config.yaml",
            "logs",
            "metadata.json",
            "metadata.json.previous",
            "run.lock"
        ]
    );
    let metadata = project.metadata(RUN);
    assert_eq!(metadata["run_number"], json!(1));
    assert_eq!(metadata["experiment_name"], json!("tiny"));
    assert_eq!(metadata["status"], json!("completed"));
    assert_eq!(metadata["history"].as_array().unwrap().len(), 5);
    assert_eq!(metadata["dataset"]["classes"], json!(["circle", "square"]));
    let first = &metadata["checkpoints"][0];
    for key in ["epoch", "path", "metrics", "saved_at", "digest", "bytes"] {
        assert!(!first[key].is_null(), "{key}");
    }
    // Relative to the run, so that a moved run still works.
    let listed: Vec<&str> = metadata["checkpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["path"].as_str().unwrap())
        .collect();
    assert!(listed.iter().all(|path| project.path(RUN).join(path).is_file()), "{listed:?}");
    let best = metadata["best_checkpoint"]["epoch"].as_u64().unwrap();
    let losses: Vec<f64> = metadata["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["metrics"]["train_loss"].as_f64().unwrap())
        .collect();
    let lowest = (0..5).min_by(|a, b| losses[*a].total_cmp(&losses[*b])).unwrap() as u64 + 1;
    assert_eq!(best, lowest);
    let mut expected = vec!["best.ckpt".to_owned()];
    expected.extend((1..=5).filter(|e| *e > 2 || *e == best).map(|e| format!("epoch_{e:03}.ckpt")));
    expected.push("last.ckpt".into());
    assert_eq!(project.list(&format!("{RUN}/checkpoints")), expected, "three newest, and the best");
}

#[test]
fn the_loss_falls() {
    let project = trained(&["--epochs", "12"]);
    let metadata = project.metadata(RUN);
    let loss = |epoch: usize| metadata["history"][epoch]["metrics"]["train_loss"].as_f64().unwrap();
    assert!(loss(11) < 0.9 * loss(0), "{} -> {}", loss(0), loss(11));
}

#[test]
fn best_and_last_take_no_room_of_their_own() {
    use std::os::unix::fs::MetadataExt;
    let project = trained(&[]);
    let inode = |name: &str| {
        std::fs::metadata(project.path(&format!("{RUN}/checkpoints/{name}"))).unwrap().ino()
    };
    assert_eq!(inode("last.ckpt"), inode("epoch_002.ckpt"));
    let best = project.metadata(RUN)["best_checkpoint"]["epoch"].as_u64().unwrap();
    assert_eq!(inode("best.ckpt"), inode(&format!("epoch_{best:03}.ckpt")));
}

#[test]
fn metrics_are_lines_of_json() {
    let project = trained(&[]);
    let lines: Vec<serde_json::Value> = project
        .read(&format!("{RUN}/logs/metrics.jsonl"))
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        lines.iter().filter(|l| l["train_loss_step"].is_number()).count(),
        8,
        "4 steps in each of 2 epochs"
    );
    assert_eq!(lines.iter().filter(|l| l["train_loss"].is_number()).count(), 2);
    assert!(
        lines.iter().all(|l| l["step"].is_u64() && l["epoch"].is_u64() && l["wall_time"].is_f64())
    );
}

#[test]
fn config_yaml_repeats_the_run() {
    let project = trained(&["--learning-rate", "5e-4"]);
    let config = format!("{RUN}/config.yaml");
    project.pipe(&["run", &config]).succeeds().says("up to date");
    project.pipe(&["run", &config, "--force"]).succeeds();
    let weights = |run: &str| {
        weights(&project.path(&format!("checkpoints/base_training/{run}/checkpoints/last.ckpt")))
    };
    assert_eq!(weights("run_001"), weights("run_002"));
}

#[test]
fn validation_and_every_setting_that_changes_the_loop_work_together() {
    let project = Project::with("image_size: 8", "image_size: 8\n    val_split: 0.25");
    let settings = [
        "checkpoint.monitor=val_loss",
        "accumulate_grad_batches=2",
        "optimizer.kind=adam",
        "gradient_clip_val=null",
        "ema.enabled=false",
        "schedule.kind=cosine",
        "schedule.warmup_steps=2",
        "num_workers=3",
        "data.augmentation={enabled: true, rotation_degrees: 10}",
        "model.class_conditional=false",
    ];
    let mut arguments = vec!["run", "p.yaml"];
    settings.iter().for_each(|s| arguments.extend(["--set", s]));
    project.pipe(&arguments).succeeds();
    let metadata = project.metadata(RUN);
    assert!(metadata["best_checkpoint"]["metrics"]["val_loss"].is_number());
    assert_eq!(metadata["dataset"]["validation_images"], json!(16));
    // 48 training images in batches of 16 are 3 batches; two and one make 2 optimizer steps an
    // epoch.
    assert_eq!(metadata["checkpoints"][1]["global_step"], json!(4));
    let show = project
        .pipe(&["ckpt", "show", &format!("{RUN}/checkpoints/last.ckpt")])
        .succeeds()
        .stdout();
    assert!(!show.contains("ema_state_dict"), "no running mean is kept when it is switched off");
    assert!(show.contains("\"num_classes\":0"));
}

#[test]
fn a_damaged_file_is_found() {
    let project = trained(&[]);
    let path = format!("{RUN}/checkpoints/epoch_002.ckpt");
    project.pipe(&["ckpt", "verify", &path]).succeeds().says("good, blake3:");
    let mut bytes = std::fs::read(project.path(&path)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    project.write(&path, bytes);
    project
        .pipe(&["ckpt", "verify", &path])
        .exits(1)
        .says("epoch_002.ckpt: its content does not have its digest");
}

/// The interpreter that has safetensors, numpy and tensorboard, if the tests were given one.
fn python() -> Option<String> {
    let found = std::env::var("PIPE_TEST_PYTHON").ok();
    if found.is_none() {
        eprintln!(
            "skipped: PIPE_TEST_PYTHON names no interpreter with safetensors, numpy and tensorboard"
        );
    }
    found
}

#[test]
fn python_reads_checkpoints_and_tensorboard_reads_the_logs() {
    let Some(python) = python() else { return };
    let project = trained(&[]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pipe/read_run.py");
    let output = Command::new(python).arg(script).arg(project.path(RUN)).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let read: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(read["epoch"], json!("2"));
    assert_eq!(read["model_config"]["dim"], json!(16));
    let ours = weights(&project.path(&format!("{RUN}/checkpoints/best.ckpt")));
    assert_eq!(read["tensors"].as_u64().unwrap() as usize, ours.len());
    // TensorBoard's own table of hyperparameters has the settings.
    let manifest = project.metadata(RUN)["manifest"].clone();
    assert_eq!(read["learning_rate"], manifest["learning_rate"]);
    assert_eq!(read["hparams"]["optimizer.kind"], json!("string_value"));
    assert_eq!(read["hparams"]["ema.enabled"], json!("bool_value"));
    let keys = |value: &serde_json::Value| value.as_object().unwrap().len();
    assert_eq!(keys(&read["hparams"]), keys(&manifest));
    assert!(read["table"].as_str().unwrap().contains("| learning_rate | "), "{read}");
    let history = project.metadata(RUN)["history"].clone();
    let losses = read["train_loss"].as_array().unwrap();
    assert_eq!(losses.len(), 2);
    for (point, epoch) in losses.iter().zip(history.as_array().unwrap()) {
        assert_eq!(point[0], epoch["global_step"]);
        let (theirs, ours) =
            (point[1].as_f64().unwrap(), epoch["metrics"]["train_loss"].as_f64().unwrap());
        assert!((theirs - ours).abs() < 1e-6 * ours);
    }
}

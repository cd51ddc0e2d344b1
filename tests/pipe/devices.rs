//! One training on several devices: the CPU listed several times stands for any devices of one
//! kind. What differs from one device is rounding; `tests/pipe/wgpu.rs` does the same with devices
//! of two kinds.

use serde_json::Value;

use crate::chain::{LORA, chain};
use crate::project::{Project, all_tensors, furthest, weights};
use crate::resume::{delays, in_pieces};

const RUN: &str = "checkpoints/base_training/run_001";
const LAST: &str = "checkpoints/base_training/run_001/checkpoints/last.ckpt";

/// 32 optimizer steps in 8 epochs, each of two batches, the last of which is a small one: 7 batches
/// of 16 and one of 3.
const STEPS: [&str; 10] = [
    "run",
    "p.yaml",
    "--set",
    "data.num_images=115",
    "--set",
    "base.accumulate_grad_batches=2",
    "--set",
    "base.gradient_clip_val=0.5",
    "--epochs",
    "8",
];

/// What rounding makes of a loss in so many steps; a forgotten share changes the first one by some
/// percent.
const TOLERANCE: f64 = 1e-4;

pub fn losses(project: &Project, run: &str) -> Vec<f64> {
    let text = project.read(&format!("{run}/logs/metrics.jsonl"));
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter_map(|line| line["train_loss_step"].as_f64()).collect()
}

#[track_caller]
pub fn assert_same_curve(ours: &[f64], theirs: &[f64], tolerance: f64) {
    assert_eq!(ours.len(), theirs.len());
    for (step, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!((a / b - 1.0).abs() < tolerance, "step {}: {a} and {b}", step + 1);
    }
}

/// Names and sizes of a checkpoint's tensors.
fn outline(project: &Project, file: &str) -> Vec<(String, usize)> {
    all_tensors(&project.path(file)).into_iter().map(|(name, bytes)| (name, bytes.len())).collect()
}

fn trained(devices: &str) -> Project {
    let project = Project::new();
    project
        .pipe(&[&STEPS[..], &["--devices", devices]].concat())
        .succeeds()
        .says("Training completed!");
    project
}

#[test]
fn two_and_three_devices_train_as_one_does() {
    let alone = Project::new();
    alone.pipe(&STEPS).succeeds();
    let curve = losses(&alone, RUN);
    assert_eq!(curve.len(), 32);
    for (devices, name) in [
        ("cpu,cpu", "cpu (flex) + cpu (flex)"),
        ("cpu,cpu,cpu", "cpu (flex) + cpu (flex) + cpu (flex)"),
    ] {
        let several = trained(devices);
        assert_eq!(several.metadata(RUN)["device"], name);
        assert_same_curve(&losses(&several, RUN), &curve, TOLERANCE);
        assert_eq!(outline(&several, LAST), outline(&alone, LAST));
        let worst = furthest(&weights(&several.path(LAST)), &weights(&alone.path(LAST)));
        assert!(worst < 1e-3, "weights differ by up to {worst} after 32 steps on {devices}");
        let again = trained(devices);
        assert!(
            all_tensors(&again.path(LAST)) == all_tensors(&several.path(LAST)),
            "{devices}: not the same bits"
        );
    }
}

#[test]
fn a_list_of_one_device_is_that_device_to_the_bit() {
    let alone = Project::new();
    alone.pipe(&STEPS).succeeds();
    let listed = trained("cpu");
    assert_eq!(listed.metadata(RUN)["device"], "cpu (flex)");
    assert!(
        all_tensors(&alone.path(LAST)) == all_tensors(&listed.path(LAST)),
        "the tensors differ"
    );
}

#[test]
fn a_batch_of_one_image_leaves_a_device_idle() {
    let each =
        ["run", "p.yaml", "--epochs", "1", "--batch-size", "1", "--set", "data.num_images=12"];
    let (alone, several) = (Project::new(), Project::new());
    alone.pipe(&each).succeeds();
    several.pipe(&[&each[..], &["--devices", "cpu,cpu"]].concat()).succeeds();
    assert!(
        all_tensors(&alone.path(LAST)) == all_tensors(&several.path(LAST)),
        "all was done by the first device"
    );
}

#[test]
fn a_run_goes_on_with_another_number_of_devices() {
    let alone = Project::new();
    alone.pipe(&STEPS).succeeds();
    let several = Project::new();
    let on = |devices: &'static str, epochs: &'static str| {
        [
            &STEPS[..8],
            &["--epochs", epochs, "--devices", devices, "--set", "base.schedule_epochs=8"],
        ]
        .concat()
    };
    several.pipe(&on("cpu,cpu", "3")).succeeds();
    several.pipe(&on("cpu,cpu,cpu", "5")).succeeds().says("extend");
    assert_eq!(several.metadata(RUN)["device"], "cpu (flex) + cpu (flex) + cpu (flex)");
    several.pipe(&on("cpu", "8")).succeeds();
    assert_eq!(several.metadata(RUN)["device"], "cpu (flex)");
    assert_same_curve(&losses(&several, RUN), &losses(&alone, RUN), TOLERANCE);
    // The number of devices is no other experiment.
    several.pipe(&on("cpu,cpu", "8")).succeeds().says("up to date");
}

#[test]
fn ten_epochs_on_two_devices_in_pieces_are_ten_epochs_in_one_go() {
    let arguments = [
        "run",
        "p.yaml",
        "--epochs",
        "10",
        "--devices",
        "cpu,cpu",
        "--set",
        "num_images=256",
        "--set",
        "checkpoint.save_every_n_steps=3",
    ];
    let straight = Project::new();
    let began = std::time::Instant::now();
    straight.pipe(&arguments).succeeds();
    let whole = began.elapsed().as_millis() as u64;
    let pieces = Project::new();
    let kills = in_pieces(&pieces, &arguments, delays(whole / 12 + 20, whole / 4 + 60));
    let last = |project: &Project| all_tensors(&project.path(LAST));
    assert!(last(&straight) == last(&pieces), "the tensors differ after {kills} kills");
}

#[test]
fn lora_with_dropout_drops_the_same_on_any_number_of_devices() {
    let (alone, several) = (chain(), chain());
    let dropout =
        ["run", "p.yaml", "lora", "--set", "lora.lora.lora_dropout=0.5", "--set", "lora.epochs=10"];
    alone.pipe(&dropout).succeeds();
    let devices = ["--set", "lora.devices=[cpu, cpu, cpu]"];
    several.pipe(&[&dropout[..], &devices].concat()).succeeds();
    let curve = losses(&alone, LORA);
    assert_eq!(curve.len(), 30);
    assert_same_curve(&losses(&several, LORA), &curve, TOLERANCE);
    let best = format!("{LORA}/checkpoints/last.ckpt");
    assert_eq!(outline(&several, &best), outline(&alone, &best));
}

#[test]
fn the_stronger_of_device_and_devices_counts() {
    let project = Project::with("device: cpu", "devices: [cpu, cpu]");
    let device = |arguments: &[&str]| -> String {
        let all = [&["run", "p.yaml", "--force", "--epochs", "1"], arguments].concat();
        let told = project.pipe(&all).succeeds().stdout();
        let number = told.split("run ").nth(1).unwrap().split(',').next().unwrap().to_owned();
        project.metadata(&format!("checkpoints/base_training/run_{number}"))["device"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(device(&[]), "cpu (flex) + cpu (flex)");
    assert_eq!(device(&["--device", "cpu"]), "cpu (flex)");
    assert_eq!(device(&["--set", "base.devices=null"]).matches("cpu").count(), 1);
    assert_eq!(
        device(&["--set", "base.device=cpu", "--devices", "cpu,cpu,cpu"]).matches('+').count(),
        2
    );
    project
        .pipe(&["run", "p.yaml", "--devices", "cpu", "--device", "cpu"])
        .exits(2)
        .says("cannot be used with");
    // The file of a run repeats it: all settings are written out there.
    let config = "checkpoints/base_training/run_001/config.yaml";
    project.pipe(&["run", config, "--force"]).succeeds();
}

#[test]
fn devices_that_are_not_there_are_named() {
    let project = Project::new();
    project
        .pipe(&["run", "p.yaml", "--devices", "cpu,99"])
        .exits(2)
        .says("failed to find adapter 99");
    project
        .pipe(&["run", "p.yaml", "--devices", "cpu,cuda"])
        .exits(2)
        .says("unknown device `cuda`");
    project
        .pipe(&["run", "p.yaml", "--devices", "0,1,gpu:0"])
        .exits(2)
        .says("`gpu:0` is listed twice");
}

#[test]
fn a_job_asks_for_as_many_gpus_as_are_listed() {
    let limit = |devices: &str| -> Option<String> {
        let project = Project::with("device: cpu", devices);
        let workflow = project.pipe(&["export", "argo", "p.yaml"]).succeeds().stdout();
        workflow
            .lines()
            .find_map(|line| Some(line.trim().strip_prefix("nvidia.com/gpu: ")?.to_owned()))
    };
    assert_eq!(limit("devices: [0, 1, 2]").as_deref(), Some("'3'"));
    assert_eq!(limit("devices: [cpu, cpu]"), None);
    assert_eq!(limit("device: gpu"), None);
}

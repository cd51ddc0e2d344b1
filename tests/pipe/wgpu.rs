//! The wgpu path, on a software Vulkan driver that the tests are given: `PIPE_TEST_VULKAN_ICD`
//! names its ICD file.

use std::time::{Duration, Instant};

use crate::chain::{LORA, chain};
use crate::devices::{assert_same_curve, losses};
use crate::gpu::give_verdict;
use crate::project::{Project, all_tensors, furthest, weights};
use crate::resume::in_pieces;

const RUN: &str = "checkpoints/base_training/run_001";
const ARGUMENTS: [&str; 8] = [
    "run",
    "p.yaml",
    "--device",
    "gpu:0",
    "--epochs",
    "10",
    "--set",
    "checkpoint.save_every_n_steps=1",
];

/// A project whose commands see the software driver; `None`, with a word, when there is none.
pub fn project() -> Option<Project> {
    let Ok(icd) = std::env::var("PIPE_TEST_VULKAN_ICD") else {
        eprintln!("skipped: PIPE_TEST_VULKAN_ICD names no software Vulkan driver");
        return None;
    };
    let project = Project::with("num_images: 64", "num_images: 32");
    let runtime = project.path("").display().to_string();
    give_verdict(&project);
    Some(project.environment("VK_DRIVER_FILES", icd).environment("XDG_RUNTIME_DIR", runtime))
}

#[test]
fn auto_never_takes_a_software_adapter() {
    let Some(project) = project() else { return };
    let table = project.pipe(&["devices"]).succeeds().stdout();
    assert!(table.contains("gpu:0") && table.contains("software"), "{table}");
    assert!(table.lines().any(|line| line.starts_with("*     cpu")), "{table}");
    project
        .pipe(&["run", "p.yaml", "--device", "gpu"])
        .exits(2)
        .says("failed to find a hardware GPU");
    project
        .pipe(&["run", "p.yaml", "--devices", "all"])
        .exits(2)
        .says("failed to find a hardware GPU");
    project.pipe(&["run", "p.yaml", "--device", "gpu:9"]).exits(2).says("failed to find adapter 9");
}

#[test]
fn ten_epochs_on_wgpu_in_pieces_are_ten_epochs_in_one_go() {
    let Some(straight) = project() else { return };
    let began = Instant::now();
    straight.pipe(&ARGUMENTS).succeeds().says("Training completed!");
    // The first step of a process waits for its kernels, most of the time that the whole takes: the
    // delays leave room for some steps after it, and the last one for all.
    let mut whole = began.elapsed();
    let (pieces, kills) = loop {
        let Some(pieces) = project() else { return };
        let delays = [0.5, 0.85, 0.75, 0.9, 0.8].map(|share| whole.mul_f64(share));
        let began = Instant::now();
        let kills =
            in_pieces(&pieces, &ARGUMENTS, delays.into_iter().chain([Duration::from_secs(900)]));
        if kills >= 1 {
            break (pieces, kills);
        }
        // The machine was busy when it ran in one go, and is not any more.
        whole = began.elapsed();
    };
    let last =
        |project: &Project| all_tensors(&project.path(&format!("{RUN}/checkpoints/last.ckpt")));
    assert!(last(&straight) == last(&pieces), "the tensors differ after {kills} kills");
    let log = straight.read(&format!("{RUN}/logs/metrics.jsonl"));
    assert!(log.contains(r#""gpu_memory_bytes":"#), "{log}");

    // The same arithmetic as on the CPU, within rounding.
    let cpu = Project::with("num_images: 64", "num_images: 32");
    cpu.pipe(&["run", "p.yaml", "--epochs", "10"]).succeeds();
    let path = format!("{RUN}/checkpoints/epoch_010.ckpt");
    let worst = furthest(&weights(&straight.path(&path)), &weights(&cpu.path(&path)));
    assert!(worst < 1e-3, "weights differ by up to {worst} after 20 steps");
}

#[test]
fn lora_on_wgpu_is_lora_on_the_cpu() {
    let Some(plain) = project() else { return };
    drop(plain);
    let (gpu, cpu) = (chain(), chain());
    give_verdict(&gpu);
    let icd = std::env::var("PIPE_TEST_VULKAN_ICD").unwrap_or_default();
    let runtime = gpu.path("").display().to_string();
    let gpu = gpu.environment("VK_DRIVER_FILES", icd).environment("XDG_RUNTIME_DIR", runtime);
    cpu.pipe(&["run", "p.yaml", "lora", "--set", "lora.epochs=1"]).succeeds();
    let on_gpu = ["run", "p.yaml", "lora", "--set", "lora.epochs=1", "--set", "lora.device=gpu:0"];
    gpu.pipe(&on_gpu).succeeds().says("trainable");
    let best = format!("{LORA}/checkpoints/best.ckpt");
    let worst = furthest(&weights(&gpu.path(&best)), &weights(&cpu.path(&best)));
    assert!(worst < 1e-3, "weights differ by up to {worst} after 3 steps");
    gpu.pipe(&["sample", &best, "--device", "gpu:0", "--n", "3", "--steps", "2"]).succeeds();
    let picture = image::open(gpu.path("samples.png")).unwrap().to_rgb8();
    cpu.pipe(&["sample", &best, "--device", "cpu", "--n", "3", "--steps", "2"]).succeeds();
    let other = image::open(cpu.path("samples.png")).unwrap().to_rgb8();
    let difference = picture.iter().zip(other.iter()).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(difference <= Some(3), "the pictures differ by up to {difference:?} of 255");
}

#[test]
fn guided_pictures_on_wgpu_are_those_on_the_cpu() {
    let Some(gpu) = project() else { return };
    gpu.pipe(&["run", "p.yaml"]).succeeds();
    let [best, first] = ["best", "epoch_001"].map(|name| format!("{RUN}/checkpoints/{name}.ckpt"));
    let draw = |device: &str, to: &str, options: &[&str]| {
        let plain = ["sample", &best, "--seeds", "0-1", "--steps", "2", "--guidance", "2.5"];
        gpu.pipe(&[&plain[..], &["--device", device, "-o", to], options].concat()).succeeds();
        ["circle/000000.png", "square/000001.png"]
            .map(|name| image::open(gpu.path(to).join(name)).unwrap().to_rgb8().into_raw())
    };
    let mut before = Vec::new();
    // Without a guide one pass of twice the batch on a GPU, and two on the CPU.
    for options in [&[][..], &["--guide", &first]] {
        let (pictures, others) = (draw("gpu:0", "gpu", options), draw("cpu", "cpu", options));
        let pairs = pictures.iter().flatten().zip(others.iter().flatten());
        let difference = pairs.map(|(a, b)| a.abs_diff(*b)).max();
        assert!(difference <= Some(3), "{options:?}: they differ by up to {difference:?} of 255");
        assert!(!before.contains(&others), "{options:?} changes nothing");
        before.push(others);
    }
}

/// What wgpu did in an epoch of so many steps, whose metrics are read once, at its end.
fn calls(steps: u32) -> Option<[usize; 3]> {
    let project = project()?.environment("PIPE_LOG", "wgpu_core=trace");
    let (images, every) =
        (format!("data.num_images={}", 16 * steps), format!("base.log_every_n_steps={steps}"));
    let arguments =
        ["run", "p.yaml", "--device", "gpu:0", "--epochs", "1", "--set", &images, "--set", &every];
    let told =
        project.pipe(&[&arguments[..], &["--set", "base.checkpoint.enabled=false"]].concat());
    let told = told.succeeds().stderr();
    let count = |call: &str| told.lines().filter(|line| line.contains(call)).count();
    Some([
        count("ComputePass::dispatch"),
        count("Queue::submit returned"),
        count("Buffer::map_async"),
    ])
}

#[test]
fn a_step_reads_nothing_back_and_launches_no_more_kernels_than_it_did() {
    let Some([launched, submitted, read]) = calls(4) else { return };
    let [launched_twice, submitted_twice, read_twice] = calls(8).unwrap();
    assert!(read > 0, "the loss is read at the end");
    assert_eq!(read_twice, read, "twice the steps have not one reading more");
    let (launches, submissions) =
        ((launched_twice - launched) / 4, (submitted_twice - submitted) / 4);
    println!("{launches} kernels in {submissions} submissions a step");
    assert!((1..=720).contains(&launches), "{launches} kernels a step");
    assert!((1..=launches / 16).contains(&submissions), "{submissions} submissions a step");
}

#[test]
fn the_cpu_and_a_gpu_share_a_training_in_either_order() {
    let arguments = ["run", "p.yaml", "--epochs", "8", "--set", "checkpoint.save_every_n_epochs=8"];
    let Some(plain) = project() else { return };
    plain.pipe(&[&arguments[..], &["--devices", "cpu"]].concat()).succeeds();
    let curve = losses(&plain, RUN);
    assert_eq!(curve.len(), 16);
    let path = format!("{RUN}/checkpoints/last.ckpt");
    let expected = weights(&plain.path(&path));
    let (steps, tensors) = (16, expected.len());
    for (devices, first) in [("cpu,gpu:0", "cpu (flex) + "), ("gpu:0,cpu", "SwiftShader")] {
        let Some(mixed) = project() else { return };
        let mixed = mixed.environment("PIPE_LOG", "wgpu_core=trace");
        let told =
            mixed.pipe(&[&arguments[..], &["--devices", devices]].concat()).succeeds().stderr();
        let device = mixed.metadata(RUN)["device"].as_str().unwrap().to_owned();
        assert!(device.starts_with(first) && device.contains(" + "), "{device}");
        assert_same_curve(&losses(&mixed, RUN), &curve, 1e-3);
        let worst = furthest(&weights(&mixed.path(&path)), &expected);
        assert!(worst < 1e-3, "weights differ by up to {worst} after {steps} steps");
        // Each step reads the GPU once: as a further device the gradients and the loss, as the main
        // one the weights. The latter reads its loss for the logs too, and all of its state for the
        // checkpoint.
        let read = told.lines().filter(|line| line.contains("Buffer::map_async")).count();
        match devices {
            "cpu,gpu:0" => assert_eq!(read, steps * (tensors + 1)),
            _ => assert!(read <= steps * (tensors + 1) + 4 * tensors, "{read} tensors were read"),
        }
    }
}

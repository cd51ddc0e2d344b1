//! `pipe bench`: a training of the program itself, measured.

use crate::project::Project;

const TINY: [&str; 12] = [
    "bench",
    "--steps=3",
    "--image-size=8",
    "--batch-size=4",
    "--device=cpu",
    "--set=model.dim=16",
    "--set=model.mults=[1, 2]",
    "--set=model.depths=[1, 1]",
    "--set=model.heads=2",
    "--set=model.window=4",
    "--set=num_workers=0",
    "--set=seed=1",
];

#[test]
fn a_training_is_measured_and_leaves_nothing_behind() {
    let project = Project::new().environment("PIPE_EPOCHS", "1").environment("TMPDIR", "tmp");
    std::fs::create_dir(project.path("tmp")).unwrap();
    let before = project.list("");
    let told = project.pipe(&[&TINY[..], &["--json"]].concat()).succeeds().stdout();
    let figures: serde_json::Value = serde_json::from_str(&told).unwrap();
    let number = |pointer: &str| figures.pointer(pointer).unwrap().as_f64().unwrap();
    assert_eq!(figures["device"], "cpu (flex)");
    let (step, speed) = (number("/step_seconds"), number("/images_per_second"));
    assert!(step > 0.0 && (speed * step - 4.0).abs() < 1e-6, "{told}");
    assert!(
        number("/first_step_seconds/0") > step && number("/first_step_seconds/1") > step,
        "{told}"
    );
    assert!(number("/checkpoint/bytes") > 100_000.0, "{told}");
    // Neither bounds the other: the training stands still for the copy, and the copy is written
    // beside it.
    assert!(
        number("/checkpoint/seconds") > 0.0 && number("/checkpoint/blocked_seconds") > 0.0,
        "{told}"
    );
    assert_eq!((project.list(""), project.list("tmp")), (before, vec![]));
    project
        .pipe(&TINY)
        .succeeds()
        .says("8 x 8 pixels, batch 4, f32, on cpu (flex)")
        .says("images/s");
}

#[test]
fn what_a_training_refuses_is_said() {
    let project = Project::new();
    project.pipe(&["bench", "--set", "modl=3"]).exits(2).says("did you mean `model`?");
    project
        .pipe(&["bench", "--preset", "tiny"])
        .exits(2)
        .says("expected diffit_tiny, diffit_small");
    project.pipe(&["bench", "--device", "gpu:99"]).exits(2).says("failed to find adapter 99");
}

/// What a step of a preset asks of a GPU, 32 px and 64 images. Each may fall, and none may rise
/// without a reason: see docs/performance.md.
fn asks_for_no_more(preset: &str, most: [(&str, u64); 7]) {
    let Some(project) = crate::wgpu::project() else { return };
    let preset = format!("--preset={preset}");
    let told = project
        .pipe(&["bench", "--count", "--device=gpu:0", &preset, "--batch-size=64", "--json"])
        .succeeds()
        .stdout();
    let counts: serde_json::Value = serde_json::from_str(&told).unwrap();
    let number = |key: &str| counts[key].as_u64().unwrap();
    let by_kernel: u64 =
        counts["kernels"].as_object().unwrap().values().flat_map(|n| n.as_u64()).sum();
    assert_eq!(by_kernel, number("launches"));
    let pool = ("pool_bytes", number("essential_pool_bytes") * 13 / 10);
    for (key, most) in most.into_iter().chain([pool]) {
        let found = number(key);
        assert!((1..=most).contains(&found), "{preset}: {key}: {found} and not {most}");
    }
    assert_eq!(number("read_backs"), 0);
}

#[test]
fn a_step_on_a_gpu_asks_for_no_more_than_it_did() {
    asks_for_no_more(
        "diffit_tiny",
        [
            ("launches", 235),
            ("serial_iterations", 3_400),
            ("longest_loop", 64),
            ("bytes", 6_100_000_000),
            ("uploads", 4),
            ("submits", 10),
            ("sampler_step_launches", 145),
        ],
    );
    let Some(project) = crate::wgpu::project() else { return };
    let said = project.pipe(&["bench", "--count", "--device=cpu"]).exits(1);
    said.says("launches are those of a GPU, and this device is none");
}

#[test]
fn a_step_of_diffit_small_on_a_gpu_asks_for_no_more_than_it_did() {
    asks_for_no_more(
        "diffit_small",
        [
            ("launches", 404),
            ("serial_iterations", 4_800),
            ("longest_loop", 128),
            ("bytes", 21_400_000_000),
            ("uploads", 4),
            ("submits", 14),
            ("sampler_step_launches", 244),
        ],
    );
}

#[test]
#[ignore = "two minutes, for the kernels of diffit_small, more often: run it where they change"]
fn a_step_of_diffit_cifar10_on_a_gpu_asks_for_no_more_than_it_did() {
    asks_for_no_more(
        "diffit_cifar10",
        [
            ("launches", 745),
            ("serial_iterations", 9_200),
            ("longest_loop", 128),
            ("bytes", 40_600_000_000),
            ("uploads", 4),
            ("submits", 24),
            ("sampler_step_launches", 444),
        ],
    );
}

#[test]
fn the_kernels_of_a_step_are_timed() {
    let Some(project) = crate::wgpu::project() else { return };
    let small =
        ["bench", "--kernels", "--device=gpu:0", "--image-size=8", "--batch-size=1", "--steps=1"];
    // Of a U-Net there are fewer kernels to compile.
    let told = project.pipe(&[&small[..], &["--preset=unet_tiny", "--json"]].concat()).succeeds();
    let told = told.stdout();
    let times: serde_json::Value = serde_json::from_str(&told).unwrap();
    let kernels = times["kernels"].as_array().unwrap();
    let sum = |key: &str| kernels.iter().filter_map(|kernel| kernel[key].as_f64()).sum::<f64>();
    let seconds = times["seconds"].as_f64().unwrap();
    assert!(sum("launches") > 100.0 && seconds > 0.0, "{told}");
    assert!((sum("seconds") / seconds - 1.0).abs() < 1e-9, "{told}");
    let slowest = kernels[0]["seconds"].as_f64();
    assert!(kernels.iter().all(|kernel| kernel["seconds"].as_f64() <= slowest), "{told}");
    let said = project.pipe(&["bench", "--kernels", "--device=cpu", "--image-size=8"]).exits(1);
    said.says("kernels are those of a GPU, and this device is none");
}

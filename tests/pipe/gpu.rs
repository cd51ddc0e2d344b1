//! What a user of a GPU meets besides the numbers (`wgpu` has those): several stages in one
//! process, what the machine says by files and variables, number formats, the self-test. On the
//! software Vulkan driver that the tests are given.

use std::sync::OnceLock;

use serde_json::Value;

use crate::chain::results;
use crate::devices::{assert_same_curve, losses};
use crate::project::{Project, all_tensors};

/// Base, its best checkpoint, LoRA on it, pictures of both: as small as they can be.
const CHAIN: &str = "\
name: chain
stages:
  data: { kind: dataset, source: shapes, classes: [circle, square], image_size: 8, num_images: 16 }
  base:
    kind: train
    dataset: data
    epochs: 1
    batch_size: 8
    model: { dim: 16, mults: [1], depths: [1], heads: 1, window: 8 }
    device: gpu:0
    log_every_n_steps: 1
  best: { kind: copy_best, from: base, to: checkpoints/base/base_model_last.ckpt }
  trees: { kind: dataset, source: trees, classes: [oak, pine], image_size: 8, num_images: 8 }
  lora:
    kind: lora
    base: best
    dataset: trees
    epochs: 1
    batch_size: 8
    device: gpu:0
    lora: { r: 2, target_modules: [qkv] }
  base_picture: { kind: sample, from: best, to: samples/base.png, n: 2, steps: 1, device: gpu:0 }
  lora_picture: { kind: sample, from: lora, to: samples/lora.png, n: 2, steps: 1, device: gpu:0 }
";

const RUN: &str = "checkpoints/base_training/run_001";
const BASE: &[&str] = &["run", "p.yaml", "base"];

/// A project with the chain whose commands see the software driver; `None`, with a word, when there
/// is none.
fn untested() -> Option<Project> {
    let Ok(icd) = std::env::var("PIPE_TEST_VULKAN_ICD") else {
        eprintln!("skipped: PIPE_TEST_VULKAN_ICD names no software Vulkan driver");
        return None;
    };
    let project = Project::new();
    project.write("p.yaml", CHAIN);
    let runtime = project.path("").display().to_string();
    Some(project.environment("VK_DRIVER_FILES", icd).environment("XDG_RUNTIME_DIR", runtime))
}

fn project() -> Option<Project> {
    let project = untested()?;
    give_verdict(&project);
    Some(project)
}

const VERDICTS: &str = ".pipe/cache/devices";

/// Puts the software adapter's verdict into a project, so that not every test waits for the
/// self-test.
pub fn give_verdict(project: &Project) {
    static KEPT: OnceLock<Vec<(String, String)>> = OnceLock::new();
    let kept = KEPT.get_or_init(|| {
        let first = untested().unwrap();
        first.pipe(&["devices", "--test", "gpu:0"]).succeeds();
        let files = first.list(VERDICTS).into_iter();
        files.map(|name| (name.clone(), first.read(&format!("{VERDICTS}/{name}")))).collect()
    });
    kept.iter().for_each(|(name, text)| project.write(&format!("{VERDICTS}/{name}"), text));
}

fn last(project: &Project) -> Vec<(String, Vec<u8>)> {
    all_tensors(&project.path(&format!("{RUN}/checkpoints/last.ckpt")))
}

fn listed(project: &Project) -> Value {
    let rows: Value =
        serde_json::from_str(&project.pipe(&["devices", "--json"]).succeeds().stdout()).unwrap();
    rows.as_array().unwrap().iter().find(|row| row["device"] == "gpu:0").unwrap().clone()
}

#[test]
fn all_stages_of_a_chain_compute_on_one_gpu_in_one_process_and_two_processes_agree_to_the_bit() {
    let Some(first) = project() else { return };
    let second = project().unwrap();
    let other = std::thread::spawn(move || {
        second.pipe(&["run", "p.yaml", "--jobs", "1"]).succeeds();
        results(&second)
    });
    first.pipe(&["run", "p.yaml", "--jobs", "1"]).succeeds().says("Training completed!");
    assert_eq!(first.list("samples"), ["base.png", "lora.png"]);
    assert!(results(&first) == other.join().unwrap(), "two processes have different bits");
    // One after another in the same process: a new run of a training, and pictures anew.
    first.pipe(&["run", "p.yaml", "--force", "--jobs", "1"]).succeeds();
    assert_eq!(first.list("checkpoints/lora"), ["run_001", "run_002"]);
}

#[test]
fn configuration_files_and_variables_of_the_machine_change_no_bit_and_write_no_file() {
    let Some(plain) = project() else { return };
    let told_plainly = plain.pipe(BASE).succeeds().stderr();
    let hostile = project().unwrap();
    // Unfused kernels with other checks, and logs of all that is compiled and computed.
    let cubecl = "[compilation]\ncheck_mode = \"validate\"\n[compilation.logger]\nlevel = \"full\"\nfile = \"cubecl.log\"\n\
                  [profiling.logger]\nlevel = \"full\"\nfile = \"cubecl.log\"\n[streaming]\npolicy = \"single\"\n";
    let burn = "[fusion.beam_search]\nmax_blocks = 1\nmax_explorations = 0\n[fusion.logger]\nlevel = \"full\"\n\
                file = \"burn.log\"\n[autodiff.logger]\nlevel = \"full\"\nfile = \"burn.log\"\nstderr = true\n";
    hostile.write("inner/p.yaml", CHAIN);
    hostile.write("inner/cubecl.toml", cubecl);
    hostile.write("burn.toml", burn);
    std::fs::rename(hostile.path(".pipe"), hostile.path("inner/.pipe")).unwrap();
    let mut command = hostile.command(BASE);
    let log = hostile.path("debug.log");
    let told = command
        .current_dir(hostile.path("inner"))
        .env("CUBECL_DEBUG_LOG", &log)
        .env("CUBECL_DEBUG_OPTION", "profile-full")
        .env("CUBECL_WGPU_MAX_TASKS", "many")
        .env("CUBECL_WGPU_DEFAULT_DEVICE", "Nothing")
        .env("CUBECL_AUTOTUNE_LEVEL", "full")
        .env("BURN_FUSION_LOG", "full")
        .env("BURN_FUSION_MAX_EXPLORATIONS", "0")
        .env("BURN_DEVICE", "cuda")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(told.status.success(), "{stderr}");
    assert_eq!(hostile.list(""), ["burn.toml", "inner", "p.yaml"], "a file was written");
    assert_eq!(
        hostile.list("inner"),
        [".pipe", "checkpoints", "cubecl.toml", "p.yaml"],
        "a file was written"
    );
    let checkpoint = hostile.path(&format!("inner/{RUN}/checkpoints/last.ckpt"));
    assert!(all_tensors(&checkpoint) == last(&plain), "the bits differ");
    // What is told is what is told without them, but for names and times.
    let lines = |text: &str| text.lines().count();
    assert_eq!(lines(&stderr), lines(&told_plainly), "{stderr}");
}

#[test]
fn malformed_configuration_of_other_programs_is_not_even_read() {
    let project = Project::new();
    for name in ["cubecl.toml", "burn.toml", "CubeCL.toml", "Burn.toml"] {
        project.write(name, "[autodiff\nnot toml");
    }
    let told = project.pipe(&["run", "p.yaml", "--epochs", "1"]).succeeds().stderr();
    assert!(!told.contains("toml") && !told.contains("cubecl"), "{told}");
}

#[test]
fn what_a_gpu_can_do_is_told_in_lines_of_80_columns() {
    let Some(project) = project() else { return };
    let gpu = listed(&project);
    assert_eq!((&gpu["kind"], &gpu["software"]), (&"software".into(), &true.into()));
    let able = &gpu["capabilities"];
    let compiler = if cfg!(feature = "vulkan") { ["SPIR-V", "WGSL"] } else { ["WGSL"; 2] };
    let compiled = able["compiler"].as_str().unwrap();
    assert!(compiler.contains(&compiled), "{able}");
    let limit = |key: &str| able["limits"][key].as_u64().unwrap();
    assert!(limit("buffer") >= 1 << 27 && limit("shared_memory") >= 1 << 14, "{able}");
    assert!(limit("workgroup") >= 128 && limit("bindings") >= 4, "{able}");
    let said = project.pipe(&["devices"]).succeeds().stdout();
    assert!(said.contains(&format!("  kernels     {compiled}\n")), "{said}");
    let widest = said.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(80), "{said}");
}

#[test]
fn the_precisions_that_are_listed_for_a_gpu_are_those_that_it_trains_in() {
    let Some(plain) = project() else { return };
    let listed = listed(&plain)["precision"].as_array().unwrap().clone();
    assert_eq!(listed[0], "f32");
    plain.pipe(BASE).succeeds();
    for precision in ["f16", "bf16"] {
        let project = project().unwrap();
        let set = format!("base.precision={precision}");
        let told = project.pipe(&[BASE, &["--set", &set]].concat());
        if listed.iter().any(|one| one == precision) {
            told.succeeds();
            assert_same_curve(&losses(&project, RUN), &losses(&plain, RUN), 0.02);
        } else {
            told.exits(2)
                .says(&format!("cannot compute with {precision}; use f32"))
                .says("`device: cpu`, which can");
            let on_cpu = ["--set", &set, "--set", "base.device=cpu"];
            project.pipe(&[BASE, &on_cpu].concat()).succeeds();
        }
    }
}

#[test]
fn the_first_training_on_a_gpu_tests_it_and_one_that_fails_is_refused_until_it_passes() {
    let Some(project) = untested() else { return };
    let table = project.pipe(&["devices"]).succeeds().stdout();
    assert!(!table.contains("passed"), "{table}");
    project.pipe(BASE).succeeds().says("first training on SwiftShader").says("Training completed!");
    let table = project.pipe(&["devices"]).succeeds().stdout();
    assert!(table.contains("f32 passed"), "{table}");
    assert_eq!(listed(&project)["self_test"][0]["verdict"], "passed");
    let again = project.pipe(&[BASE, &["--force"]].concat()).succeeds();
    assert!(!again.stderr().contains("first training on"), "{}", again.stderr());

    // As if the driver had computed something else.
    let name = &project.list(VERDICTS)[0];
    let kept = project.read(&format!("{VERDICTS}/{name}"));
    let failed =
        kept.replace("\"passed\"", "\"failed\",\n  \"reason\": \"the loss was NaN and not 1\"");
    assert_ne!(kept, failed);
    project.write(&format!("{VERDICTS}/{name}"), failed);
    let table = project.pipe(&["devices"]).succeeds().stdout();
    assert!(
        table.contains("f32 failed") && table.contains("the loss was NaN and not 1"),
        "{table}"
    );
    let refused = project.pipe(&[BASE, &["--force"]].concat()).exits(2);
    refused
        .says("the loss was NaN and not 1")
        .says("`device: cpu`")
        .says("pipe devices --test gpu:0");
    assert_eq!(
        project.list("checkpoints/base_training"),
        ["run_001", "run_002"],
        "no run was begun"
    );
    project.pipe(&[BASE, &["--force", "--set", "base.device=cpu"]].concat()).succeeds();
    let table = project.pipe(&["devices", "--test", "gpu:0"]).succeeds().stdout();
    assert!(table.contains("f32 passed"), "{table}");
    project.pipe(&[BASE, &["--force"]].concat()).succeeds();
}

#[test]
fn without_a_gpu_there_is_the_cpu_and_nothing_to_test() {
    let project = Project::new().environment("VK_DRIVER_FILES", "/dev/null");
    if cfg!(target_os = "linux") {
        project.pipe(&["devices", "--test"]).exits(2).says("failed to find a hardware GPU");
    }
    let rows: Value =
        serde_json::from_str(&project.pipe(&["devices", "--json"]).succeeds().stdout()).unwrap();
    let cpu = &rows[rows.as_array().unwrap().len() - 1];
    assert_eq!(cpu["precision"], serde_json::json!(["f32", "f16", "bf16"]));
}

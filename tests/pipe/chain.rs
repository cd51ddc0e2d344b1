//! The chain: base training, its best checkpoint, LoRA on other images, pictures from both.

use std::time::{Duration, Instant};

use crate::project::{Project, all_tensors};
use crate::resume::{delays, kill_after};

pub const CHAIN: &str = "\
name: chain
stages:
  data: { kind: dataset, source: shapes, classes: [circle, square], image_size: 8, num_images: 64 }
  base:
    kind: train
    dataset: data
    epochs: 2
    batch_size: 16
    model: { dim: 16, mults: [1, 2], depths: [1, 1], heads: 2, window: 4 }
    device: cpu
    log_every_n_steps: 1
  best: { kind: copy_best, from: base, to: checkpoints/base/base_model_last.ckpt }
  trees: { kind: dataset, source: trees, classes: [oak, pine, palm], image_size: 8, num_images: 48 }
  lora:
    kind: lora
    base: best
    dataset: trees
    epochs: 3
    batch_size: 16
    device: cpu
    log_every_n_steps: 1
    lora: { r: 2, lora_alpha: 4, target_modules: [qkv, proj, fc1], lora_dropout: 0.1, rank_pattern: { \"middle.*\": 3 } }
  base_picture: { kind: sample, from: best, to: samples/base.png, n: 4, steps: 2, device: cpu }
  lora_picture: { kind: sample, from: lora, to: samples/lora.png, n: 6, steps: 2, guidance: 2, device: cpu }
";

pub const BASE: &str = "checkpoints/base/base_model_last.ckpt";
pub const LORA: &str = "checkpoints/lora/run_001";

pub fn chain() -> Project {
    let project = Project::new();
    project.write("p.yaml", CHAIN);
    project
}

/// The actions of `--dry-run`, as `stage action`.
fn planned(project: &Project) -> Vec<String> {
    let text = project.pipe(&["run", "p.yaml", "--dry-run"]).succeeds().stdout();
    text.lines().map(|l| l.split_whitespace().take(2).collect::<Vec<_>>().join(" ")).collect()
}

/// Everything of a finished chain that must not depend on how it came about.
pub fn results(project: &Project) -> Vec<(String, Vec<u8>)> {
    let mut all = all_tensors(&project.path(BASE));
    all.extend(all_tensors(&project.path(&format!("{LORA}/checkpoints/last.ckpt"))));
    all.extend(all_tensors(&project.path(&format!("{LORA}/adapter/adapter_model.safetensors"))));
    for file in ["samples/base.png", "samples/lora.png"] {
        all.push((file.to_owned(), std::fs::read(project.path(file)).unwrap()));
    }
    all
}

#[test]
fn one_command_goes_all_the_way_and_a_second_has_nothing_to_do() {
    let project = chain();
    let first = project.pipe(&["run", "p.yaml"]).succeeds();
    first
        .says("LoRA Fine-tuning - Run 001")
        .says("trainable")
        .says("label table is trained in full");
    assert_eq!(project.list("samples"), ["base.png", "lora.png"]);
    assert_eq!(
        project.list(LORA),
        [
            "adapter",
            "base_model.ckpt",
            "checkpoints",
            "config.yaml",
            "logs",
            "metadata.json",
            "metadata.json.previous",
            "run.lock"
        ]
    );
    assert_eq!(
        project.list(&format!("{LORA}/adapter")),
        ["adapter_config.json", "adapter_model.safetensors"]
    );
    let picture = image::open(project.path("samples/lora.png")).unwrap();
    assert!(
        picture.width() > 130 && picture.height() > 200,
        "{} x {}",
        picture.width(),
        picture.height()
    );
    project.pipe(&["run", "p.yaml"]).succeeds().says("everything is up to date");
    project.pipe(&["ckpt", "verify", BASE, &format!("{LORA}/base_model.ckpt")]).succeeds();
}

#[test]
fn a_deleted_copy_is_made_again_alone() {
    let project = chain();
    project.pipe(&["run", "p.yaml"]).succeeds();
    let before = results(&project);
    std::fs::remove_file(project.path(BASE)).unwrap();
    // What it hands on is known already; what stands behind it is looked at again all the same.
    let sure = ["base skip", "data skip"].map(str::to_owned);
    let found = planned(&project);
    assert!(sure.iter().all(|step| found.contains(step)), "{found:?}");
    assert!(
        found.contains(&"best run".to_owned()) && found.contains(&"lora run?".to_owned()),
        "{found:?}"
    );
    let ended = project.pipe(&["run", "p.yaml"]).succeeds();
    assert!(ended.stdout().contains("lora, "), "it is skipped: {}", ended.stdout());
    assert!(before == results(&project));
    assert_eq!(project.list("checkpoints/lora"), ["run_001"]);
}

#[test]
fn more_epochs_without_a_new_best_leave_the_rest_alone() {
    let project = chain();
    // With the highest loss as the best, the first epoch stays it.
    project.write(
        "p.yaml",
        CHAIN.replace("epochs: 2\n", "epochs: 2\n    checkpoint: { mode: max }\n"),
    );
    project.pipe(&["run", "p.yaml"]).succeeds();
    let again = project.pipe(&["run", "p.yaml", "--set", "base.epochs=3"]).succeeds();
    again.says("base: extend 2 -> 3").says("best: skip").says("lora: skip");
    assert_eq!(project.list("checkpoints/lora"), ["run_001"]);

    project.write("p.yaml", CHAIN);
    project.pipe(&["run", "p.yaml"]).succeeds();
    assert_eq!(
        project.list("checkpoints/lora"),
        ["run_001", "run_002"],
        "another best is another base"
    );
}

#[test]
fn killed_at_any_moment_the_chain_ends_in_the_same_bytes() {
    let straight = chain();
    let began = Instant::now();
    straight.pipe(&["run", "p.yaml"]).succeeds();
    let whole = began.elapsed().as_millis() as u64;

    let pieces = chain();
    let short = delays(20, whole / 8 + 20).take(10);
    let kills = short.filter(|delay| kill_after(&pieces, &["run", "p.yaml"], *delay)).count();
    pieces.pipe(&["run", "p.yaml"]).succeeds();
    assert!(kills >= 3, "killed only {kills} times");
    assert!(results(&straight) == results(&pieces), "the bytes differ after {kills} kills");
    assert_eq!(pieces.list("checkpoints/lora"), ["run_001"]);
    assert_eq!(pieces.list("checkpoints/base_training"), ["run_001"]);
}

#[test]
fn a_moved_project_goes_on() {
    let straight = chain();
    straight.pipe(&["run", "p.yaml"]).succeeds();

    let project = chain();
    project.pipe(&["run", "p.yaml", "--set", "lora.epochs=1"]).succeeds();
    let moved = Project::new();
    for entry in std::fs::read_dir(project.path("")).unwrap() {
        let entry = entry.unwrap();
        let to = moved.path(&entry.file_name().to_string_lossy());
        if to.is_file() {
            std::fs::remove_file(&to).unwrap();
        }
        std::fs::rename(entry.path(), to).unwrap();
    }
    let plan = planned(&moved);
    assert!(
        plan.contains(&"base skip".to_owned()) && plan.contains(&"lora extend".to_owned()),
        "{plan:?}"
    );
    moved.pipe(&["run", "p.yaml"]).succeeds();
    assert!(results(&straight) == results(&moved));
}

#[test]
fn somebody_elses_file_is_left_alone() {
    let project = chain();
    project.write(BASE, "mine");
    project.pipe(&["plan", "p.yaml"]).succeeds().says(&format!(
        "not copied yet; {BASE} is there: it is left alone, unless a stage of this pipeline made it"
    ));
    project
        .pipe(&["run", "p.yaml"])
        .exits(2)
        .says("exists and was not made by this stage")
        .says("overwrite: true");
    assert_eq!(project.read(BASE), "mine");
    project.pipe(&["run", "p.yaml", "--set", "best.overwrite=true"]).succeeds();
    project.pipe(&["ckpt", "verify", BASE]).succeeds();
}

#[test]
fn a_chosen_epoch_is_copied_and_one_that_is_gone_is_named() {
    let project = chain();
    project
        .pipe(&["run", "p.yaml", "best", "--set", "best.select={epoch: 1}"])
        .succeeds()
        .says("epoch 1 of run 001");
    project
        .pipe(&["run", "p.yaml", "best", "--set", "best.select=last"])
        .succeeds()
        .says("epoch 2 of run 001");
    project
        .pipe(&["run", "p.yaml", "best", "--set", "best.select={epoch: 9}"])
        .exits(2)
        .says("there is no epoch 9: `base` has epochs 1 to 2");
    project
        .pipe(&["run", "p.yaml", "best", "--set", "best.to=../elsewhere.ckpt"])
        .exits(2)
        .says("inside the project");
}

#[test]
fn names_that_mean_nothing_are_refused_with_those_there_are() {
    let project = chain();
    project.pipe(&["run", "p.yaml", "--set", "lora.lora.target_modules=[query]"]).exits(2).says(
        "`query` matches no projection; there are: affine, fc1, fc2, proj, qkv, qkv_s, qkv_t, skip",
    );
    assert!(
        !project.path("checkpoints").exists(),
        "a name that no model has is refused before any training"
    );
    project
        .pipe(&["run", "p.yaml", "--set", "lora.lora.target_modules=[encoder.7.*]"])
        .exits(2)
        .says("`encoder.7.*` matches no projection")
        .says("encoder.0.0.block.attn.qkv_s");
    project
        .pipe(&["run", "p.yaml", "--set", "lora.lora.rank_pattern={decoder.3.*: 4}"])
        .exits(2)
        .says("`decoder.3.*` matches no projection");
    project
        .pipe(&["run", "p.yaml", "--set", "trees.image_size=16"])
        .exits(2)
        .says("16 x 16 pixels, the base model's 8 x 8");
    assert_eq!(project.list("checkpoints/lora"), [""; 0], "no run was begun");
}

#[test]
fn lora_checkpoints_hold_what_changes_and_merge_into_whole_weights() {
    let project = chain();
    project.pipe(&["run", "p.yaml"]).succeeds();
    let best = format!("{LORA}/checkpoints/best.ckpt");
    let names: Vec<String> =
        all_tensors(&project.path(&best)).into_iter().map(|(name, _)| name).collect();
    let weights: Vec<&String> = names.iter().filter(|n| n.starts_with("state_dict.")).collect();
    assert!(weights.iter().all(|n| n.contains(".lora_A.")
        || n.contains(".lora_B.")
        || n.ends_with("time.label.weight")));
    assert!(names.contains(
        &"optimizer_state_dict.middle.0.block.attn.proj.lora_A.weight.exp_avg".to_owned()
    ));
    assert!(!names.iter().any(|n| n.contains("fc2.lora")), "only what was asked for");

    project.pipe(&["ckpt", "export", &best, "--merge", "-o", "merged.ckpt"]).succeeds();
    project
        .pipe(&["ckpt", "export", &best, "--merge", "-o", "merged.ckpt"])
        .exits(2)
        .says("--overwrite");
    for prefix in ["state_dict.", "ema_state_dict."] {
        let probe = |file: &str| {
            let text =
                project.pipe(&["ckpt", "probe", file, "--prefix", prefix]).succeeds().stdout();
            serde_json::from_str::<serde_json::Value>(&text).unwrap()
        };
        let (adapted, merged) = (probe(&best), probe("merged.ckpt"));
        let close = |a: &serde_json::Value, b: &serde_json::Value| {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            (a - b).abs() <= 1e-4 * a.abs().max(1e-2)
        };
        assert!(
            close(&adapted["mean"], &merged["mean"]) && close(&adapted["std"], &merged["std"]),
            "{adapted} {merged}"
        );
        let first = |probe: &serde_json::Value| probe["first"].as_array().unwrap().clone();
        assert!(
            first(&adapted).iter().zip(&first(&merged)).all(|(a, b)| close(a, b)),
            "{adapted} {merged}"
        );
    }
    // The adapter in PEFT's format on the base model is the EMA weights of the checkpoint.
    let adapter = format!("{LORA}/adapter");
    project
        .pipe(&["ckpt", "export", BASE, "--merge", "--lora", &adapter, "-o", "other.ckpt"])
        .succeeds();
    let part = |file: &str, prefix: &str| -> Vec<(String, Vec<u8>)> {
        let all = all_tensors(&project.path(file)).into_iter();
        all.filter_map(|(name, bytes)| Some((name.strip_prefix(prefix)?.to_owned(), bytes)))
            .collect()
    };
    assert!(part("other.ckpt", "state_dict.") == part("merged.ckpt", "ema_state_dict."));

    project.pipe(&["ckpt", "export", BASE, "--weights-only", "-o", "weights.ckpt"]).succeeds();
    assert!(part("weights.ckpt", "optimizer_state_dict.").is_empty());
    assert!(part("weights.ckpt", "state_dict.") == part(BASE, "state_dict."));
    project
        .pipe(&["ckpt", "export", BASE, "--merge", "-o", "no.ckpt"])
        .exits(1)
        .says("holds no LoRA weights to merge");
}

#[test]
fn samples_depend_on_seed_and_number_alone() {
    let project = chain();
    project.pipe(&["run", "p.yaml"]).succeeds();
    let adapter = format!("{LORA}/adapter");
    let draw = |arguments: &[&str]| {
        let all =
            [&["sample", BASE, "--device", "cpu", "--steps", "2", "-o", "out.png"], arguments]
                .concat();
        project.pipe(&all).succeeds();
        image::open(project.path("out.png")).unwrap().to_rgb8()
    };
    let (one, other) = (draw(&["--n", "4"]), draw(&["--n", "4", "--batch-size", "1"]));
    assert!(one == other, "the batch size changes nothing");
    assert!(one != draw(&["--n", "4", "--seed", "1"]));
    assert!(one != draw(&["--n", "4", "--lora", &adapter]));
    let lora = format!("{LORA}/checkpoints/best.ckpt");
    let by_folder = draw(&["--class", "oak", "--n", "2", "--lora", &adapter]);
    assert!(by_folder == draw(&["--class", "oak", "--n", "2", "--lora", &lora]));
    project
        .pipe(&["sample", &lora, "--device", "cpu", "--steps", "2", "--class", "fir"])
        .exits(2)
        .says("classes: the model has no class `fir`; it has oak, pine, palm");
    std::fs::remove_file(project.path(&format!("{LORA}/base_model.ckpt"))).unwrap();
    project.pipe(&["sample", &lora, "--device", "cpu"]).exits(1).says("base_model.ckpt");
}

#[test]
fn pictures_are_drawn_while_training() {
    let project = Project::with("device: cpu", "device: cpu\n    sample_every_n_epochs: 2");
    project
        .pipe(&["run", "p.yaml", "--epochs", "4"])
        .succeeds()
        .says("Sampled checkpoints/base_training/run_001/samples/epoch_002.png");
    let run = "checkpoints/base_training/run_001";
    assert_eq!(project.list(&format!("{run}/samples")), ["epoch_002.png", "epoch_004.png"]);
}

#[test]
fn an_interrupted_picture_is_drawn_anew() {
    let project = chain();
    project.write("p.yaml", CHAIN.replace("n: 4, steps: 2", "n: 400, steps: 300"));
    let mut child = project.start(&["run", "p.yaml"]);
    let began = Instant::now();
    while !project.path(&format!("{LORA}/adapter/adapter_config.json")).exists() {
        assert!(began.elapsed() < Duration::from_secs(120), "the chain did not reach the pictures");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(300));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(project.list("samples"), [""; 0]);
    project.write("p.yaml", CHAIN);
    project.pipe(&["run", "p.yaml"]).succeeds();
    assert_eq!(project.list("samples"), ["base.png", "lora.png"]);
}

//! Adapters and base models that belong together, those that do not, and files that are not whole.

use safetensors::tensor::{SafeTensors, TensorView};
use serde_json::{Value, json};

use crate::chain::{BASE, CHAIN, LORA, chain};
use crate::project::{Ended, Project, root};

const DRAW: [&str; 6] = ["--n", "2", "--steps", "2", "--device", "cpu"];

fn adapter() -> String {
    format!("{LORA}/adapter")
}

fn draw(project: &Project, model: &str, lora: &str) -> Ended {
    project.pipe(&[&["sample", model, "--lora", lora], &DRAW[..]].concat())
}

/// The chain trained, and the adapter's files changed.
fn with_adapter(change: impl Fn(&mut Vec<(String, Vec<usize>, Vec<u8>)>, &mut Value)) -> Project {
    let project = chain();
    project.pipe(&["run", "p.yaml", "-q"]).succeeds();
    let path = project.path(&format!("{}/adapter_model.safetensors", adapter()));
    let bytes = std::fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.tensors().into_iter();
    let mut tensors =
        tensors.map(|(name, t)| (name, t.shape().to_vec(), t.data().to_vec())).collect();
    let config = format!("{}/adapter_config.json", adapter());
    let mut settings: Value = serde_json::from_str(&project.read(&config)).unwrap();
    change(&mut tensors, &mut settings);
    let views: Vec<_> = tensors
        .iter()
        .map(|(name, shape, data)| {
            (name, TensorView::new(safetensors::Dtype::F32, shape.clone(), data).unwrap())
        })
        .collect();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    std::fs::write(path, safetensors::serialize(views, metadata.metadata().clone()).unwrap())
        .unwrap();
    project.write(&config, settings.to_string());
    project
}

#[test]
fn an_adapter_on_another_base_is_told_and_on_its_own_weights_in_another_file_is_not() {
    let project = chain();
    project.pipe(&["run", "p.yaml", "-q"]).succeeds();
    project.pipe(&["ckpt", "export", BASE, "--weights-only", "-o", "weights.ckpt"]).succeeds();
    let other = "checkpoints/base_training/run_001/checkpoints/epoch_001.ckpt";
    let checkpoint = format!("{LORA}/checkpoints/best.ckpt");
    for lora in [adapter(), checkpoint] {
        for own in [BASE, "weights.ckpt"] {
            let drawn = draw(&project, own, &lora).succeeds();
            assert!(!drawn.stderr().contains("is not the base"), "{}", drawn.stderr());
        }
        draw(&project, other, &lora)
            .succeeds()
            .says("is not the base model that the adapter was trained on");
        let merge =
            ["ckpt", "export", other, "--merge", "--lora", &lora, "-o", "m.ckpt", "--overwrite"];
        project.pipe(&merge).succeeds().says("is not the base model");
    }
}

#[test]
fn lora_weights_of_another_base_are_not_gone_on_with() {
    let project = chain();
    project.pipe(&["run", "p.yaml", "-q"]).succeeds();
    let resume =
        format!("lora.checkpoint={{resume_checkpoint: {LORA}/checkpoints/epoch_001.ckpt}}");
    let again = ["run", "p.yaml", "--set", "base.seed=5", "--set", &resume];
    project.pipe(&again).exits(2).says("was trained on another base model");
    // A whole model is no beginning for an adapter, and an adapter none for a whole model.
    let whole = format!("lora.checkpoint={{resume_checkpoint: {BASE}}}");
    project
        .pipe(&["run", "p.yaml", "--set", &whole])
        .exits(2)
        .says("is a whole model, not LoRA weights");
    let factors = format!("base.checkpoint={{resume_checkpoint: {LORA}/checkpoints/best.ckpt}}");
    project.pipe(&["run", "p.yaml", "--set", &factors]).exits(2).says("pipe ckpt export --merge");
}

#[test]
fn an_adapter_without_all_its_tensors_is_refused_whichever_is_missing() {
    // One factor, both factors of a projection, the label table.
    for part in ["middle.0.block.attn.proj.lora_A", "middle.0.block.fc1", "time.label"] {
        let project = with_adapter(|tensors, _| {
            let before = tensors.len();
            tensors.retain(|(name, ..)| !name.contains(part));
            assert!(tensors.len() < before, "{part}");
        });
        draw(&project, BASE, &adapter()).exits(1).says(part).says("is missing");
        assert!(!project.path("samples.png").exists());
    }
}

#[test]
fn numbers_that_are_not_finite_are_refused() {
    for number in [f32::NAN, f32::INFINITY] {
        let project =
            with_adapter(|tensors, _| tensors[0].2[..4].copy_from_slice(&number.to_le_bytes()));
        draw(&project, BASE, &adapter()).exits(1).says("holds numbers that are not finite");
    }
}

#[test]
fn an_adapter_that_changed_its_base_at_the_start_is_refused_with_what_to_do() {
    let project = with_adapter(|_, config| config["init_lora_weights"] = json!("pissa"));
    draw(&project, BASE, &adapter())
        .exits(1)
        .says("init_lora_weights pissa")
        .says("path_initial_model_for_weight_conversion");
}

#[test]
fn a_merged_model_starts_a_training_with_a_running_mean() {
    let project = chain();
    project.pipe(&["run", "p.yaml", "-q"]).succeeds();
    let merge = ["ckpt", "export", BASE, "--merge", "--lora", &adapter(), "-o", "merged.ckpt"];
    project.pipe(&merge).succeeds();
    let one = CHAIN.split("  lora_picture:").next().unwrap();
    let one = one.split("  best:").next().unwrap().replace(
        "source: shapes, classes: [circle, square]",
        "source: trees, classes: [oak, pine, palm]",
    );
    let start = "device: cpu\n    checkpoint: { resume_checkpoint: merged.ckpt }";
    project.write(
        "q.yaml",
        one.replace("device: cpu", start)
            .replace("epochs: 2", "epochs: 9")
            .replace("chain", "more"),
    );
    project.pipe(&["run", "q.yaml"]).succeeds();
}

#[test]
fn an_imported_model_starts_a_training_with_a_running_mean() {
    let project = Project::new();
    let file = root().join("tests/data/lightning.ckpt").display().to_string();
    let import = [
        "ckpt",
        "import",
        &file,
        "-o",
        "in.ckpt",
        "--image-size",
        "8",
        "--classes",
        "circle,square",
    ];
    project.pipe(&import).succeeds();
    let pipeline = project.read("p.yaml").replace("mults: [1, 2]", "mults: [1, 1]");
    project.write(
        "p.yaml",
        pipeline
            .replace("device: cpu", "device: cpu\n    checkpoint: { resume_checkpoint: in.ckpt }"),
    );
    let run = project.pipe(&["run", "p.yaml"]).succeeds();
    assert!(!run.stderr().contains("label by label"), "{}", run.stderr());
    // The same number of classes under other names is probably not meant.
    let other = ["run", "p.yaml", "--set", "data.classes=[triangle, square]"];
    project.pipe(&other).succeeds().says("was trained on the classes circle, square");
}

#[test]
fn names_of_classes_that_do_not_fit_the_labels_are_refused() {
    let project = Project::new();
    let file = root().join("tests/data/lightning.ckpt").display().to_string();
    for (names, why) in [
        ("a,b,c", "3 are named, and the model has 2"),
        ("a", "1 are named, and the model has 2"),
        ("a,a", "`a` is named twice"),
        ("a,", "one of the names is empty"),
    ] {
        let import =
            ["ckpt", "import", &file, "-o", "in.ckpt", "--image-size", "8", "--classes", names];
        project.pipe(&import).exits(1).says(why);
        assert!(!project.path("in.ckpt").exists());
    }
}

#[test]
fn ranks_are_named_as_targets_are() {
    let project = chain();
    let ranks = |of: &str| format!("lora.lora.rank_pattern={{{of}}}");
    project
        .pipe(&["run", "p.yaml", "-q", "--set", &ranks("qkv: 4, middle.0.block.attn.qkv_s: 1")])
        .succeeds();
    let config: Value =
        serde_json::from_str(&project.read(&format!("{}/adapter_config.json", adapter()))).unwrap();
    let found = &config["rank_pattern"];
    assert_eq!(found["decoder.0.0.block.attn.qkv_t"], 4, "{found}");
    assert_eq!(found["middle.0.block.attn.qkv_s"], 1, "the longest name wins: {found}");
    assert_eq!(found.get("decoder.0.0.block.attn.proj"), None, "{found}");
    project.pipe(&["check", "p.yaml"]).succeeds();
    project.write("p.yaml", CHAIN.replace("\"middle.*\": 3", "fc2: 3"));
    project
        .pipe(&["check", "p.yaml"])
        .exits(2)
        .says("lora.rank_pattern")
        .says("`fc2` matches no projection");
}

#[test]
fn the_best_of_a_sweep_over_lora_is_drawn_from_and_is_no_base() {
    let project = Project::new();
    let sweep = CHAIN
        .replace("    lora: {", "    matrix: { seed: [0, 1] }\n    lora: {")
        .replace("from: lora,", "from: chosen,")
        .replace("  lora_picture:", "  chosen: { kind: select_best, over: lora }\n  lora_picture:");
    project.write("p.yaml", &sweep);
    project.pipe(&["run", "p.yaml"]).succeeds().says("Selected");
    assert!(project.path("samples/lora.png").exists());
    let more = "  more: { kind: lora, base: chosen, dataset: trees, epochs: 1, device: cpu }\n";
    project.write("q.yaml", format!("{sweep}{more}"));
    project
        .pipe(&["check", "q.yaml"])
        .exits(2)
        .says("makes LoRA weights")
        .says("{kind: copy_best, from: chosen, merge: true, to: …}");
    // A copy takes its base along, and is drawn from where it stands.
    let copied = "  copied: { kind: copy_best, from: chosen, to: c.ckpt }\n";
    project.write("p.yaml", format!("{sweep}{copied}"));
    project.pipe(&["run", "p.yaml", "-q"]).succeeds();
    std::fs::remove_dir_all(project.path("checkpoints")).unwrap();
    project.pipe(&["sample", "c.ckpt", "--n", "3", "--device", "cpu", "-o", "c.png"]).succeeds();
}

//! LoRA beside convolutions: trained, merged, out to PEFT and in from there.

use std::path::Path;
use std::process::Command;

use crate::project::{Project, all_tensors, furthest, weights};

const BASE: &str = "checkpoints/base_training/run_001/checkpoints/best.ckpt";
const LORA: &str = "checkpoints/lora/run_001";

/// A base of an architecture, and LoRA on it, for the same images.
fn pipeline(model: &str, lora: &str) -> Project {
    let project = Project::new();
    let text = "\
name: convolutions
stages:
  data: { kind: dataset, source: shapes, classes: [circle, square], image_size: 8, num_images: 32 }
  base: { kind: train, dataset: data, epochs: 1, batch_size: 16, model: MODEL, device: cpu }
  lora: { kind: lora, base: base, dataset: data, epochs: 2, batch_size: 16, device: cpu, lora: LORA }
";
    project.write("p.yaml", text.replace("MODEL", model).replace("LORA", lora));
    project
}

const UNET: &str = "{ arch: unet, dim: 32, mults: [1, 2], depth: 1, attention: [4] }";
const DIFFIT: &str = "{ dim: 16, mults: [1, 2], depths: [1, 1], heads: 2, window: 4 }";

fn merge(project: &Project, base: &str, adapter: &str, out: &str) {
    project.pipe(&["ckpt", "export", base, "--merge", "--lora", adapter, "-o", out]).succeeds();
}

#[test]
fn an_interrupted_training_of_factors_ends_in_the_same_bits_and_merges_alike() {
    let lora = "{ r: 2, target_modules: [conv1, conv2, qkv], lora_dropout: 0.1 }";
    let [whole, extended] = [(); 2].map(|()| pipeline(UNET, lora));
    whole.pipe(&["run", "p.yaml"]).succeeds();
    extended.pipe(&["run", "p.yaml", "--set", "lora.epochs=1"]).succeeds();
    extended.pipe(&["run", "p.yaml"]).succeeds().says("Resumed from epoch 1");
    let last = format!("{LORA}/checkpoints/last.ckpt");
    let tensors = all_tensors(&whole.path(&last));
    assert!(tensors == all_tensors(&extended.path(&last)));
    assert!(tensors.iter().any(|(name, _)| name.ends_with("middle.conv1.lora_A.weight")));
    // Its folder in PEFT's format is the same model.
    let base = format!("{LORA}/base_model.ckpt");
    merge(&whole, &base, &format!("{LORA}/adapter"), "a.ckpt");
    merge(&whole, &base, &format!("{LORA}/checkpoints/best.ckpt"), "b.ckpt");
    assert!(weights(&whole.path("a.ckpt")) == weights(&whole.path("b.ckpt")));
}

#[test]
fn peft_reads_factors_of_convolutions_and_its_own_are_read() {
    let Ok(python) = std::env::var("PIPE_TEST_PYTHON") else {
        eprintln!("skipped: PIPE_TEST_PYTHON is not set");
        return;
    };
    let has_peft =
        Command::new(&python).args(["-c", "import peft"]).output().unwrap().status.success();
    if !has_peft {
        eprintln!("skipped: {python} has no peft");
        return;
    }
    let cases = [
        (UNET, "[conv1, conv2, stem, head, qkv]", "conv1,conv2", 16),
        (DIFFIT, "[tokenizer, conv, down.0, up.0, merge.0, proj]", "conv,down.0", 6),
    ];
    for (model, targets, names, adapted) in cases {
        let project =
            pipeline(model, &format!("{{ r: 2, lora_alpha: 4, target_modules: {targets} }}"));
        project.pipe(&["run", "p.yaml"]).succeeds();
        let best = format!("{LORA}/checkpoints/best.ckpt");
        project.pipe(&["ckpt", "export", &best, "--merge", "-o", "merged.ckpt"]).succeeds();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pipe/read_conv_adapter.py");
        std::fs::create_dir(project.path("peft")).unwrap();
        let output = Command::new(&python)
            .arg(script)
            .args([project.path(LORA), project.path("merged.ckpt")])
            .arg(names)
            .arg(project.path("peft"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
        let found: serde_json::Value =
            serde_json::from_str(text.trim().lines().last().unwrap()).unwrap();
        assert_eq!(found["adapted"], adapted, "{found}");
        assert!(found["difference"].as_f64().unwrap() < 1e-5, "{found}");
        assert!(found["beside"].as_f64().unwrap() < 1e-4, "{found}");

        // The other way. PEFT's file has the matrices and kernels alone.
        merge(&project, BASE, "peft/adapter", "ours.ckpt");
        let bytes = std::fs::read(project.path("peft/merged.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let mut theirs: Vec<_> = file
            .tensors()
            .into_iter()
            .map(|(name, t)| (format!("state_dict.{name}"), t.shape().to_vec(), t.data().to_vec()))
            .collect();
        theirs.sort();
        let mut ours = weights(&project.path("ours.ckpt"));
        ours.retain(|(name, ..)| theirs.iter().any(|(other, ..)| other == name));
        assert!(furthest(&ours, &theirs) < 1e-5);
    }
}

//! Another architecture than the default one through the same program: trained, fine-tuned,
//! sampled, exported.

use serde_json::{Value, json};

use crate::chain::{BASE, LORA, chain};
use crate::project::Project;

const UNET: &str = "\
name: unet
stages:
  data: { kind: dataset, source: shapes, classes: [circle, square], image_size: 8, num_images: 32 }
  base:
    kind: train
    dataset: data
    epochs: 2
    batch_size: 16
    model: { arch: unet, dim: 32, mults: [1, 2], depth: 1, attention: [4] }
    device: cpu
  best: { kind: copy_best, from: base, to: checkpoints/base/base_model_last.ckpt }
  trees: { kind: dataset, source: trees, classes: [oak, pine, palm], image_size: 8, num_images: 48 }
  lora:
    kind: lora
    base: best
    dataset: trees
    epochs: 2
    batch_size: 16
    device: cpu
    lora: { r: 2, lora_alpha: 4, target_modules: [qkv, proj, affine], lora_dropout: 0.1 }
  picture: { kind: sample, from: lora, to: samples/lora.png, n: 6, steps: 2, guidance: 2, device: cpu }
";

fn probe(project: &Project, file: &str) -> Vec<f64> {
    let text = project.pipe(&["ckpt", "probe", file]).succeeds().stdout();
    let probe: Value = serde_json::from_str(&text).unwrap();
    let first = probe["first"].as_array().unwrap().iter();
    first.chain([&probe["mean"], &probe["std"]]).map(|v| v.as_f64().unwrap()).collect()
}

#[test]
fn a_unet_is_trained_fine_tuned_sampled_and_merged() {
    let project = Project::new();
    project.write("p.yaml", UNET);
    project.pipe(&["run", "p.yaml"]).succeeds().says("label table is trained in full");
    assert_eq!(project.list("samples"), ["lora.png"]);
    project.pipe(&["run", "p.yaml"]).succeeds().says("everything is up to date");
    project.pipe(&["ckpt", "verify", BASE, &format!("{LORA}/base_model.ckpt")]).succeeds();

    let shown = project.pipe(&["ckpt", "show", BASE, "--json"]).succeeds().stdout();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let expected = json!({
        "arch": "unet", "dim": 32, "mults": [1, 2], "depth": 1, "attention": [4],
        "image_size": 8, "channels": 3, "num_classes": 2,
    });
    assert_eq!(shown["model_config"], expected);

    let best = format!("{LORA}/checkpoints/best.ckpt");
    project.pipe(&["ckpt", "export", &best, "--merge", "-o", "merged.ckpt"]).succeeds();
    for (adapted, merged) in probe(&project, &best).iter().zip(probe(&project, "merged.ckpt")) {
        assert!((adapted - merged).abs() <= 1e-4 * adapted.abs().max(1e-2), "{adapted} {merged}");
    }
    let base = probe(&project, BASE);
    assert_ne!(probe(&project, "merged.ckpt"), base, "the factors changed something");

    // It goes on where it was.
    project.pipe(&["run", "p.yaml", "base", "--set", "base.epochs=3"]).succeeds();
    assert_ne!(probe(&project, "checkpoints/base_training/run_001/checkpoints/last.ckpt"), base);
}

#[test]
fn a_preset_or_a_key_of_another_architecture_is_refused() {
    let project = Project::new();
    project.write("p.yaml", UNET);
    let refused = |set: &str| project.pipe(&["run", "p.yaml", "--set", set]).exits(2);
    refused("base.model.preset=diffit_small").says("is a preset of `arch: diffit`");
    refused("base.model.heads=2").says("`arch: unet` has no such setting");
    refused("base.model.dim=48").says("`dim` 48 is not a multiple of 32");
    refused("base.model.arch=vit").says("vit");
}

#[test]
fn the_default_architecture_by_its_name_is_the_same_experiment() {
    let project = chain();
    project.pipe(&["run", "p.yaml", "base"]).succeeds();
    let named = ["run", "p.yaml", "base", "--set", "base.model.arch=diffit"];
    project.pipe(&named).succeeds().says("everything is up to date");
}

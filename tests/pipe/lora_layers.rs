//! The layers that LoRA puts factors beside, as `pipe lora layers` lists them.

use serde_json::Value;

use crate::chain::{BASE, LORA, chain};
use crate::project::Project;

fn layers(project: &Project, arguments: &[&str]) -> Value {
    let ended = project.pipe(&[&["lora", "layers", "--json"], arguments].concat()).succeeds();
    serde_json::from_str(&ended.stdout()).unwrap()
}

fn names(listed: &Value) -> Vec<&str> {
    listed["layers"].as_array().unwrap().iter().map(|l| l["name"].as_str().unwrap()).collect()
}

#[test]
fn what_is_listed_is_what_is_trained_whichever_file_is_asked() {
    let project = chain();
    let ended = project.pipe(&["run", "p.yaml"]).succeeds();
    let said = ended.stdout() + &ended.stderr();
    let run = layers(&project, &[LORA]);
    let adapter = layers(&project, &[&format!("{LORA}/adapter")]);
    let checkpoint = layers(&project, &[&format!("{LORA}/checkpoints/last.ckpt")]);
    assert_eq!(run, adapter);
    assert_eq!(run, checkpoint);
    // What the training said of itself.
    let (trainable, all) =
        (run["trainable"].as_u64().unwrap(), run["parameters"].as_u64().unwrap());
    let told = format!("{trainable} trainable ({:.2}%)", 100.0 * trainable as f64 / all as f64);
    assert!(said.contains(&told), "{told}:\n{said}");
    assert!(said.contains(&format!("{all} parameters")), "{all}:\n{said}");
    assert_eq!(run["trained_in_full"]["time.label.weight"], 4 * 64);
    // The settings of the chain: qkv, proj and fc1 of rank 2, and 3 in the middle.
    for layer in run["layers"].as_array().unwrap() {
        let name = layer["name"].as_str().unwrap();
        let rank = if name.starts_with("middle.") { 3 } else { 2 };
        assert_eq!(layer["rank"], rank, "{name}");
        let shape: Vec<u64> =
            layer["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
        assert_eq!(layer["parameters"], rank * (shape[0] + shape[1..].iter().product::<u64>()));
        assert_eq!(layer["type"], if shape.len() == 2 { "linear" } else { "conv2d" });
    }
    // The base before anything was trained, with the same settings.
    let base = layers(&project, &[BASE, "--target-modules", "qkv,proj,fc1", "--r", "2"]);
    assert_eq!(names(&base), names(&run));
    let run_folder = layers(&project, &["checkpoints/base_training/run_001"]);
    assert!(names(&run_folder).len() > names(&run).len(), "all that LoRA can wrap");
    project
        .pipe(&["lora", "layers", LORA, "--target-modules", "qkv"])
        .exits(2)
        .says("its layers are chosen already");
}

#[test]
fn each_name_that_is_listed_is_one_that_target_modules_takes() {
    let project = Project::new();
    for preset in ["diffit_tiny", "unet_tiny"] {
        let all = layers(&project, &["--preset", preset]);
        let listed = names(&all);
        assert!(listed.len() > 10, "{preset}: {listed:?}");
        for name in [listed[0], listed[listed.len() / 2], listed[listed.len() - 1]] {
            let one = layers(&project, &["--preset", preset, "--target-modules", name]);
            assert_eq!(names(&one), [name]);
        }
    }
    let table = project.pipe(&["lora", "layers", "--preset", "unet_tiny", "--r", "4"]).succeeds();
    let table = table.stdout();
    assert!(table.starts_with("Layer"), "{table}");
    let last = table.lines().last().unwrap();
    assert!(last.contains(" layers, ") && last.ends_with("%)"), "{last}");
    project
        .pipe(&["lora", "layers", "--preset", "unet_tiny", "--target-modules", "qvk"])
        .exits(2)
        .says("`qvk` matches no projection; there are: ");
    project.pipe(&["lora", "layers", "--preset", "big"]).exits(2).says("expected diffit_tiny");
    project.pipe(&["lora", "layers"]).exits(2);
    project.pipe(&["lora", "layers", "nowhere.ckpt"]).exits(2).says("nowhere.ckpt");
}

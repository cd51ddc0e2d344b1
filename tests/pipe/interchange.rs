//! Files from and for other programs: PyTorch and Lightning checkpoints in, PEFT adapters out.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::chain::{LORA, chain};
use crate::project::{Project, all_tensors, root};

fn data(name: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    path.display().to_string()
}

/// tests/make_torch_files.py printed this for the model in lightning.ckpt.
const EXPECTED: &str = r#"{"mean": -0.027509452775120735, "std": 0.31986305117607117, "first": [0.04541560634970665,
    0.20075082778930664, 0.30511075258255005, 0.4091942310333252, 0.47346895933151245, 0.45536401867866516,
    0.3884522020816803, 0.28479355573654175]}"#;

#[test]
fn a_lightning_checkpoint_is_imported_and_computes_the_same() {
    let project = Project::new();
    let file = data("lightning.ckpt");
    let import = [
        "ckpt",
        "import",
        &file,
        "-o",
        "in.ckpt",
        "--image-size",
        "8",
        "--classes",
        "round,square",
    ];
    project.pipe(&import).succeeds();
    project.pipe(&import).exits(2).says("--overwrite");
    let text = project.pipe(&["ckpt", "probe", "in.ckpt"]).succeeds().stdout();
    let found: serde_json::Value = serde_json::from_str(&text).unwrap();
    let expected: serde_json::Value = serde_json::from_str(EXPECTED).unwrap();
    let numbers = |probe: &serde_json::Value| -> Vec<f64> {
        let first =
            probe["first"].as_array().unwrap().iter().chain([&probe["mean"], &probe["std"]]);
        first.map(|v| v.as_f64().unwrap()).collect()
    };
    for (found, expected) in numbers(&found).iter().zip(numbers(&expected)) {
        assert!((found - expected).abs() <= 1e-4 * expected.abs(), "{found} is not {expected}");
    }
    // What was imported is a model like any other.
    project
        .pipe(&[
            "sample", "in.ckpt", "--n", "2", "--steps", "2", "--class", "round", "--device", "cpu",
        ])
        .succeeds();
}

#[test]
fn a_foreign_file_is_refused_with_what_is_missing_and_what_is_unexpected() {
    let project = Project::new();
    let import = |file: &str, size: &str| {
        project.pipe(&["ckpt", "import", file, "-o", "in.ckpt", "--image-size", size])
    };
    import(&data("foreign.pt"), "8")
        .exits(1)
        .says("holds another architecture: missing head.weight; unexpected extra;");
    import(&data("lightning.ckpt"), "9").exits(1).says("`image_size` 9 cannot be halved");
    project.write("not.pt", "no checkpoint at all");
    import("not.pt", "8")
        .exits(1)
        .says("not.pt: it is neither a file of PyTorch nor a safetensors file");
    import("gone.pt", "8").exits(1).says("gone.pt: there is no such file");
    import(".", "8").exits(1).says(".: it is a folder");
    assert!(!project.path("in.ckpt").exists());
}

#[test]
fn a_safetensors_file_is_imported_with_and_without_a_mapping() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml"]).succeeds();
    project.pipe(&["ckpt", "export", "1", "--hub", "hub"]).succeeds();
    let best = "checkpoints/base_training/run_001/checkpoints/best.ckpt";
    let side = |file: &str, prefix: &str| -> Vec<(String, Vec<u8>)> {
        let all = all_tensors(&project.path(file)).into_iter();
        all.filter_map(|(name, v)| Some((name.strip_prefix(prefix)?.to_owned(), v))).collect()
    };
    let wanted = side(best, "ema_state_dict.");
    assert!(wanted.len() > 20, "{}", wanted.len());
    let import = |file: &str, more: &[&str]| {
        let line = ["ckpt", "import", file, "-o", "in.ckpt", "--image-size", "8", "--overwrite"];
        project.pipe(&[&line[..], more].concat())
    };
    import("hub/model.safetensors", &["--classes", "circle,square"]).succeeds();
    assert!(side("in.ckpt", "state_dict.") == wanted, "each bit of it");
    project.pipe(&["sample", "in.ckpt", "--n", "2", "--steps", "2", "--device", "cpu"]).succeeds();
    // All of its names are another program's.
    let bytes = std::fs::read(project.path("hub/model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let theirs = file.tensors().into_iter().map(|(name, view)| (format!("net.{name}"), view));
    let renamed = safetensors::serialize(theirs, None).unwrap();
    project.write("theirs.safetensors", renamed);
    project.write("map.yaml", "weights: { '{x*}': 'net.state_dict.{x*}' }\n");
    import("theirs.safetensors", &["--map", "map.yaml"]).succeeds();
    assert!(side("in.ckpt", "state_dict.") == wanted, "each bit of it");
    // One that is cut off is no file.
    project.write("cut.safetensors", &bytes[..bytes.len() - 1]);
    import("cut.safetensors", &[]).exits(1).says("failed to read cut.safetensors");
}

#[test]
fn code_in_a_pickle_is_never_executed() {
    let project = Project::new();
    // hostile.pt runs `touch PWNED` when Python unpickles it.
    project
        .pipe(&["ckpt", "import", &data("hostile.pt"), "-o", "in.ckpt", "--image-size", "8"])
        .exits(1);
    assert!(!project.path("PWNED").exists() && !project.path("in.ckpt").exists());
}

#[test]
fn peft_reads_the_adapter_and_folds_it_in_alike() {
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
    let project = chain();
    project.pipe(&["run", "p.yaml"]).succeeds();
    let best = format!("{LORA}/checkpoints/best.ckpt");
    project.pipe(&["ckpt", "export", &best, "--merge", "-o", "merged.ckpt"]).succeeds();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pipe/read_adapter.py");
    let output = Command::new(python)
        .arg(script)
        .args([project.path(LORA), project.path("merged.ckpt"), root().join("docs/python.md")])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let found: serde_json::Value =
        serde_json::from_str(text.trim().lines().last().unwrap()).unwrap();
    // Four projections (qkv_s, qkv_t, proj, fc1) in each of three blocks, and fc1 of the time
    // token.
    assert_eq!(found["adapted"], 13, "{found}");
    assert!(found["difference"].as_f64().unwrap() < 1e-5, "{found}");
}

/// Names of the model in lightning.ckpt, by which it is found without a mapping too.
const SAME_NAMES: &str = "weights: { '{x*}': 'model.{x*}' }\n";

#[test]
fn a_mapping_names_the_tensors_of_a_file_and_brings_its_position() {
    let project = Project::new();
    project.write("map.yaml", SAME_NAMES);
    let import = |more: &[&str], to: &str| {
        let file = data("lightning.ckpt");
        let all = ["ckpt", "import", &file, "-o", to, "--image-size", "8"];
        project.pipe(&[&all[..], more].concat())
    };
    import(&[], "plain.ckpt").succeeds();
    import(&["--map", "map.yaml"], "mapped.ckpt")
        .succeeds()
        .says("taken over: weights; epoch 3, step 40");
    let probe = |file: &str| project.pipe(&["ckpt", "probe", file]).succeeds().stdout();
    assert_eq!(probe("plain.ckpt"), probe("mapped.ckpt"));
    let header = project.pipe(&["ckpt", "show", "mapped.ckpt", "--json"]).succeeds().stdout();
    let header: serde_json::Value = serde_json::from_str(&header).unwrap();
    assert_eq!((&header["epoch"], &header["global_step"]), (&3.into(), &40.into()));
}

#[test]
fn all_that_a_mapping_leaves_open_is_told_at_once() {
    let project = Project::new();
    let refused = |mapping: &str, file: &str| {
        project.write("map.yaml", mapping);
        let import =
            ["ckpt", "import", file, "--map", "map.yaml", "-o", "in.ckpt", "--image-size", "8"];
        let ended = project.pipe(&import).exits(1);
        assert!(!project.path("in.ckpt").exists());
        ended
    };
    let file = data("lightning.ckpt");
    refused("weights: { 'head.{x}': 'model.head.{x}' }\n", &file)
        .says("unexpected: model.time.fc1.weight")
        .says("unexpected: model.tokenizer.bias");
    refused("weights: { 'tail.{x}': 'model.head.{x}', '{x*}': 'model.{x*}' }\n", &file)
        .says("missing: head.weight")
        .says("missing: head.bias")
        .says("unexpected: tail.bias");
    let joined =
        "weights: { head.bias: [model.head.bias, model.head_norm.bias], '{x*}': 'model.{x*}' }\n";
    refused(joined, &file)
        .says("missing: head_norm.bias")
        .says("of another shape: head.bias [19] instead of [3]");
    refused("wieghts: {}\n", &file).says("map.yaml").says("unknown field `wieghts`");
    refused("weights: {}\n", &file).says("`weights` is empty");
    refused(SAME_NAMES, &data("hostile.pt")).says("a zip file");
    assert!(!project.path("PWNED").exists());
    project.write("not.pt", "no checkpoint at all");
    refused(SAME_NAMES, "not.pt").says("not.pt");
}

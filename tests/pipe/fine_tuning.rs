//! `init`: a new training begins with the weights of a checkpoint, at epoch 0.

use crate::project::{Project, all_tensors, furthest, weights};
use crate::resume::{delays, in_pieces};

const BASE: &str = "checkpoints/base_training/run_001/checkpoints";
const TUNED: &str = "checkpoints/tuned/run_001";

/// No step changes anything at this rate: what a training ends with is what it began with.
const STILL: [&str; 2] = ["--set", "tuned.learning_rate=1e-30"];

/// A base, whose best is the first epoch, and a training that begins with it.
const PAIR: &str = "\
name: tiny
stages:
  tuned:
    kind: train
    init: base
    dataset: data
    epochs: 2
    batch_size: 16
    seed: 5
    model: { dim: 16, mults: [1], depths: [1], heads: 1, window: 8 }
    device: cpu
    checkpoint: { base_dir: checkpoints/tuned }
  base:
    kind: train
    dataset: data
    epochs: 2
    batch_size: 16
    model: { dim: 16, mults: [1], depths: [1], heads: 1, window: 8 }
    device: cpu
    checkpoint: { mode: max }
  data: { kind: dataset, source: shapes, classes: [circle, square], image_size: 8, num_images: 64 }
  trees: { kind: dataset, source: trees, classes: [oak, pine, palm], image_size: 8, num_images: 64 }
";

fn pair(edits: &[(&str, &str)]) -> Project {
    let project = Project::new();
    let mut text = PAIR.to_owned();
    for (from, to) in edits {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    project.write("p.yaml", text);
    project
}

type Tensors = Vec<(String, Vec<usize>, Vec<u8>)>;

/// The weights, or EMA weights, of a checkpoint under the names of weights.
fn under(project: &Project, file: &str, prefix: &str) -> Tensors {
    let bytes = std::fs::read(project.path(file)).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut found: Tensors = tensors
        .tensors()
        .into_iter()
        .filter_map(|(name, view)| {
            let name = format!("state_dict.{}", name.strip_prefix(prefix)?);
            Some((name, view.shape().to_vec(), view.data().to_vec()))
        })
        .collect();
    found.sort();
    assert!(!found.is_empty());
    found
}

fn step(project: &Project, file: &str) -> i64 {
    let all = all_tensors(&project.path(file));
    let (_, bytes) = all.iter().find(|(name, _)| name.ends_with("attn.proj.bias.step")).unwrap();
    i64::from_le_bytes(bytes.as_slice().try_into().unwrap())
}

#[test]
fn it_begins_with_the_weights_that_are_asked_for_at_epoch_0() {
    for (init, prefix, steps) in [
        ("base", "ema_state_dict.", 8),
        ("{ from: base, weights: raw }", "state_dict.", 8),
        ("{ from: base, weights: raw, optimizer: true }", "state_dict.", 12),
    ] {
        let project = pair(&[("init: base", &format!("init: {init}"))]);
        project.pipe(&["graph", "p.yaml"]).succeeds().says("tuned  train  <- base, data");
        let said = project.pipe(&[&["run", "p.yaml"], &STILL[..]].concat()).succeeds();
        let which = if prefix.starts_with("ema") { "EMA weights" } else { "weights" };
        said.says(&format!("Begins with the {which}")).says("Epoch 1/2");
        let last = format!("{TUNED}/checkpoints/last.ckpt");
        // The best is the one of the highest loss.
        let base = under(&project, &format!("{BASE}/best.ckpt"), prefix);
        assert!(weights(&project.path(&last)) == base, "{init}");
        let mean = under(&project, &last, "ema_state_dict.");
        assert!(furthest(&mean, &base) < 1e-6, "the average begins there, too: {init}");
        assert_eq!(step(&project, &last), steps, "{init}");
        let metadata = project.metadata(TUNED);
        assert_eq!(metadata["resumed_from"], format!("{BASE}/best.ckpt"));
        assert_eq!(metadata["history"].as_array().unwrap().len(), 2);
    }
}

#[test]
fn killed_at_random_it_ends_in_the_bytes_of_an_undisturbed_one() {
    let arguments = [
        "run",
        "p.yaml",
        "--set",
        "tuned.epochs=12",
        "--set",
        "num_images=256",
        "--set",
        "tuned.checkpoint.save_every_n_steps=3",
    ];
    let edits = [("init: base", "init: { from: base, weights: raw, optimizer: true }")];
    let [straight, pieces] = [(); 2].map(|()| pair(&edits));
    let began = std::time::Instant::now();
    straight.pipe(&arguments).succeeds();
    let whole = began.elapsed().as_millis() as u64;
    let kills = in_pieces(&pieces, &arguments, delays(whole / 12 + 20, whole / 4 + 60));
    assert!(kills > 0);
    let last =
        |project: &Project| all_tensors(&project.path(&format!("{TUNED}/checkpoints/last.ckpt")));
    assert!(last(&straight) == last(&pieces), "the tensors differ after {kills} kills");
    assert_eq!(pieces.list("checkpoints/tuned"), ["run_001"]);
}

#[test]
fn it_counts_by_the_content_of_the_checkpoint() {
    let project = pair(&[]);
    project.pipe(&["run", "p.yaml"]).succeeds();
    project.pipe(&["run", "p.yaml"]).succeeds().says("up to date: data, base, tuned");
    // Two epochs more bring no new best: what begins with it is fresh.
    let said = project.pipe(&["run", "p.yaml", "--set", "base.epochs=4"]).succeeds();
    said.says("Resumed from epoch 2").says("up to date, run 001");
    assert_eq!(project.list("checkpoints/tuned"), ["run_001"]);
    // Another best is another beginning.
    project.pipe(&["run", "p.yaml", "--set", "base.seed=7"]).succeeds().says("Begins with the EMA");
    assert_eq!(project.list("checkpoints/tuned"), ["run_001", "run_002"]);
    // So is another part of the same one.
    let raw = ["--set", "tuned.init={from: base, weights: raw}"];
    let plan = project.pipe(&[&["plan", "p.yaml"], &raw[..]].concat()).succeeds();
    plan.says("init weights ema -> raw");
    // By its number a run goes on with what it began with, whatever the file says by now.
    let text = project.read("p.yaml");
    project.write("p.yaml", text.replace("    init: base\n", ""));
    let mine = ["run", "p.yaml", "tuned", "--run-number", "1", "--resume", "--epochs", "3"];
    project.pipe(&mine).succeeds().says("tuned.init {").says("Resumed from epoch 2");
    assert_eq!(project.metadata(TUNED)["history"].as_array().unwrap().len(), 3);
}

#[test]
fn a_file_counts_by_its_content_and_not_by_its_name() {
    let file = format!("{BASE}/best.ckpt");
    let edits = [("init: base", "init: best.ckpt"), ("name: tiny", "name: tiny\nparams: { x: 1 }")];
    let project = pair(&edits);
    let text = project.read("p.yaml");
    project.write(
        "p.yaml",
        format!("{text}  best: {{ kind: copy_best, from: base, to: best.ckpt }}\n"),
    );
    project.pipe(&["graph", "p.yaml"]).succeeds().says("tuned  train  <- data, best");
    project.pipe(&["run", "p.yaml"]).succeeds().says("of best.ckpt (epoch ");
    let moved = format!("tuned.init={file}");
    let plan = project.pipe(&["plan", "p.yaml", "--set", &moved]).succeeds();
    plan.says("skip  up to date, run 001");
    assert_eq!(project.list("checkpoints/tuned"), ["run_001"]);
}

#[test]
fn another_number_of_classes_has_a_new_label_table_drawn_from_the_seed() {
    let other = pair(&[("init: base\n    dataset: data", "init: base\n    dataset: trees")]);
    let run = [&["run", "p.yaml"], &STILL[..]].concat();
    let said = other.pipe(&run).succeeds();
    said.says(
        "The label table is initialised anew, from the seed: 2 classes in the checkpoint, 3 here",
    );
    let plain = pair(&[("init: base\n    dataset: data", "dataset: trees")]);
    plain.pipe(&[&["run", "p.yaml", "tuned"], &STILL[..]].concat()).succeeds();
    let last = format!("{TUNED}/checkpoints/last.ckpt");
    let table = |all: &Tensors| all.iter().find(|(n, ..)| n.contains("label")).unwrap().clone();
    let (tuned, drawn) = (weights(&other.path(&last)), weights(&plain.path(&last)));
    assert_eq!(table(&tuned), table(&drawn), "as a new training with this seed draws it");
    let base = under(&other, &format!("{BASE}/best.ckpt"), "ema_state_dict.");
    let rest = |all: Tensors| -> Tensors {
        all.into_iter().filter(|(name, ..)| !name.contains("label")).collect()
    };
    assert!(rest(tuned) == rest(base), "all else is the checkpoint's");
    // A model without classes begins with the rest, too.
    let none = other.pipe(&[&run[..], &["--set", "tuned.model.class_conditional=false"]].concat());
    none.succeeds().says("The checkpoint's label table is left out");
}

#[test]
fn what_does_not_fit_is_an_error_before_anything_is_trained() {
    let refused = |edits: &[(&str, &str)], command: &str, says: &str| {
        let project = pair(edits);
        project.pipe(&[command, "p.yaml"]).exits(2).says(says);
        assert!(project.list("checkpoints").is_empty(), "nothing was trained");
    };
    let wide = [("seed: 5\n    model: { dim: 16", "seed: 5\n    model: { dim: 32")];
    refused(&wide, "check", "stages.tuned.init: `base` holds another model: dim 16 -> 32");
    let both = [("checkpoints/tuned }", "checkpoints/tuned, resume_checkpoint: a.ckpt }")];
    refused(&both, "check", "`checkpoint.resume_checkpoint` is set too");
    refused(&[("init: base", "init: ../a.ckpt")], "check", "a path inside the project");
    refused(&[("init: base", "init: a.ckpt")], "plan", "init: ");
    refused(
        &[("init: base", "init: { from: base, weight: raw }")],
        "check",
        "stages.tuned.init.weight: unknown key",
    );
    refused(&[("init: base", "init: { weights: raw }")], "check", "missing key `from`");
    let program =
        "base:\n    kind: trainer\n    run: [python, train.py]\n    epochs: 1\n  unused:\n";
    refused(&[("base:\n", program)], "check", "`base` trains with a program of its own");

    // Of a file only the run can tell, and it makes no folder.
    let project = pair(&[]);
    project.pipe(&["run", "p.yaml", "base"]).succeeds();
    let file = format!("tuned.init={BASE}/best.ckpt");
    let ended = project.pipe(&["run", "p.yaml", "--set", &file, "--set", "tuned.model.dim=32"]);
    ended.exits(2).says("holds another model: dim 16 -> 32").says("or leave `init` out");
    assert!(project.list("checkpoints/tuned").is_empty());
    let best = format!("{BASE}/best.ckpt");
    project.pipe(&["ckpt", "export", &best, "--weights-only", "-o", "w.ckpt"]).succeeds();
    let optimizer = "tuned.init={from: w.ckpt, weights: raw, optimizer: true}";
    let ended = project.pipe(&["run", "p.yaml", "--set", optimizer]).exits(2);
    ended.says("holds no optimizer's state; leave `optimizer: true` out");
    assert!(project.list("checkpoints/tuned").is_empty());
}

/// LoRA on the base, and a second one that begins with the first one's factors.
const FACTORS: &str = "
  first:
    kind: lora
    base: base
    dataset: data
    epochs: 2
    batch_size: 16
    device: cpu
    lora: { r: 2, target_modules: [qkv] }
    checkpoint: { base_dir: checkpoints/first }
  second:
    kind: lora
    base: base
    init: first
    dataset: data
    epochs: 1
    batch_size: 16
    device: cpu
    lora: { r: 2, target_modules: [qkv] }
    checkpoint: { base_dir: checkpoints/second }
";

#[test]
fn lora_begins_with_the_factors_of_another_one() {
    let project = pair(&[]);
    project.write("p.yaml", project.read("p.yaml") + FACTORS);
    let still = ["run", "p.yaml", "second", "--set", "second.learning_rate=1e-30"];
    project.pipe(&still).succeeds().says("Begins with the EMA weights");
    let file = |run: &str, name: &str| format!("checkpoints/{run}/run_001/checkpoints/{name}.ckpt");
    let first = under(&project, &file("first", "best"), "ema_state_dict.");
    assert!(weights(&project.path(&file("second", "last"))) == first);
    project.pipe(&still).succeeds().says("everything is up to date");

    let refused = |set: &str, says: &str| {
        let ended = project.pipe(&["run", "p.yaml", "second", "--set", set]).exits(2);
        ended.says(says);
        assert_eq!(project.list("checkpoints/second"), ["run_001"], "no run is made");
    };
    refused("second.lora.r=4", "was trained with other LoRA settings");
    refused("second.lora.target_modules=[proj]", "has no factors");
    refused("second.init=base", "`base` makes whole models, not LoRA weights");
    let ended = project.pipe(&["check", "p.yaml", "--set", "tuned.init=first"]).exits(2);
    ended.says("`first` makes LoRA weights, which are no model without their base");
    // Another base is told, and other classes begin their table as in a new training.
    let other = ["run", "p.yaml", "second", "--set", "second.dataset=trees"];
    let said = project.pipe(&other).succeeds();
    said.says(
        "initialised anew, as the base model's \"no class\": 2 classes in the checkpoint, 3 here",
    );
}

//! Which stage fits where: every stage kind as what a setting names, for every setting that names a
//! stage. What fits is run, and must do what its maker does.

use std::path::Path;
use std::sync::Arc;

use pipe_core::progress::NullListener;
use pipe_core::stop::Stop;
use pipe_engine::command::CommandKind;
use pipe_engine::exec::LocalExecutor;
use pipe_engine::figment::Figment;
use pipe_engine::kind::*;
use pipe_engine::schemars;
use pipe_engine::session::Session;
use pipe_models::architecture::Architectures;
use pipe_runs::Checkpoint;
use pipe_train::stages::RunFiles;
use pipe_train::stages::artifacts::{CHECKPOINT, Checkpoints, checkpoint_reference};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A kind of one's own that takes checkpoints and makes one: it hands on what another stage made.
struct MirrorKind;

#[derive(Serialize, Deserialize, schemars::JsonSchema)]
struct Mirror {
    of: String,
}

impl StageKind for MirrorKind {
    fn name(&self) -> &'static str {
        "mirror"
    }

    fn makes(&self) -> ArtifactType {
        CHECKPOINT
    }

    fn schema(&self) -> schemars::Schema {
        schemars::schema_for!(Mirror)
    }

    fn resolve(&self, settings: &Figment) -> Result<Arc<dyn Stage>, Rejection> {
        Ok(Arc::new(settings.extract::<Mirror>()?))
    }
}

impl Stage for Mirror {
    fn settings(&self) -> Value {
        serde_json::to_value(self).unwrap()
    }

    fn references(&self) -> Vec<Reference> {
        vec![checkpoint_reference("of", &self.of)]
    }

    fn inspect(&self, o: &InspectContext) -> Result<Inspection, StageError> {
        let file = o.inputs.get("of").and_then(Checkpoints::best_of);
        let artifact = file.map(|file| Checkpoints::File(file).artifact());
        Ok(Inspection::new(StageState::Transient, artifact))
    }

    fn run(&self, c: &RunContext) -> Result<Outcome, StageError> {
        let file = Checkpoints::best_of(&c.inputs["of"]).unwrap();
        let artifact = Some(Checkpoints::File(file).artifact());
        Ok(Outcome { artifact, summary: "mirrored".into(), next: None })
    }
}

/// Makers of every type, by the names of their stages.
const MAKERS: &str = "\
name: pairs
stages:
  data: { kind: dataset, source: shapes, classes: [circle, square], image_size: 8, num_images: 16, val_split: 0.25 }
  trees: { kind: dataset, source: trees, classes: [oak, pine], image_size: 8, num_images: 16, val_split: 0.25 }
  base:
    kind: train
    dataset: data
    epochs: 1
    batch_size: 8
    model: { dim: 16, mults: [1], depths: [1], heads: 2, window: 4 }
    device: cpu
  lora: { kind: lora, base: base, dataset: trees, epochs: 1, batch_size: 8, device: cpu, lora: { r: 2 } }
  copied: { kind: copy_best, from: base, to: out/base.ckpt }
  lora_copied: { kind: copy_best, from: lora, to: out/lora.ckpt }
  merged: { kind: copy_best, from: lora_copied, merge: true, to: out/merged.ckpt }
  chosen: { kind: select_best, over: [base, lora, copied, mirrored] }
  mirrored: { kind: mirror, of: lora_copied }
  grid: { kind: sample, from: base, n: 2, steps: 1, to: out/base.png, device: cpu }
  judged: { kind: evaluate, from: base, dataset: data, to: out/judged, metrics: [nearest], seeds: 0-1, steps: 1, device: cpu }
  notes: { kind: command, run: 'true' }
";

/// The settings that name a stage: what stands before and behind the name.
const READERS: [(&str, &str); 9] = [
    (
        "base.dataset",
        "{ kind: train, dataset: STAGE, epochs: 1, batch_size: 8, device: cpu, model: { dim: 16, mults: [1], depths: [1], heads: 2, window: 4 } }",
    ),
    (
        "lora.dataset",
        "{ kind: lora, base: base, dataset: STAGE, epochs: 1, batch_size: 8, device: cpu, lora: { r: 2 } }",
    ),
    (
        "lora.base",
        "{ kind: lora, base: STAGE, dataset: trees, epochs: 1, batch_size: 8, device: cpu, lora: { r: 2 }, checkpoint: { base_dir: reader } }",
    ),
    ("copy_best.from", "{ kind: copy_best, from: STAGE, to: out/reader.ckpt }"),
    ("select_best.over", "{ kind: select_best, over: STAGE }"),
    (
        "sample.from",
        "{ kind: sample, from: STAGE, n: 2, steps: 1, to: out/reader.png, device: cpu }",
    ),
    ("mirror.of", "{ kind: mirror, of: STAGE }"),
    (
        "evaluate.dataset",
        "{ kind: evaluate, from: base, dataset: STAGE, to: reader, metrics: [nearest], seeds: 0-1, steps: 1, device: cpu }",
    ),
    (
        "evaluate.from",
        "{ kind: evaluate, from: STAGE, dataset: data, to: reader, metrics: [nearest], seeds: 0-1, steps: 1, device: cpu }",
    ),
];

/// What becomes of each pair: `+` it works, `d` a data set is wanted, `c` a checkpoint is wanted,
/// `a` an adapter is no model to train from. In the order of [`READERS`].
const PAIRS: [(&str, &str); 12] = [
    ("data", "++ccccc+c"),
    ("trees", "++ccccc+c"),
    ("base", "dd+++++d+"),
    ("lora", "dda++++d+"),
    ("copied", "dd+++++d+"),
    ("lora_copied", "dda++++d+"),
    ("merged", "dd+++++d+"),
    // What it chooses is known when it has chosen.
    ("chosen", "dd+++++d+"),
    ("mirrored", "dd+++++d+"),
    ("grid", "ddcccccdc"),
    ("judged", "ddcccccdc"),
    ("notes", "ddcccccdc"),
];

fn kinds() -> Vec<Arc<dyn StageKind>> {
    let mut kinds = pipe_train::stages::kinds(&Architectures::builtin());
    kinds.push(Arc::new(CommandKind));
    kinds.push(Arc::new(MirrorKind));
    kinds
}

/// The session of a pipeline, or all that is wrong with it.
fn load(root: &Path, text: &str) -> Result<Session, String> {
    std::fs::write(root.join("p.yaml"), text).unwrap();
    let session = Session::load(root, Path::new("p.yaml"), &kinds(), &[]);
    session.map(|session| session.formats(&RunFiles)).map_err(|error| error.to_string())
}

/// Runs what is not up to date, and returns what was done: `base run`, and so on.
#[track_caller]
fn run(root: &Path, text: &str) -> Vec<String> {
    let session = load(root, text).unwrap_or_else(|e| panic!("{e}"));
    let stop = Stop::default();
    let execution = session.execution(&stop, &NullListener);
    let (plan, inspected) = session.plan(&execution).unwrap_or_else(|(id, e)| panic!("{id}: {e}"));
    let actions = plan.steps.iter().map(|step| format!("{} {}", step.stage, step.action)).collect();
    let summary = session.run(&LocalExecutor, &execution, &plan, inspected).unwrap();
    let failed: Vec<String> = summary.failed.iter().map(|failed| format!("{failed:?}")).collect();
    assert!(failed.is_empty(), "{failed:?}");
    actions
}

/// The pixels of an image grid without its title, which names the stage: all from the first colour
/// to the last one.
fn pixels(path: &Path) -> Vec<u8> {
    let image = image::open(path).unwrap().to_rgb8();
    let coloured = image.enumerate_pixels().filter(|(_, _, p)| p.0 != [p.0[0]; 3]);
    let places: Vec<(u32, u32)> = coloured.map(|(x, y, _)| (x, y)).collect();
    let bounds = |of: fn(&(u32, u32)) -> u32| {
        (places.iter().map(of).min().unwrap(), places.iter().map(of).max().unwrap() + 1)
    };
    let ((left, right), (top, bottom)) = (bounds(|(x, _)| *x), bounds(|(_, y)| *y));
    assert!(right - left > 100 && bottom - top > 100, "{} is no grid", path.display());
    image::imageops::crop_imm(&image, left, top, right - left, bottom - top).to_image().into_raw()
}

#[test]
fn every_pair_is_accepted_or_refused_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let mut wrong = Vec::new();
    for (maker, expected) in PAIRS {
        for ((reader, settings), expected) in READERS.iter().zip(expected.chars()) {
            let text = format!("{MAKERS}  reader: {}\n", settings.replace("STAGE", maker));
            let said = load(folder.path(), &text).err().unwrap_or_default();
            let expected = match expected {
                'd' => "expected one that makes a dataset\n",
                'c' => "expected one that makes a checkpoint\n",
                'a' => "makes LoRA weights, which are no model without their base\n",
                _ => "",
            };
            if said.is_empty() != expected.is_empty() || !said.contains(expected) {
                wrong.push(format!("{reader}: {maker}: {said}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_pair_that_is_accepted_works() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    run(root, MAKERS);
    for (maker, expected) in PAIRS {
        for ((reader, settings), expected) in READERS.iter().zip(expected.chars()) {
            if expected != '+'
                || (*reader == "lora.base" && ["chosen", "mirrored"].contains(&maker))
            {
                continue;
            }
            let text = format!("{MAKERS}  reader: {}\n", settings.replace("STAGE", maker));
            for left in ["reader", "out/reader.ckpt", "out/reader.base.ckpt", "out/reader.png"] {
                let left = root.join(left);
                let _ = std::fs::remove_dir_all(&left).or_else(|_| std::fs::remove_file(&left));
            }
            run(root, &text);
            let again = run(root, &text);
            // What keeps nothing would run for whoever needs it.
            let runs = |action: &&String| !action.ends_with(" skip") && *reader != "mirror.of";
            assert_eq!(again.iter().find(runs), None, "{reader}: {maker}: {again:?}");
        }
    }
}

#[test]
fn a_copy_of_lora_draws_what_lora_draws_wherever_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let draws = |name: &str| {
        format!(
            "  of_{name}: {{ kind: sample, from: {name}, n: 24, steps: 2, to: out/{name}.png, device: cpu }}\n"
        )
    };
    let further = "  twice: { kind: copy_best, from: lora_copied, to: further/away.ckpt }\n";
    let names = ["lora", "lora_copied", "mirrored", "twice", "merged"];
    let text = format!("{MAKERS}{further}{}", names.map(draws).concat());
    run(root, &text);
    let drawn = names.map(|name| pixels(&root.join(format!("out/{name}.png"))));
    let [lora, copied, mirrored, twice, merged] = &drawn;
    assert!(lora == copied && lora == mirrored && lora == twice);
    // Sums in another order.
    let near = lora.iter().zip(merged).all(|(one, other)| one.abs_diff(*other) <= 2);
    assert!(near && lora.len() == merged.len());
    let [base, whole] = ["out/lora.base.ckpt", "out/merged.ckpt"]
        .map(|name| Checkpoint::open(&root.join(name)).unwrap());
    let adapted: Vec<&str> = whole
        .tensors()
        .map(|tensor| tensor.name.as_str())
        // LoRA began with the EMA weights of its base.
        .filter(|name| name.starts_with("ema_state_dict."))
        .filter(|name| whole.read(name).unwrap().bytes != base.read(name).unwrap().bytes)
        .collect();
    assert!(adapted.iter().any(|name| name.contains("qkv")), "{adapted:?}");
    assert!(!adapted.iter().any(|name| name.contains("fc1")), "{adapted:?}");

    // The copies need nothing of the run.
    std::fs::remove_dir_all(root.join("checkpoints/lora")).unwrap();
    let device = burn::tensor::Device::flex();
    for name in ["out/lora.ckpt", "further/away.ckpt", "out/merged.ckpt"] {
        let file = root.join(name);
        let opened = pipe_train::checkpoint::load_for_sampling(
            &Architectures::builtin(),
            &file,
            None,
            true,
            &device,
        );
        assert_eq!(
            opened.map(|model| model.class_names).ok(),
            Some(vec!["oak".into(), "pine".into()]),
            "{name}"
        );
    }
    assert!(whole.header().extra.keys().all(|key| !key.contains("base") && key != "lora"));
}

#[test]
fn what_is_lost_of_a_copy_is_made_again_and_another_s_file_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    run(root, MAKERS);
    let files = ["out/lora.ckpt", "out/lora.base.ckpt", "out/merged.ckpt"];
    for name in files {
        let before = std::fs::read(root.join(name)).unwrap();
        std::fs::remove_file(root.join(name)).unwrap();
        run(root, MAKERS);
        assert!(std::fs::read(root.join(name)).unwrap() == before, "{name}");
    }
    // Without records, too: a file with the bits that would be written is the stage's own.
    let before = files.map(|name| std::fs::read(root.join(name)).unwrap());
    std::fs::remove_dir_all(root.join(".pipe")).unwrap();
    run(root, MAKERS);
    assert!(files.map(|name| std::fs::read(root.join(name)).unwrap()) == before);
    // Not one more file than these.
    let mut found: Vec<String> = std::fs::read_dir(root.join("out"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    assert_eq!(
        found,
        ["base.ckpt", "base.png", "judged", "lora.base.ckpt", "lora.ckpt", "merged.ckpt"]
    );
    for name in files {
        let other = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(other.path().join("out")).unwrap();
        std::fs::write(other.path().join(name), "mine").unwrap();
        let session = load(other.path(), MAKERS).unwrap();
        let stop = Stop::default();
        let execution = session.execution(&stop, &NullListener);
        let (plan, inspected) = session.plan(&execution).unwrap_or_else(|(_, e)| panic!("{e}"));
        let summary = session.run(&LocalExecutor, &execution, &plan, inspected).unwrap();
        assert!(!summary.failed.is_empty(), "{name}");
        assert_eq!(std::fs::read(other.path().join(name)).unwrap(), b"mine");
        assert!(!other.path().join("out/.merged.ckpt.merging").exists());
    }
}

#[test]
fn merge_set_later_makes_the_copy_again_and_takes_the_base_away() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    run(root, MAKERS);
    let copied = std::fs::read(root.join("out/lora.ckpt")).unwrap();
    let merging =
        MAKERS.replace("from: lora, to: out/lora", "from: lora, merge: true, to: out/lora");
    let merging = merging.replace("merge: true, to: out/merged", "to: out/merged");
    run(root, &merging);
    let whole = std::fs::read(root.join("out/lora.ckpt")).unwrap();
    assert!(whole != copied && std::fs::read(root.join("out/merged.ckpt")).unwrap() == whole);
    assert!(!root.join("out/lora.base.ckpt").exists());
    run(root, MAKERS);
    assert!(std::fs::read(root.join("out/lora.ckpt")).unwrap() == copied);
    assert!(root.join("out/lora.base.ckpt").exists());
    let linked = MAKERS.replace("merge: true", "merge: true, link: hard");
    assert!(load(root, &linked).err().unwrap().contains("a merged model is a file of its own"));
    let idle = MAKERS.replace("from: base, to", "from: base, merge: true, to");
    let session = load(root, &idle).unwrap();
    let warnings: Vec<String> =
        session.graph.pipeline.warnings.iter().map(ToString::to_string).collect();
    assert!(warnings.concat().contains("there is nothing to merge"), "{warnings:?}");
}

#[test]
fn an_adapter_that_comes_as_a_choice_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("{MAKERS}  reader: {}\n", READERS[2].1.replace("STAGE", "mirrored"));
    let session = load(folder.path(), &text).unwrap();
    let stop = Stop::default();
    let execution = session.execution(&stop, &NullListener);
    let (plan, inspected) = session.plan(&execution).unwrap_or_else(|(_, e)| panic!("{e}"));
    let summary = session.run(&LocalExecutor, &execution, &plan, inspected).unwrap();
    let said = format!("{:?}", summary.failed);
    assert!(said.contains("makes LoRA weights") && said.contains("merge: true"), "{said}");
    // And that works.
    let between = "  whole: { kind: copy_best, from: mirrored, merge: true, to: out/whole.ckpt }\n";
    let text = format!("{MAKERS}{between}  reader: {}\n", READERS[2].1.replace("STAGE", "whole"));
    run(folder.path(), &text);
    let base = folder.path().join("reader/run_001/base_model.ckpt");
    let whole = std::fs::read(folder.path().join("out/whole.ckpt")).unwrap();
    assert!(std::fs::read(base).unwrap() == whole);
}

#[test]
fn the_best_of_all_makers_is_chosen_by_its_metric() {
    let folder = tempfile::tempdir().unwrap();
    let text = MAKERS.replace(
        "{ kind: select_best, over: [base, lora, copied, mirrored] }",
        "{ kind: select_best, over: [base, lora, mirrored], monitor: val_loss }",
    );
    run(folder.path(), &text);
    let of = |run: &str| {
        let path =
            folder.path().join("checkpoints").join(run).join("run_001/checkpoints/best.ckpt");
        let header = Checkpoint::open(&path).unwrap().header().clone();
        header.metrics["val_loss"]
    };
    let (base, lora) = (of("base_training"), of("lora"));
    let session = load(folder.path(), &text).unwrap();
    let stop = Stop::default();
    let execution = session.execution(&stop, &NullListener);
    let (plan, _) = session.plan(&execution).unwrap_or_else(|(_, e)| panic!("{e}"));
    let chosen = plan.steps.iter().find(|step| step.stage.as_str() == "chosen").unwrap();
    let (name, value) = if base <= lora { ("base", base) } else { ("lora", lora) };
    let expected = format!("{name} with val_loss {value:.4}");
    assert!(chosen.reason.contains(&expected), "{} is not {expected}", chosen.reason);
}

//! What trains well: schedules that extend, objectives, dropout inside the network.

use crate::project::{Project, TINY, all_tensors, root};

const BASE: &str = "checkpoints/base_training";
const RUN: &str = "checkpoints/base_training/run_001";
const SECOND: &str = "checkpoints/base_training/run_002";

fn last(project: &Project, run: &str) -> Vec<(String, Vec<u8>)> {
    all_tensors(&project.path(&format!("{run}/checkpoints/last.ckpt")))
}

/// The tiny pipeline with lines more in its training.
fn tiny(lines: &str) -> Project {
    Project::with("    batch_size: 16\n", &format!("    batch_size: 16\n{lines}"))
}

fn run(project: &Project, arguments: &[&str]) -> String {
    let ended = project.pipe(&[&["run", "p.yaml"], arguments].concat()).succeeds();
    ended.stdout() + &ended.stderr()
}

fn plan(project: &Project, arguments: &[&str]) -> String {
    project.pipe(&[&["plan", "p.yaml"], arguments].concat()).succeeds().stdout()
}

/// Learning rates of a run's epochs.
fn rates(project: &Project, run: &str) -> Vec<f64> {
    let history = project.metadata(run)["history"].as_array().unwrap().clone();
    history.iter().map(|epoch| epoch["learning_rate"].as_f64().unwrap()).collect()
}

const STABLE: &str = "    schedule: { kind: constant_then_decay, decay_share: 0.4 }
    checkpoint: { keep_last_n: 1 }\n";

#[test]
fn a_longer_training_goes_on_from_where_the_rate_began_to_fall() {
    let project = tiny(STABLE);
    run(&project, &["--epochs", "5"]);
    let expected = [1e-3, 1e-3, 1e-3, 1e-3 * (1.0 - 3.0 / 8.0), 1e-3 * (1.0 - 7.0 / 8.0)];
    let worst = rates(&project, RUN).into_iter().zip(expected).map(|(a, b)| (a - b).abs());
    assert!(worst.fold(0.0, f64::max) < 1e-12, "{:?}", rates(&project, RUN));
    // Kept, though the policy keeps one.
    assert!(project.list(&format!("{RUN}/checkpoints")).contains(&"epoch_003.ckpt".to_owned()));

    let said = plan(&project, &["--epochs", "10"]);
    let text = "schedule horizon 5 -> 10 (new run_002; shares epochs 1-3 with run 001";
    assert!(said.contains(text), "{said}");
    let refused = ["run", "p.yaml", "--resume", "--epochs", "10"];
    project.pipe(&refused).exits(2).says("goes on from there: keep `epochs: 5`");
    let said = run(&project, &["--epochs", "10"]);
    assert!(said.contains("Resumed from epoch 3"), "{said}");
    let from = project.metadata(SECOND)["resumed_from"].clone();
    assert_eq!(from, format!("{RUN}/checkpoints/epoch_003.ckpt"));
    assert_eq!(project.metadata(RUN)["epochs"], 5, "what it was stays");

    let straight = tiny(STABLE);
    run(&straight, &["--epochs", "10"]);
    assert!(last(&project, SECOND) == last(&straight, RUN));
    assert_eq!(project.metadata(SECOND)["identity"], straight.metadata(RUN)["identity"]);
    // Shorter ones, too, and each is there as what it is.
    run(&project, &["--epochs", "6"]);
    let six = tiny(STABLE);
    run(&six, &["--epochs", "6"]);
    assert!(last(&project, &format!("{BASE}/run_003")) == last(&six, RUN));
    project.pipe(&["run", "p.yaml", "--epochs", "10"]).succeeds().says("up to date");
    project.pipe(&["verify"]).succeeds();
}

#[test]
fn without_that_checkpoint_the_plan_says_so_and_the_end_is_the_same() {
    let project = tiny(STABLE);
    run(&project, &["--epochs", "5"]);
    std::fs::remove_file(project.path(&format!("{RUN}/checkpoints/epoch_003.ckpt"))).unwrap();
    let said = plan(&project, &["--epochs", "8"]);
    assert!(said.contains("run 001 is the same up to epoch 3, and has no checkpoint"), "{said}");
    run(&project, &["--epochs", "8"]);
    let straight = tiny(STABLE);
    run(&straight, &["--epochs", "8"]);
    assert!(last(&project, SECOND) == last(&straight, RUN));
    // Forced is anew.
    let said = run(&straight, &["--epochs", "10", "--force"]);
    assert!(!said.contains("Resumed"), "{said}");
}

#[test]
fn a_damaged_checkpoint_to_go_on_from_is_told_and_passed_over() {
    let project = tiny(STABLE);
    run(&project, &["--epochs", "5"]);
    let file = project.path(&format!("{RUN}/checkpoints/epoch_003.ckpt"));
    let mut bytes = std::fs::read(&file).unwrap();
    let end = bytes.len() - 9;
    bytes[end] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let said = run(&project, &["--epochs", "8"]);
    assert!(said.contains("epoch_003.ckpt") && !said.contains("Resumed"), "{said}");
    let straight = tiny(STABLE);
    run(&straight, &["--epochs", "8"]);
    assert!(last(&project, SECOND) == last(&straight, RUN));
}

#[test]
fn an_inverse_square_root_extends_in_the_same_run() {
    let schedule = "    schedule: { kind: inverse_sqrt, warmup_steps: 2, reference_steps: 4 }\n";
    let project = tiny(schedule);
    run(&project, &["--epochs", "2"]);
    assert!(plan(&project, &["--epochs", "5"]).contains("extend 2 -> 5"));
    run(&project, &["--epochs", "5"]);
    let straight = tiny(schedule);
    run(&straight, &["--epochs", "5"]);
    assert!(last(&project, RUN) == last(&straight, RUN));
    assert_eq!(rates(&project, RUN), rates(&straight, RUN));
    assert!((rates(&project, RUN)[4] - 1e-3 / (19.0f64 / 4.0).sqrt()).abs() < 1e-12);
    let without = ["plan", "p.yaml", "--set", "base.schedule={kind: inverse_sqrt}"];
    Project::new().pipe(&without).exits(2).says("base.schedule.reference_steps");
}

/// What the header of a checkpoint says of its objective.
fn objective(project: &Project, run: &str) -> Option<String> {
    let bytes = std::fs::read(project.path(&format!("{run}/checkpoints/last.ckpt"))).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    header.metadata().as_ref().unwrap().get("objective").cloned()
}

const OBJECTIVES: [&str; 4] = [
    "{ kind: v }",
    "{ kind: flow }",
    "{ kind: flow, times: logit_normal, min_snr_gamma: 5 }",
    "{ kind: edm, sigma_data: 0.7, p_mean: -0.8 }",
];

#[test]
fn each_objective_trains_resumes_to_the_bit_and_is_sampled_as_what_it_is() {
    let plain = Project::new();
    run(&plain, &["--epochs", "4"]);
    assert_eq!(objective(&plain, RUN), None);
    assert!(!plain.metadata(RUN)["manifest"].as_object().unwrap().contains_key("objective.kind"));
    for kind in OBJECTIVES {
        let line = format!("    objective: {kind}\n");
        let project = tiny(&line);
        run(&project, &["--epochs", "2"]);
        run(&project, &["--epochs", "8"]);
        let straight = tiny(&line);
        run(&straight, &["--epochs", "8"]);
        assert!(last(&project, RUN) == last(&straight, RUN), "{kind}");
        assert!(last(&project, RUN) != last(&plain, RUN));
        let losses: Vec<f64> = project.metadata(RUN)["history"]
            .as_array()
            .unwrap()
            .iter()
            .map(|epoch| epoch["metrics"]["train_loss"].as_f64().unwrap())
            .collect();
        assert!(losses[7] < 0.9 * losses[0], "{kind}: {losses:?}");
        assert!(objective(&project, RUN).is_some(), "{kind}");

        // What it samples goes along with an export. The same weights, taken for EDM's, are another
        // model.
        let file = format!("{RUN}/checkpoints/last.ckpt");
        let export = ["ckpt", "export", &file, "--weights-only", "-o", "weights.ckpt"];
        project.pipe(&export).succeeds();
        let own = pictures(&project, &file, "own");
        assert_eq!(own, pictures(&project, "weights.ckpt", "exported"));
        let still = format!(
            "    batch_size: 16\n    init: {file}\n    learning_rate: 1.0e-12\n    optimizer: {{ weight_decay: 0.0 }}\n"
        );
        project.write("e.yaml", TINY.replace("    batch_size: 16\n", &still));
        project.pipe(&["run", "e.yaml", "--epochs", "1"]).succeeds();
        let taken = pictures(&project, &format!("{SECOND}/checkpoints/last.ckpt"), "taken");
        let off: u64 = own.iter().zip(&taken).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        assert!(off > 2 * own.len() as u64, "{kind}: {off} of {} numbers", own.len());
    }
}

/// The numbers of some pictures.
fn pictures(project: &Project, file: &str, to: &str) -> Vec<u8> {
    let line = ["sample", file, "--seeds=0-3", "--steps=6", "--device=cpu", "-o", to];
    project.pipe(&line).succeeds();
    let classes = project.list(to).into_iter().map(|class| format!("{to}/{class}"));
    let files = classes.flat_map(|class| {
        let files = project.list(&class).into_iter();
        files.map(move |file| format!("{class}/{file}")).collect::<Vec<_>>()
    });
    let read = |file: String| image::open(project.path(&file)).unwrap().to_rgb8().into_raw();
    let all: Vec<u8> = files.flat_map(read).collect();
    assert_eq!(all.len(), 4 * 3 * 64);
    all
}

#[test]
fn a_fine_tuning_keeps_the_objective_of_its_base() {
    let lora = "  lora:\n    kind: lora\n    base: base\n    dataset: data\n    epochs: 1\n    batch_size: 16\n    device: cpu\n    lora: { r: 2 }\n";
    let project = tiny("    objective: { kind: flow }\n");
    project.write("p.yaml", project.read("p.yaml") + lora);
    run(&project, &[]);
    assert_eq!(objective(&project, "checkpoints/lora/run_001").unwrap(), r#"{"kind":"flow"}"#);
    let adapter = "checkpoints/lora/run_001/checkpoints/last.ckpt";
    project
        .pipe(&["sample", adapter, "--n=2", "--steps=2", "--device=cpu", "-o", "a.png"])
        .succeeds();

    // On a base of another objective it means nothing.
    run(&project, &["base", "--set", "base.objective={kind: v}"]);
    let other = format!("{SECOND}/checkpoints/last.ckpt");
    let sampled = ["sample", &other, "--lora", adapter, "--n=2", "--device=cpu", "-o", "b.png"];
    project.pipe(&sampled).exits(1).says("the adapter was trained for the objective flow");
}

#[test]
fn a_checkpoint_of_another_objective_is_begun_with_and_not_gone_on_with() {
    let project = Project::new();
    run(&project, &["--epochs", "1"]);
    let file = format!("{RUN}/checkpoints/last.ckpt");
    let keys = |line: &str| format!("    batch_size: 16\n    objective: {{ kind: v }}\n{line}");
    let resumed = keys(&format!("    checkpoint: {{ resume_checkpoint: {file} }}\n"));
    project.write("r.yaml", TINY.replace("    batch_size: 16\n", &resumed));
    let ended = project.pipe(&["run", "r.yaml", "--epochs", "2"]).exits(2);
    ended.says("was trained for another objective, edm").says("begin with its weights as `init`");
    let begun = keys(&format!("    init: {file}\n"));
    project.write("i.yaml", TINY.replace("    batch_size: 16\n", &begun));
    let ended = project.pipe(&["run", "i.yaml", "--epochs", "1"]).succeeds();
    ended.says("its output means something else at first");
}

#[test]
fn an_objective_that_cannot_be_is_refused_at_its_key() {
    let project = Project::new();
    for (value, key, why) in [
        ("{kind: w}", "base.objective.kind", "flow"),
        ("{kind: flow, sigma_data: 1}", "base.objective.sigma_data", "leave it out"),
        ("{kind: v, times: uniform}", "base.objective.times", "only `flow` has them"),
        ("{min_snr_gamma: 0}", "base.objective.min_snr_gamma", "above 0"),
    ] {
        let set = format!("base.objective={value}");
        project.pipe(&["check", "p.yaml", "--set", &set]).exits(2).says(key).says(why);
    }
}

const MODELS: [&str; 2] = [
    "{ dim: 16, mults: [1, 2], depths: [1, 1], heads: 2, window: 4 }",
    "{ arch: unet, dim: 32, mults: [1, 2], depth: 1, attention: [4] }",
];

#[test]
fn dropout_resumes_to_the_bit_and_is_no_part_of_validation_or_samples() {
    for model in MODELS {
        let of = || Project::with(MODELS[0], model);
        let some = ["--set", "base.model.dropout=0.3", "--set", "checkpoint.save_every_n_steps=3"];
        let project = of();
        run(&project, &[&some[..], &["--set", "max_steps=6"]].concat());
        run(&project, &[&some[..], &["--epochs", "3"]].concat());
        let straight = of();
        run(&straight, &[&some[..], &["--epochs", "3"]].concat());
        assert!(last(&project, RUN) == last(&straight, RUN), "{model}");

        let none = of();
        run(&none, &["--set", "base.model.dropout=0", "--epochs", "3"]);
        assert!(last(&none, RUN) != last(&straight, RUN));
        assert!(!none.metadata(RUN)["manifest"].as_object().unwrap().contains_key("model.dropout"));

        let file = format!("{RUN}/checkpoints/last.ckpt");
        assert_eq!(pictures(&straight, &file, "a"), pictures(&straight, &file, "b"));
    }
    let whole = ["check", "p.yaml", "--set", "base.model.dropout=1"];
    Project::new().pipe(&whole).exits(2).says("base.model.dropout").says("below 1");
}

/// The block of the page that is the content of a file.
fn block(page: &str, file: &str) -> String {
    let text = std::fs::read_to_string(root().join(page)).unwrap();
    let (_, behind) = text.split_once(&format!("<!-- file: {file} -->")).unwrap();
    let (_, block) = behind.split_once("```yaml\n").unwrap();
    block.split_once("```").unwrap().0.to_owned()
}

#[test]
fn what_edm_trained_cifar10_with_is_valid_as_the_page_shows_it() {
    let project = Project::new();
    let config = "configs/training/edm_cifar10.yaml";
    project.write(config, std::fs::read(root().join(config)).unwrap());
    project.write("edm.yaml", block("docs/recipes.md", "edm.yaml"));
    let ended = project.pipe(&["check", "edm.yaml"]).succeeds();
    assert_eq!(ended.stderr(), "", "no warning");
    let large = ["check", "edm.yaml", "--set", "base.model.dropout=1.5"];
    project.pipe(&large).exits(2);
}

const TOLD: &str = "image_size: 8\n    augmentation: { enabled: true, probability: 0.5 }";

#[test]
fn a_network_that_is_told_of_the_augmentation_resumes_to_the_bit_and_samples_without() {
    let inside = ["--set", "checkpoint.save_every_n_steps=3"];
    let project = Project::with("image_size: 8", TOLD);
    run(&project, &[&inside[..], &["--set", "max_steps=6"]].concat());
    run(&project, &[&inside[..], &["--epochs", "4"]].concat());
    let straight = Project::with("image_size: 8", TOLD);
    run(&straight, &[&inside[..], &["--epochs", "4", "--set", "base.num_workers=0"]].concat());
    assert!(last(&project, RUN) == last(&straight, RUN));
    let table = last(&project, RUN).into_iter().find(|(name, _)| name == "state_dict.time.augment");
    let (_, table) = table.unwrap();
    assert_eq!(table.len(), 9 * 64 * 4, "nine labels, a token of 64");
    assert!(table.iter().any(|byte| *byte != 0), "it is trained");
    let file = format!("{RUN}/checkpoints/last.ckpt");
    project
        .pipe(&["sample", &file, "--n=2", "--steps=2", "--device=cpu", "-o", "a.png"])
        .succeeds();
    project.pipe(&["verify"]).succeeds();

    // On two devices the same is learned, but for the order of sums.
    let two = Project::with("image_size: 8", TOLD);
    run(&two, &["--epochs", "1", "--set", "base.devices=[cpu, cpu]"]);
    let one = Project::with("image_size: 8", TOLD);
    run(&one, &["--epochs", "1"]);
    let loss = |project: &Project| {
        project.metadata(RUN)["history"][0]["metrics"]["train_loss"].as_f64().unwrap()
    };
    assert!((loss(&one) - loss(&two)).abs() < 1e-4 * loss(&one));

    // Without it the network has no such weights, and is another one.
    let plain = Project::new();
    run(&plain, &["--epochs", "1"]);
    assert!(last(&plain, RUN).iter().all(|(name, _)| !name.contains("augment")));
    let set = "data.augmentation={enabled: true, probability: 0.1}";
    let changed = ["run", "p.yaml", "--run-number", "1", "--resume", "--epochs", "2", "--set", set];
    plain.pipe(&changed).exits(2).says("dataset.augmentation.probability stays what it is");
    let both = "data.augmentation={enabled: true, probability: 0.1, rotation_degrees: 5}";
    plain.pipe(&["check", "p.yaml", "--set", both]).exits(2).says("augmentation.rotation_degrees");
}

#[test]
fn a_fine_tuning_is_told_of_the_augmentation_where_its_base_was() {
    let lora = "  lora:\n    kind: lora\n    base: base\n    dataset: data\n    epochs: 1\n    batch_size: 16\n    device: cpu\n    lora: { r: 2 }\n";
    let told = "  told: { kind: dataset, source: shapes, classes: [circle, square], image_size: 8, num_images: 64, augmentation: { enabled: true, probability: 0.5 } }\n";
    let plain = Project::new();
    plain.write("p.yaml", TINY.to_owned() + told + &lora.replace("dataset: data", "dataset: told"));
    plain.pipe(&["run", "p.yaml"]).exits(2).says("was not trained to be told what was done");
    let project = Project::with("image_size: 8", TOLD);
    project.write("p.yaml", project.read("p.yaml") + lora);
    run(&project, &[]);
}

//! Settings with a history: `then`, trainings that share epochs, and `pipe fork`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::project::{Project, TINY, all_tensors};
use crate::resume::{delays, in_pieces, kill_after};

const BASE: &str = "checkpoints/base_training";
const RUN: &str = "checkpoints/base_training/run_001";

/// The tiny training that keeps every checkpoint.
fn keeping_all() -> Project {
    Project::with("log_every_n_steps: 1", "checkpoint: { keep_last_n: null }")
}

fn last(project: &Project, run: &str) -> Vec<(String, Vec<u8>)> {
    all_tensors(&project.path(&format!("{BASE}/{run}/checkpoints/last.ckpt")))
}

/// The command that trains so many epochs with `then`.
fn command(epochs: u64, then: &str) -> Vec<String> {
    let words = ["run", "p.yaml", "--epochs", &epochs.to_string(), "--set"];
    let words = words.into_iter().map(str::to_owned);
    words.chain([format!("base.then={then}")]).collect()
}

fn words(command: &[String]) -> Vec<&str> {
    command.iter().map(String::as_str).collect()
}

/// The epochs that runs have trained themselves, by their logs.
fn trained(project: &Project) -> Vec<(String, Vec<u64>)> {
    let of = |run: String| {
        let text = project.read(&format!("{BASE}/{run}/logs/metrics.jsonl"));
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let ended = lines.filter(|line| line["epoch_seconds"].is_number());
        let epochs = ended.map(|line| line["epoch"].as_u64().unwrap()).collect();
        (run, epochs)
    };
    project.list(BASE).into_iter().map(of).collect()
}

fn rates(project: &Project, run: &str) -> Vec<f64> {
    let metadata = project.metadata(&format!("{BASE}/{run}"));
    let history = metadata["history"].as_array().unwrap().iter();
    history.map(|epoch| epoch["learning_rate"].as_f64().unwrap()).collect()
}

#[test]
fn what_is_equal_is_trained_once() {
    let project = keeping_all();
    let slow = "[{from: 2, learning_rate: 1e-4}]";
    project.pipe(&["run", "p.yaml", "--epochs", "4"]).succeeds();
    let plan = ["plan", "p.yaml", "--epochs", "4", "--set", &format!("base.then={slow}")];
    project.pipe(&plan).succeeds().says(
        "learning_rate after epoch 2 unset -> 0.0001 (new run_002; shares epochs 1-2 with run 001)",
    );
    let said = project.pipe(&words(&command(4, slow))).succeeds();
    said.says("Resumed from epoch 2").says("From epoch 3 on: learning_rate 0.001 -> 0.0001");
    assert_eq!(trained(&project)[1], ("run_002".to_owned(), vec![3, 4]));
    assert_eq!(rates(&project, "run_002"), [1e-3, 1e-3, 1e-4, 1e-4]);
    assert_eq!(
        project.metadata(&format!("{BASE}/run_002"))["resumed_from"],
        json!(format!("{RUN}/checkpoints/epoch_002.ckpt"))
    );
    let whole = keeping_all();
    whole.pipe(&words(&command(4, slow))).succeeds();
    assert_eq!(trained(&whole), [("run_001".to_owned(), vec![1, 2, 3, 4])]);
    assert!(last(&project, "run_002") == last(&whole, "run_001"));
    // A part of either can be done once more.
    project.pipe(&["audit", "2"]).succeeds().says("the same, bit for bit");
    whole.pipe(&["audit", "1", "--from", "0", "--to", "4"]).succeeds().says("bit for bit");
    whole.pipe(&["audit", "1", "--from", "1", "--to", "3"]).succeeds().says("bit for bit");
    whole.pipe(&["replay", "1", "--step", "11"]).succeeds();
    std::fs::remove_file(whole.path(&format!("{RUN}/checkpoints/epoch_003.ckpt"))).unwrap();
    let again = whole.pipe(&["ckpt", "again", "1", "--epoch", "3"]).succeeds();
    again.says("the same file as then, byte for byte");
    // By its number alone it goes on with its own settings.
    let on = ["run", "p.yaml", "--run-number", "2", "--resume", "--epochs", "5"];
    let on = project.pipe(&on).succeeds();
    on.says("Run 2 goes on with its own settings: base.then").says("Resumed from epoch 4");
    assert_eq!(rates(&project, "run_002")[4], 1e-4);
    // Each of the two is found again.
    project.pipe(&["run", "p.yaml", "--epochs", "4"]).succeeds().says("everything is up to date");
    project.pipe(&words(&command(4, slow))).succeeds().says("everything is up to date");
    project.pipe(&["verify"]).succeeds();
}

#[test]
fn an_entry_behind_what_is_trained_extends_the_run() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml"]).succeeds();
    let identity = project.metadata(RUN)["identity"].clone();
    let drop = "[{from: 2, learning_rate: 1e-4}, {from: 4, batch_size: 8}]";
    // It is not come to: nothing is to be done.
    project.pipe(&words(&command(2, drop))).succeeds().says("everything is up to date");
    let plan = ["plan", "p.yaml", "--epochs", "3", "--set", &format!("base.then={drop}")];
    project.pipe(&plan).succeeds().says("extend 2 -> 3");
    project.pipe(&words(&command(3, drop))).succeeds();
    assert_eq!(project.list(BASE), ["run_001"]);
    let metadata = project.metadata(RUN);
    assert_eq!(metadata["identity"], identity, "its checkpoints stay its own");
    assert_eq!(metadata["manifest"]["learning_rate after epoch 2"], json!(1e-4));
    assert!(metadata["manifest"].get("batch_size after epoch 4").is_none());
    assert_eq!(metadata["settings"]["then"][1]["batch_size"], json!(8));
    project.pipe(&["audit", "1"]).succeeds().says("the same, bit for bit");
    // Another entry, or none, in the place of one that it has not come to.
    let other = "[{from: 2, learning_rate: 1e-4}, {from: 3, learning_rate: 1e-5}]";
    project.pipe(&words(&command(5, other))).succeeds();
    assert_eq!(project.list(BASE), ["run_001"]);
    assert_eq!(rates(&project, "run_001"), [1e-3, 1e-3, 1e-4, 1e-5, 1e-5]);
    let whole = Project::new();
    whole.pipe(&words(&command(5, other))).succeeds();
    assert!(last(&project, "run_001") == last(&whole, "run_001"));
    // What it has come to is another training. The checkpoints before entries are kept.
    let less = "[{from: 2, learning_rate: 1e-4}]";
    let plan = ["plan", "p.yaml", "--epochs", "5", "--set", &format!("base.then={less}")];
    project.pipe(&plan).succeeds().says("new run_002; shares epochs 1-3 with run 001)");
    let none = ["plan", "p.yaml", "--epochs", "5"];
    project.pipe(&none).succeeds().says("new run_002; shares epochs 1-2 with run 001)");
}

#[test]
fn without_that_checkpoint_it_goes_on_from_an_earlier_one() {
    let project = keeping_all();
    project.pipe(&["run", "p.yaml", "--epochs", "4"]).succeeds();
    for epoch in [2, 3] {
        let file = format!("{RUN}/checkpoints/epoch_00{epoch}.ckpt");
        std::fs::remove_file(project.path(&file)).unwrap();
    }
    let then = "[{from: 3, learning_rate: 1e-4}]";
    let plan = ["plan", "p.yaml", "--epochs", "4", "--set", &format!("base.then={then}")];
    project
        .pipe(&plan)
        .succeeds()
        .says("shares epochs 1-3 with run 001, which keeps the checkpoint of epoch 1 of them");
    project.pipe(&words(&command(4, then))).succeeds().says("Resumed from epoch 1");
    assert_eq!(trained(&project)[1].1, [2, 3, 4]);
    let whole = keeping_all();
    whole.pipe(&words(&command(4, then))).succeeds();
    assert!(last(&project, "run_002") == last(&whole, "run_001"));
}

#[test]
fn a_matrix_shares_what_stands() {
    let project = keeping_all();
    project.pipe(&["run", "p.yaml", "--epochs", "3"]).succeeds();
    let matrix = "then: [[{from: 2, learning_rate: 1e-4}], [{from: 2, batch_size: 8}]]";
    let text = project.read("p.yaml");
    project.write("p.yaml", format!("{text}    matrix: {{ {matrix} }}\n"));
    let plan = project.pipe(&["plan", "p.yaml", "--epochs", "3"]).succeeds();
    assert_eq!(plan.stdout().matches("shares epochs 1-2 with run 001").count(), 2);
    project.pipe(&["run", "p.yaml", "--epochs", "3"]).succeeds();
    let own: Vec<_> = trained(&project).into_iter().map(|(_, epochs)| epochs).collect();
    assert_eq!(own, [vec![1, 2, 3], vec![3], vec![3]]);
}

#[test]
fn early_stopping_looks_back_at_shared_epochs() {
    let project = keeping_all();
    let stop = ["--set", "base.early_stopping={monitor: train_loss, patience: 2, min_delta: 5.0}"];
    project.pipe(&[&["run", "p.yaml", "--epochs", "2"], &stop[..]].concat()).succeeds();
    let changed = command(9, "[{from: 1, learning_rate: 1e-5}]");
    let ended = project.pipe(&[words(&changed), stop.to_vec()].concat()).succeeds();
    ended.says("Resumed from epoch 1");
    let whole = keeping_all();
    whole.pipe(&[words(&changed), stop.to_vec()].concat()).succeeds();
    let epochs = |project: &Project, run: &str| rates(project, run).len();
    assert_eq!(epochs(&project, "run_002"), epochs(&whole, "run_001"));
    assert!(epochs(&whole, "run_001") < 9);
    assert!(last(&project, "run_002") == last(&whole, "run_001"));
}

#[test]
fn schedule_and_batch_size_count_by_the_place() {
    let project = Project::new();
    let cosine = ["--set", "base.schedule={kind: cosine}"];
    let then = command(4, "[{from: 2, batch_size: 32}]");
    project.pipe(&[words(&then), cosine.to_vec()].concat()).succeeds();
    // Two epochs of 4 steps, two of 2: the last step is the 8th of 8.
    let half = |share: f64| 1e-3 * 0.5 * (1.0 + (std::f64::consts::PI * share).cos());
    for (found, share) in
        rates(&project, "run_001").iter().zip([3. / 16., 7. / 16., 5. / 8., 7. / 8.])
    {
        assert!((found - half(share)).abs() < 1e-12, "{found} {share}");
    }
    assert_eq!(project.metadata(RUN)["history"][3]["global_step"], 12);
    // A length in steps is one of all periods.
    let project = Project::new();
    let then = ["run", "p.yaml", "--set", "base.then=[{from: 2, batch_size: 32}]"];
    let steps = ["--set", "base.max_steps=11", "--epochs", "90"];
    project.pipe(&[&then[..], &steps[..]].concat()).succeeds().says("11 in all");
    let metadata = project.metadata(RUN);
    assert_eq!(metadata["history"].as_array().unwrap().len(), 3);
    assert_eq!(metadata["partial_checkpoint"]["global_step"], 11);
}

#[test]
fn what_cannot_change_is_refused_with_the_reason() {
    let project = Project::new();
    for (then, key, why) in [
        ("[{from: 1, seed: 7}]", "then.0.seed", "it decides what all epochs"),
        (
            "[{from: 1, model: {dim: 32}}]",
            "then.0.model.dim",
            "of `model` an entry changes `label_dropout` and `dropout` alone",
        ),
        (
            "[{from: 1, optimizer: {kind: adam}}]",
            "then.0.optimizer.kind",
            "it decides what all epochs",
        ),
        ("[{from: 1, ema: {lengths: [0.1]}}]", "then.0.ema.lengths", "it decides what all epochs"),
        ("[{from: 1, epochs: 7}]", "then.0.epochs", "it is one for all epochs"),
        ("[{from: 1, device: gpu}]", "then.0.device", "it changes no bit of the training"),
        ("[{from: 0, learning_rate: 1}]", "then.0.from", "expected an epoch, 1 at least"),
        (
            "[{from: 2, learning_rate: 1}, {from: 2, batch_size: 3}]",
            "then.1.from",
            "expected an epoch after 2",
        ),
        ("[{from: 2}]", "then.0", "it changes nothing"),
        ("[{from: 2, learning_rate: -1}]", "then.0.learning_rate", "expected a number above 0"),
        (
            "[{from: 2, schedule: {kind: inverse_sqrt}}]",
            "then.0.schedule",
            "the step from which on `inverse_sqrt`",
        ),
        (
            "[{from: 2, objective: {times: uniform}}]",
            "then.0.objective.times",
            "only `flow` has them",
        ),
        ("[{from: 2, lerning_rate: 1}]", "then.0.lerning_rate", "learning_rate"),
    ] {
        let ended = project.pipe(
            &["check", "p.yaml"].map(str::to_owned).iter().map(String::as_str).collect::<Vec<_>>(),
        );
        ended.succeeds();
        let text = TINY.replace("device: cpu", &format!("device: cpu\n    then: {then}"));
        project.write("then.yaml", text);
        let ended = project.pipe(&["check", "then.yaml"]).exits(2);
        ended.says("then.yaml").says(why).says(key.rsplit('.').next().unwrap());
    }
}

/// Entries that are drawn.
fn drawn(draw: &mut impl FnMut(u64) -> u64) -> Value {
    let settings = [
        json!({"learning_rate": 3e-4}),
        json!({"learning_rate": 5e-5}),
        json!({"batch_size": 8}),
        json!({"batch_size": 32, "accumulate_grad_batches": 2}),
        json!({"schedule": {"kind": "linear", "min_lr_ratio": 0.1}}),
        json!({"optimizer": {"betas": [0.8, 0.99], "weight_decay": 0.1}}),
        json!({"gradient_clip_val": null, "ema": {"decay": 0.5}}),
        json!({"model": {"label_dropout": 0.5, "dropout": 0.2}}),
        json!({"objective": {"p_mean": -0.5, "min_snr_gamma": 5.0}}),
        json!({"precision": "bf16"}),
    ];
    let mut entries = Vec::new();
    for from in 1..5 {
        if draw(3) == 0 {
            let mut entry = settings[draw(settings.len() as u64) as usize].clone();
            entry["from"] = json!(from);
            entries.push(entry);
        }
    }
    Value::Array(entries)
}

/// What epochs of a training are made with, as far as they are trained: equal lists are equal
/// trainings.
fn prefixes(epochs: u64, then: &Value) -> Vec<String> {
    let mut valid: BTreeMap<String, Value> = BTreeMap::new();
    let (mut all, mut so_far) = (Vec::new(), String::new());
    for epoch in 0..epochs {
        for entry in then.as_array().unwrap().iter().filter(|entry| entry["from"] == json!(epoch)) {
            for (key, value) in entry.as_object().unwrap().iter().filter(|(key, _)| *key != "from")
            {
                match value {
                    Value::Object(block) => valid.extend(
                        block.iter().map(|(name, value)| (format!("{key}.{name}"), value.clone())),
                    ),
                    value => drop(valid.insert(key.clone(), value.clone())),
                }
            }
        }
        // A linear rate depends on the length.
        let horizon = if valid.contains_key("schedule.kind") { epochs } else { 0 };
        so_far.push_str(&format!("{valid:?} {horizon};"));
        all.push(so_far.clone());
    }
    all
}

/// Of any edits of `then` and of the length, with kills: what comes out are the bits of a training
/// that was never disturbed, and equal epochs are trained once.
#[test]
fn drawn_histories_end_in_the_bits_of_one_training() {
    for seed in 1..3u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut draw = |n: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % n
        };
        let project = keeping_all();
        let mut distinct: BTreeSet<String> = BTreeSet::new();
        let mut then = drawn(&mut draw);
        for edit in 0..5 {
            match draw(3) {
                0 => then = drawn(&mut draw),
                1 => drop(then.as_array_mut().unwrap().pop()),
                _ => {}
            }
            let epochs = 2 + draw(4);
            let typed = command(epochs, &then.to_string());
            if draw(2) == 0 {
                let every = ["--set", "checkpoint.save_every_n_steps=1"];
                let typed = [words(&typed), every.to_vec()].concat();
                // A few kills; a busy machine may not even come to a checkpoint.
                for delay in delays(100, 1500).take(3) {
                    if !kill_after(&project, &typed, delay) {
                        break;
                    }
                }
            }
            let plan = project.pipe(
                &["plan"].into_iter().chain(words(&typed)[1..].iter().copied()).collect::<Vec<_>>(),
            );
            project.pipe(&words(&typed)).succeeds();
            let about =
                format!("seed {seed}, edit {edit}, {epochs} epochs, {then}\n{}", plan.stdout());
            let wanted = prefixes(epochs, &then);
            distinct.extend(wanted.clone());
            let all: Vec<(String, u64)> = trained(&project)
                .iter()
                .flat_map(|(run, epochs)| {
                    epochs.iter().map(|e| (run.clone(), *e)).collect::<Vec<_>>()
                })
                .collect();
            assert_eq!(all.len(), distinct.len(), "{about}{all:?}");
            // The run that was meant, at the epoch that was meant.
            let plan = project
                .pipe(&[
                    "plan",
                    "p.yaml",
                    "--epochs",
                    &epochs.to_string(),
                    "--set",
                    &format!("base.then={then}"),
                ])
                .stdout();
            let number = plan.split("run ").nth(1).map(|rest| rest[..3].to_owned());
            let run = format!("run_{}", number.unwrap_or_else(|| panic!("{about}{plan}")));
            let file = format!("{BASE}/{run}/checkpoints/epoch_{epochs:03}.ckpt");
            let whole = keeping_all();
            whole.pipe(&words(&typed)).succeeds();
            assert!(all_tensors(&project.path(&file)) == last(&whole, "run_001"), "{about}{plan}");
        }
    }
}

#[test]
fn killed_anywhere_it_ends_in_the_same_bits() {
    let then = "[{from: 2, learning_rate: 1e-4, batch_size: 8}, {from: 4, optimizer: {weight_decay: 0.5}}]";
    let typed = command(6, then);
    let more = ["--set", "num_images=256", "--set", "checkpoint.save_every_n_steps=3"];
    let typed = [words(&typed), more.to_vec()].concat();
    let (straight, pieces) = (Project::new(), Project::new());
    let began = std::time::Instant::now();
    straight.pipe(&typed).succeeds();
    let whole = began.elapsed().as_millis() as u64;
    let kills = in_pieces(&pieces, &typed, delays(whole / 12 + 20, whole / 4 + 60));
    assert!(kills > 0);
    assert!(last(&straight, "run_001") == last(&pieces, "run_001"), "after {kills} kills");
    assert_eq!(pieces.list(BASE), ["run_001"]);
    let files = |project: &Project| project.list(&format!("{RUN}/checkpoints"));
    assert_eq!(files(&straight), files(&pieces));
}

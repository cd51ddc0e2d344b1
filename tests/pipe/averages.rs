//! Averages of the weights by power functions, and any length of them afterwards.

use crate::project::{Project, all_tensors, weights};

const RUN: &str = "checkpoints/base_training/run_001";
const LENGTHS: &str = "ema.lengths=[0.05, 0.1]";

fn run(project: &Project, arguments: &[&str]) {
    let settings = ["run", "p.yaml", "--set", "num_images=256", "--set", LENGTHS];
    project.pipe(&[&settings[..], arguments].concat()).succeeds();
}

fn averaged(project: &Project, length: &str) -> Vec<(String, Vec<usize>, Vec<u8>)> {
    let out = format!("at_{length}.ckpt");
    let line = ["ckpt", "ema", RUN, "--length", length, "-o", &out];
    project.pipe(&line).succeeds().says("off by");
    weights(&project.path(&out))
}

fn numbers(tensors: &[(String, Vec<usize>, Vec<u8>)]) -> Vec<f64> {
    let numbers = |bytes: &Vec<u8>| -> Vec<f64> {
        bytes
            .chunks_exact(4)
            .map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())))
            .collect()
    };
    tensors.iter().flat_map(|(_, _, bytes)| numbers(bytes)).collect()
}

/// The average of one length in a checkpoint, as the training made it.
fn own(project: &Project, run: &str, length: &str) -> Vec<f64> {
    let prefix = format!("power_ema.{length}/");
    let all = all_tensors(&project.path(&format!("{run}/checkpoints/last.ckpt")));
    let found = all.into_iter().filter_map(|(name, bytes)| {
        Some((name.strip_prefix(&prefix)?.to_owned(), Vec::new(), bytes))
    });
    numbers(&found.collect::<Vec<_>>())
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}

#[test]
fn any_length_comes_out_of_the_snapshots_of_two() {
    let project = Project::new();
    run(&project, &["--epochs", "12"]);
    let names: Vec<String> = (1..=12).map(|epoch| format!("epoch_{epoch:03}.ckpt")).collect();
    assert_eq!(project.list(&format!("{RUN}/ema")), names, "all are kept");

    // A training that had kept that length.
    let other = Project::new();
    run(&other, &["--epochs", "12", "--set", "ema.lengths=[0.075, 0.12]"]);
    let raw = numbers(&weights(&project.path(&format!("{RUN}/checkpoints/last.ckpt"))));
    for length in ["0.075", "0.12"] {
        let (found, own) = (numbers(&averaged(&project, length)), own(&other, RUN, length));
        let (off, moved) = (distance(&found, &own), distance(&raw, &own));
        assert!(off < 0.05 * moved, "{length}: {off} of {moved}");
    }
    let kept = own(&project, RUN, "0.05");
    assert!(distance(&numbers(&averaged(&project, "0.05")), &kept) < 1e-4 * distance(&raw, &kept));
    let file = "at_0.075.ckpt";
    project.pipe(&["sample", file, "--n=2", "--steps=2", "--device=cpu", "-o", "a.png"]).succeeds();
    let shown = project.pipe(&["ckpt", "show", file, "--json"]).succeeds().stdout();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown["extra"]["ema_length"], &shown["epoch"]), (&"0.075".into(), &12.into()));

    fn line<'a>(more: &[&'a str]) -> Vec<&'a str> {
        [&["ckpt", "ema", RUN, "-o", "b.ckpt"], more].concat()
    }
    project.pipe(&line(&["--length", "0.075", "--epoch", "6"])).succeeds().says("epoch 6");
    project.pipe(&line(&["--length", "0.075"])).exits(2).says("--overwrite replaces it");
    let bad = |more: &[&str]| project.pipe(&[&line(more)[..], &["--overwrite"]].concat()).exits(2);
    let far = [&line(&["--length", "0.28"])[..], &["--overwrite"]].concat();
    project.pipe(&far).succeeds().says("warning: the weighting is off by 25 %");
    bad(&["--length", "0.9"]).says("a share of the training, from 0.005 to 0.28");
    bad(&["--length", "0.1", "--epoch", "99"]).says("no snapshot of epoch 99");
    project.pipe(&["verify"]).succeeds();
}

#[test]
fn averages_resume_to_the_bit_and_change_nothing_else() {
    let inside = ["--set", "checkpoint.save_every_n_steps=5"];
    let project = Project::new();
    run(&project, &[&inside[..], &["--set", "max_steps=22"]].concat());
    run(&project, &[&inside[..], &["--epochs", "3"]].concat());
    let straight = Project::new();
    run(&straight, &[&inside[..], &["--epochs", "3"]].concat());
    let tensors =
        |project: &Project, file: &str| all_tensors(&project.path(&format!("{RUN}/{file}")));
    for file in ["checkpoints/last.ckpt", "ema/epoch_001.ckpt", "ema/epoch_003.ckpt"] {
        assert!(tensors(&project, file) == tensors(&straight, file), "{file}");
    }
    let without = Project::new();
    run(&without, &["--epochs", "3", "--set", "ema.lengths=[]"]);
    let mut all = tensors(&straight, "checkpoints/last.ckpt");
    all.retain(|(name, _)| !name.starts_with("power_ema."));
    assert!(all == tensors(&without, "checkpoints/last.ckpt"));
    assert!(!without.metadata(RUN)["manifest"].to_string().contains("lengths"));
    let line = ["ckpt", "ema", RUN, "--length", "0.1", "-o", "b.ckpt"];
    without.pipe(&line).exits(2).says("a training keeps them with `ema: { lengths: [0.05, 0.1] }`");
    for (set, why) in [
        ("ema.lengths=[0.5]", "from 0.005 to 0.28"),
        ("ema.lengths=[0.1, 0.1]", "each length once"),
        ("ema.snapshot_every_n_epochs=0", "at least 1"),
    ] {
        without.pipe(&["check", "p.yaml", "--set", &format!("base.{set}")]).exits(2).says(why);
    }
}

#[test]
fn snapshots_have_a_policy_of_their_own() {
    let project = Project::new();
    let every =
        ["--set", "base.ema.snapshot_every_n_epochs=2", "--set", "checkpoint.keep_last_n=1"];
    run(&project, &[&every[..], &["--epochs", "5"]].concat());
    let there = ["epoch_002.ckpt", "epoch_004.ckpt", "epoch_005.ckpt"];
    assert_eq!(project.list(&format!("{RUN}/ema")), there);
    // A damaged one is not summed.
    let file = project.path(&format!("{RUN}/ema/epoch_004.ckpt"));
    let mut bytes = std::fs::read(&file).unwrap();
    let end = bytes.len() - 9;
    bytes[end] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let line = ["ckpt", "ema", RUN, "--length", "0.1", "-o", "b.ckpt"];
    project.pipe(&line).exits(1).says("epoch_004.ckpt");
}

#[test]
fn snapshots_are_verified_as_checkpoints_are() {
    let project = Project::new();
    run(&project, &["--epochs", "4"]);
    let good = |bytes: &[u8]| project.write(&format!("{RUN}/ema/epoch_002.ckpt"), bytes);
    let (name, path) = ("ema/epoch_002.ckpt", project.path(&format!("{RUN}/ema/epoch_002.ckpt")));
    let whole = std::fs::read(&path).unwrap();
    project.pipe(&["verify"]).succeeds();
    let mut flipped = whole.clone();
    let half = flipped.len() / 2;
    flipped[half] ^= 1;
    for bad in [&flipped[..], &whole[..half], &[]] {
        good(bad);
        project.pipe(&["verify"]).exits(1).says(&format!("damaged {RUN}/{name}"));
        project.pipe(&["verify", "--repair"]).succeeds().says(&format!("{name}.damaged"));
        assert!(!path.exists());
        // What was set aside is not looked for, and averages are made of the others.
        project.pipe(&["verify"]).succeeds();
        averaged(&project, "0.075");
        std::fs::remove_file(project.path("at_0.075.ckpt")).unwrap();
        good(&whole);
    }
    // Another epoch's snapshot under this name is none of it.
    let other = std::fs::read(project.path(&format!("{RUN}/ema/epoch_003.ckpt"))).unwrap();
    good(&other);
    project.pipe(&["verify"]).exits(1).says(&format!("damaged {RUN}/{name}"));
    good(&whole);
    for aside in project.list(&format!("{RUN}/ema")) {
        if aside.contains("damaged") {
            std::fs::remove_file(project.path(&format!("{RUN}/ema/{aside}"))).unwrap();
        }
    }
    std::fs::remove_file(&path).unwrap();
    project.pipe(&["verify"]).exits(1).says(name).says("is not there");
    project.pipe(&["verify", "--repair"]).exits(1).says("not repaired");
    good(&whole);
    project.pipe(&["verify"]).succeeds();
}

#[test]
fn snapshots_that_a_setting_leaves_out_are_not_missed() {
    let project = Project::new();
    run(&project, &["--epochs", "4", "--set", "base.ema.snapshot_every_n_epochs=3"]);
    run(&project, &["--epochs", "5", "--set", "base.ema.snapshot_every_n_epochs=3"]);
    project.pipe(&["verify"]).succeeds();
    std::fs::remove_file(project.path(&format!("{RUN}/ema/epoch_003.ckpt"))).unwrap();
    project.pipe(&["verify"]).exits(1).says("ema/epoch_003.ckpt");
}

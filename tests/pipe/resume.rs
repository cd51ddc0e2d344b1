//! The promise: ten epochs in one go, and ten in pieces with SIGKILL at random moments, give the
//! same bits.

use std::time::{Duration, Instant, SystemTime};

use crate::project::{Project, all_tensors};

const RUN: &str = "checkpoints/base_training/run_001";
const ARGUMENTS: [&str; 10] = [
    "run",
    "p.yaml",
    "--epochs",
    "10",
    "--set",
    "num_images=256",
    "--set",
    "checkpoint.save_every_n_steps=3",
    "--set",
    "data.augmentation={enabled: true, rotation_degrees: 15}",
];

/// Delays between `least` and `most` milliseconds, different in each run of the test.
pub fn delays(least: u64, most: u64) -> impl Iterator<Item = Duration> {
    let mut state =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    std::iter::from_fn(move || {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Some(Duration::from_millis(least + state % (most - least)))
    })
}

/// Starts and kills after a while; `false` if it came to its end before.
#[track_caller]
pub fn kill_after(project: &Project, arguments: &[&str], delay: Duration) -> bool {
    let mut child = project.start(arguments);
    let started = Instant::now();
    while started.elapsed() < delay {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "ended with {status}");
            return false;
        }
        std::thread::sleep(Duration::from_millis(5).min(delay - started.elapsed().min(delay)));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    true
}

/// Starts and kills until a start comes to its end; returns how often it was killed.
#[track_caller]
pub fn in_pieces(
    project: &Project,
    arguments: &[&str],
    delays: impl Iterator<Item = Duration>,
) -> usize {
    for (kills, delay) in delays.take(400).enumerate() {
        if !kill_after(project, arguments, delay) {
            return kills;
        }
    }
    panic!("no end after 400 kills");
}

#[test]
fn ten_epochs_in_pieces_are_ten_epochs_in_one_go() {
    let straight = Project::new();
    let began = SystemTime::now();
    straight.pipe(&ARGUMENTS).succeeds();
    let mut whole = began.elapsed().unwrap().as_millis() as u64;

    let (pieces, kills) = loop {
        let pieces = Project::new();
        // Long enough to get somewhere (starting takes a while), short enough to be killed several
        // times.
        let kills = in_pieces(&pieces, &ARGUMENTS, delays(whole / 12 + 20, whole / 4 + 60));
        if kills >= 3 {
            break (pieces, kills);
        }
        // The machine was busy when it ran in one go, and is not any more.
        whole = whole * 2 / 3;
    };

    let last =
        |project: &Project| all_tensors(&project.path(&format!("{RUN}/checkpoints/last.ckpt")));
    assert!(last(&straight) == last(&pieces), "the tensors differ after {kills} kills");
    let metrics = |project: &Project| -> Vec<serde_json::Value> {
        let history = project.metadata(RUN)["history"].clone();
        history.as_array().unwrap().iter().map(|e| e["metrics"].clone()).collect()
    };
    assert_eq!(metrics(&straight), metrics(&pieces), "every epoch's figures are the same bits too");
    // The logs tell each step once.
    let steps = |project: &Project| -> Vec<u64> {
        let text = project.read(&format!("{RUN}/logs/metrics.jsonl"));
        let lines = text.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
        lines
            .filter(|l| l["train_loss_step"].is_number())
            .map(|l| l["step"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(steps(&pieces), steps(&straight));
    assert_eq!(
        pieces.list(&format!("{RUN}/checkpoints")),
        straight.list(&format!("{RUN}/checkpoints"))
    );
}

#[test]
fn a_training_in_bf16_in_two_processes_has_the_bits_of_one() {
    let ends_with = |processes: &[&str]| {
        let project = Project::new();
        for epochs in processes {
            let arguments = ["run", "p.yaml", "--set", "precision=bf16", "--epochs", epochs];
            project.pipe(&arguments).succeeds();
        }
        all_tensors(&project.path(&format!("{RUN}/checkpoints/last.ckpt")))
    };
    assert!(ends_with(&["3"]) == ends_with(&["1", "3"]));
}

#[test]
fn what_a_crash_at_the_very_end_left_undone_is_done() {
    let project = Project::new();
    let arguments = ["run", "p.yaml", "--epochs", "5", "--set", "sample_every_n_epochs=5"];
    project.pipe(&["run", "p.yaml", "--epochs", "1"]).succeeds();
    let first = std::fs::read(project.path(&format!("{RUN}/checkpoints/epoch_001.ckpt"))).unwrap();
    project.pipe(&arguments).succeeds();
    let (metadata, files) = (project.metadata(RUN), project.list(&format!("{RUN}/checkpoints")));
    let picture = project.path(&format!("{RUN}/samples/epoch_005.png"));
    let drawn = std::fs::read(&picture).unwrap();

    // As if the process had ended between the last checkpoint's metadata and everything after it.
    let mut running = metadata.clone();
    running["status"] = "running".into();
    std::fs::write(project.path(&format!("{RUN}/metadata.json")), running.to_string()).unwrap();
    std::fs::write(project.path(&format!("{RUN}/checkpoints/epoch_001.ckpt")), first).unwrap();
    std::fs::remove_file(&picture).unwrap();

    project.pipe(&arguments).succeeds();
    assert_eq!(project.metadata(RUN)["status"], "completed");
    assert_eq!(project.metadata(RUN)["history"], metadata["history"]);
    assert_eq!(project.list(&format!("{RUN}/checkpoints")), files);
    assert_eq!(std::fs::read(&picture).unwrap(), drawn);
    project.pipe(&arguments).succeeds().says("up to date");
}

#[test]
fn neither_workers_nor_logging_change_a_bit() {
    let last = |settings: &[&str]| {
        let project = Project::new();
        project.pipe(&[&["run", "p.yaml"], settings].concat()).succeeds();
        all_tensors(&project.path(&format!("{RUN}/checkpoints/last.ckpt")))
    };
    let plain = last(&[]);
    assert!(plain == last(&["--set", "num_workers=0"]));
    assert!(plain == last(&["--set", "num_workers=4", "--set", "log_every_n_steps=100"]));
    assert!(plain != last(&["--seed", "43"]), "another seed is another result");
}

#[test]
fn a_damaged_newest_checkpoint_is_passed_over() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml", "--epochs", "3"]).succeeds();
    let straight = all_tensors(&project.path(&format!("{RUN}/checkpoints/last.ckpt")));
    let newest = project.path(&format!("{RUN}/checkpoints/epoch_003.ckpt"));
    let bytes = std::fs::read(&newest).unwrap();
    // Through all its names.
    std::fs::write(&newest, &bytes[..bytes.len() - 100]).unwrap();
    project
        .pipe(&["run", "p.yaml", "--epochs", "3"])
        .succeeds()
        .says("passed over a damaged checkpoint")
        .says("epoch_003.ckpt")
        .says("Resumed from epoch 2");
    assert!(straight == all_tensors(&project.path(&format!("{RUN}/checkpoints/last.ckpt"))));
}

//! `pipe save` and `pipe sample`: what a person asks of a training that is under way.
#![cfg(unix)]

use std::process::Child;
use std::time::{Duration, Instant};

use crate::project::{Project, send, weights};
use crate::trainer;

/// A training that is under way, with a run.
struct Training {
    project: Project,
    child: Child,
    run: &'static str,
}

const BUILT_IN: &str = "checkpoints/base_training/run_001";
const PROGRAM: &str = "checkpoints/trainer/run_001";
/// No checkpoint by itself for a long time.
const SELDOM: &[&str] = &[
    "--epochs=400",
    "--set",
    "num_images=512",
    "--set",
    "base.checkpoint.save_every_n_epochs=400",
];

impl Training {
    fn start(project: Project, arguments: &[&str], run: &'static str) -> Self {
        let child = project.start(&[&["run", "p.yaml"], arguments].concat());
        let training = Self { project, child, run };
        let log = training.project.path(&format!("{run}/logs/metrics.jsonl"));
        training.until(|| std::fs::read_to_string(&log).is_ok_and(|text| text.lines().count() > 3));
        training
    }

    fn until(&self, done: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !done() {
            assert!(Instant::now() < deadline, "not after a minute");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn stop(mut self) -> Project {
        send(&self.child, "TERM");
        assert_eq!(self.child.wait().unwrap().code(), Some(75));
        self.project
    }

    /// Nothing is left of what was asked.
    fn has_no_request(&self) -> bool {
        self.project.list(self.run).iter().all(|name| !name.ends_with(".request"))
    }
}

fn program(keys: &str) -> Project {
    let project = Project::new();
    project.write("p.yaml", trainer::stage(keys));
    project
}

#[test]
fn a_checkpoint_is_saved_when_it_is_asked_for() {
    let training = Training::start(Project::new(), SELDOM, BUILT_IN);
    let mut steps = Vec::new();
    for name in ["1", "base/1", BUILT_IN] {
        let saved = training.project.pipe(&["save", name, "--json"]).succeeds();
        let saved: serde_json::Value = serde_json::from_str(&saved.stdout()).unwrap();
        assert!(saved["path"].as_str().unwrap().starts_with(BUILT_IN), "{saved}");
        steps.push(saved["global_step"].as_u64().unwrap());
        assert!(training.has_no_request());
    }
    assert!(steps.is_sorted_by(|a, b| a < b), "{steps:?}");
    let path = training.project.pipe(&["save", "1"]).succeeds().stdout();
    assert_eq!(path.lines().count(), 1, "{path}");
    // Asking changes nothing of what is trained.
    let project = training.stop();
    let done = project.metadata(BUILT_IN)["history"].as_array().unwrap().len() as u64;
    let epochs = format!("--epochs={}", done + 1);
    let small = ["run", "p.yaml", &epochs, "--set", "num_images=512"];
    project.pipe(&small).succeeds();
    let straight = Project::new();
    straight.pipe(&small).succeeds();
    let last = format!("{BUILT_IN}/checkpoints/last.ckpt");
    assert_eq!(weights(&project.path(&last)), weights(&straight.path(&last)));
    project.pipe(&["save", "1"]).exits(2).says("run 001 is not being trained: it is completed");
    // Its best checkpoint draws, as of its file.
    let drawn = project.pipe(&["sample", "1", "--n", "2", "-o", "new/two.png"]).succeeds();
    let drawn = drawn.says("run 001 is completed; drawing from its checkpoint");
    assert_eq!(drawn.stdout(), "new/two.png\n");
    let best = format!("{BUILT_IN}/checkpoints/best.ckpt");
    project.pipe(&["sample", &best, "--n", "2", "-o", "again.png"]).succeeds();
    let read = |file: &str| std::fs::read(project.path(file)).unwrap();
    assert!(read("new/two.png") == read("again.png"));
}

#[test]
fn a_picture_is_drawn_when_it_is_asked_for() {
    let training = Training::start(Project::new(), SELDOM, BUILT_IN);
    let picture = training.project.pipe(&["sample", "base/1"]).succeeds().stdout();
    let bytes = std::fs::read(training.project.path(picture.trim())).unwrap();
    assert!(bytes.starts_with(b"\x89PNG"), "{picture}");
    assert!(picture.starts_with(&format!("{BUILT_IN}/samples/")), "{picture}");
    training
        .project
        .pipe(&["sample", "1", "--n", "4"])
        .exits(2)
        .says("draws its own picture, and takes no options");
    let project = training.stop();
    // Nothing has been the best yet: what was saved as it was stopped is there.
    let newest = "run 001 has no best checkpoint; its newest is of step ";
    let drawn = project.pipe(&["sample", "1", "--n", "4"]).succeeds().says(newest);
    drawn.says("run 001 is interrupted; drawing from its checkpoint");
    let shown = project.pipe(&["ckpt", "show", "1"]).succeeds().says(newest).stdout();
    let last = project.pipe(&["ckpt", "show", &format!("{BUILT_IN}/checkpoints/last.ckpt")]);
    assert_eq!(shown, last.stdout());
    // Tensors by what they are of, or each.
    assert!(shown.contains("optimizer_state_dict") && shown.lines().count() < 20, "{shown}");
    let each = project.pipe(&["ckpt", "show", "1", "--tensors"]).succeeds().stdout();
    assert!(each.lines().count() > 50 && each.contains("\nstate_dict."), "{each}");
}

#[test]
fn a_program_is_asked_in_its_next_answer() {
    let keys = "    settings: { pause_us: 20000, steps: 500 }\n";
    let training = Training::start(program(keys), &[], PROGRAM);
    let first = training.project.pipe(&["save", "1"]).succeeds().stdout();
    assert!(first.starts_with(&format!("{PROGRAM}/checkpoints/step_")), "{first}");
    assert!(training.project.path(first.trim()).exists());
    let picture = training.project.pipe(&["sample", "1"]).succeeds().stdout();
    assert_eq!(picture.trim(), format!("{PROGRAM}/samples/epoch_001.png"));
    assert!(training.has_no_request());
    training.stop();
}

#[test]
fn an_epoch_that_the_policy_leaves_out_is_saved_when_it_is_asked_for() {
    let keys = "    settings: { pause_us: 1000000, steps: 1 }\n    checkpoint: { save_every_n_epochs: 4 }\n";
    let project = program(keys);
    let training = Training::start(project, &["--epochs=100"], PROGRAM);
    training.project.pipe(&["save", "1"]).succeeds().says("checkpoints/step_0");
    training.stop();
}

#[test]
fn who_gives_up_takes_the_request_back() {
    // A program that never looks at its answers.
    let said = r#"{"step": 1, "metrics": {"loss": 1}}"#;
    let script: Vec<_> =
        (0..4).map(|_| serde_json::json!(said)).chain([serde_json::json!({"sleep": 60})]).collect();
    let keys =
        format!("    grace: 1s\n    settings: {{ script: {} }}\n", serde_json::Value::from(script));
    let training = Training::start(program(&keys), &[], PROGRAM);
    training
        .project
        .pipe(&["save", "1", "--wait", "300ms"])
        .exits(1)
        .says("run 001 has not answered for 300ms");
    assert!(training.has_no_request());
    // Nobody waits for a training that ends.
    let mut asking = training.project.start(&["save", "1"]);
    training.until(|| !training.has_no_request());
    let Training { project, mut child, .. } = training;
    send(&child, "TERM");
    child.wait().unwrap();
    assert_eq!(asking.wait().unwrap().code(), Some(1));
    assert!(project.list(PROGRAM).iter().all(|name| !name.ends_with(".request")));
}

#[test]
fn a_training_without_checkpoints_is_not_asked_for_one() {
    let keys =
        "    settings: { pause_us: 20000, steps: 500 }\n    checkpoint: { enabled: false }\n";
    let training = Training::start(program(keys), &[], PROGRAM);
    training.project.pipe(&["save", "1"]).exits(2).says("is trained without checkpoints");
    let Training { mut child, .. } = training;
    send(&child, "KILL");
    child.wait().unwrap();
}

//! Ctrl-C and SIGTERM save and stop; the same command goes on.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::project::{Project, TINY, weights};

const RUN: &str = "checkpoints/base_training/run_001";

/// Many short epochs, so that a signal always finds training under way.
const LONG: [&str; 6] = ["run", "p.yaml", "--epochs", "400", "--set", "num_images=512"];

/// Waits until the run has a checkpoint.
fn until_saved(project: &Project) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !project.list(&format!("{RUN}/checkpoints")).contains(&"last.ckpt".to_owned()) {
        assert!(Instant::now() < deadline, "no checkpoint after a minute");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn send(child: &Child, signal: &str) {
    let sent = Command::new("kill")
        .args([&format!("-{signal}"), &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
}

#[track_caller]
fn stopped_by(signal: &str, code: i32) {
    let project = Project::new();
    let mut child = project.start(&LONG);
    until_saved(&project);
    send(&child, signal);
    assert_eq!(child.wait().unwrap().code(), Some(code));
    let metadata = project.metadata(RUN);
    assert_eq!(metadata["status"], "interrupted");
    let last = project.path(&format!("{RUN}/checkpoints/last.ckpt"));
    project.pipe(&["ckpt", "verify", last.to_str().unwrap()]).succeeds();
    // Inside an epoch or at its end: what was done is kept, and the plan says so.
    let plan = project.pipe(&[&LONG[..], &["--dry-run"]].concat()).succeeds().stdout();
    assert!(plan.contains("base  resume at epoch ") && plan.contains("/400"), "{plan}");
    let done = metadata["history"].as_array().unwrap().len();
    let next = project.pipe(&[
        "run",
        "p.yaml",
        "--epochs",
        &(done + 1).to_string(),
        "--set",
        "num_images=512",
    ]);
    next.succeeds().says("Resuming from checkpoint").says(&format!("Epoch {0}/{0}", done + 1));

    let straight = Project::new();
    straight
        .pipe(&["run", "p.yaml", "--epochs", &(done + 1).to_string(), "--set", "num_images=512"])
        .succeeds();
    assert_eq!(weights(&last), weights(&straight.path(&format!("{RUN}/checkpoints/last.ckpt"))));
}

#[test]
fn ctrl_c_saves_and_exits_with_130() {
    stopped_by("INT", 130);
}

#[test]
fn sigterm_saves_and_exits_with_75() {
    stopped_by("TERM", 75);
}

#[test]
fn what_is_stopped_beside_others_has_not_failed() {
    let project = Project::new();
    let matrix = "    dataset: data\n    matrix: { learning_rate: [1.0e-3, 1.0e-4] }\n";
    let winner = "  winner: { kind: select_best, over: base }\n";
    project.write("p.yaml", TINY.replace("    dataset: data\n", matrix) + winner);
    let mut command = project.command(&[&LONG[..], &["--jobs", "2"]].concat());
    let child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    until_saved(&project);
    send(&child, "INT");
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(130), "{said}");
    assert!(said.contains("stopped by Ctrl-C") && !said.contains("failed"), "{said}");
    assert!(!said.contains("passed over"), "{said}");
}

#[test]
fn a_run_that_is_alive_is_not_taken_over() {
    let project = Project::new();
    let mut child = project.start(&LONG);
    until_saved(&project);
    let second = project.pipe(&LONG).exits(2);
    second.says(&format!("it is being run by pid {}", child.id()));
    let told = project.pipe(&["logs", "base"]).succeeds().says("Base Model Training").stdout();
    assert!(!told.contains("it is being run by"), "{told}");
    send(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(75));
}

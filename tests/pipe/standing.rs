//! How a run or a stage is said to stand, while its process lives and after that.

use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::project::{Project, TINY, send};

const RUN: &str = "checkpoints/base_training/run_001";
/// Many short epochs, so that whoever looks finds training under way.
const LONG: [&str; 4] = ["run", "p.yaml", "--epochs", "4000"];

/// A training that has saved a checkpoint, and goes on.
fn under_way(project: &Project) -> Child {
    let child = project.start(&LONG);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !project.path(&format!("{RUN}/checkpoints/last.ckpt")).exists() {
        assert!(Instant::now() < deadline, "no checkpoint after a minute");
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

/// The status of the first run, as the list of runs and the page have it.
#[track_caller]
fn statuses(project: &Project) -> [String; 2] {
    let runs = project.pipe(&["runs", "--json"]).succeeds().stdout();
    let runs: Value = serde_json::from_str(&runs).unwrap();
    project.pipe(&["report"]).succeeds();
    let page = project.read("report.html");
    let at = page.find("\"status\":\"").expect("a status") + "\"status\":\"".len();
    [runs[0]["status"].as_str().unwrap(), page[at..].split('"').next().unwrap()].map(str::to_owned)
}

#[test]
fn a_training_is_running_while_it_lives_and_interrupted_when_it_was_killed() {
    let project = Project::new();
    let mut child = under_way(&project);
    let holder = format!("pid {}", child.id());
    assert_eq!(statuses(&project), ["running"; 2]);
    let plan = project.pipe(&["plan", "p.yaml", "--epochs", "4000"]).succeeds();
    assert!(!plan.stdout().contains("without a word"), "{}", plan.stdout());
    plan.says(&format!("being trained by {holder}"));
    project.pipe(&["status", "p.yaml", "--epochs", "4000"]).succeeds().says(&holder);
    // Another training of the same stage cannot begin meanwhile; what to do is told.
    let other = project.pipe(&["run", "p.yaml", "--learning-rate", "1e-4"]).exits(2);
    other.says(&format!("it is being run by {holder}")).says("`matrix`");

    send(&child, "KILL");
    child.wait().unwrap();
    assert_eq!(project.metadata(RUN)["status"], "running", "it had no time to say anything");
    assert_eq!(statuses(&project), ["interrupted"; 2]);
    let shown = project.pipe(&["runs", "show", "1"]).succeeds();
    shown.says("status      interrupted (ended without a word)");
    project.pipe(&["runs", "--filter", "status=interrupted"]).succeeds().says("interrupted");
    project.pipe(&["runs", "--filter", "status=running"]).succeeds().says("no run fulfils that");
    project.pipe(&["plan", "p.yaml", "--epochs", "4000"]).succeeds().says("ended without a word");
}

#[test]
fn a_start_that_failed_leaves_no_run_that_is_running() {
    let project = Project::new();
    let file = "checkpoint.resume_checkpoint=none.ckpt";
    project.pipe(&["run", "p.yaml", "--set", file]).exits(2);
    for run in project.list("checkpoints/base_training") {
        let metadata = project.metadata(&format!("checkpoints/base_training/{run}"));
        assert_eq!(metadata["status"], "failed");
        assert!(metadata["message"].as_str().unwrap().contains("none.ckpt"), "{metadata}");
    }
}

#[test]
fn what_is_done_behind_what_is_not_says_so() {
    let project = Project::new();
    let copied = "  copied: { kind: copy_best, from: base, to: checkpoints/best.ckpt }\n";
    let picture = "  picture: { kind: sample, from: copied, n: 2, steps: 2, to: picture.png }\n";
    project.write("p.yaml", format!("{TINY}{copied}{picture}"));
    project.pipe(&["run", "p.yaml"]).succeeds();
    let details = |set: &[&str]| {
        let status = [&["status", "p.yaml", "--json"], set].concat();
        let status: Value =
            serde_json::from_str(&project.pipe(&status).succeeds().stdout()).unwrap();
        ["copied", "picture"].map(|stage| {
            let all = status.as_array().unwrap();
            let found = all.iter().find(|one| one["stage"] == stage).unwrap();
            assert_eq!(found["status"], "done");
            found["detail"].as_str().unwrap().to_owned()
        })
    };
    assert!(details(&[]).iter().all(|detail| !detail.contains("base")), "{:?}", details(&[]));
    for set in ["epochs=3", "base.learning_rate=0.5"] {
        let said = details(&["--set", set]);
        assert!(said.iter().all(|detail| detail.ends_with("; base before it is not")), "{said:?}");
    }
}

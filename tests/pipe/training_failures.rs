//! What a training program says of its failure decides whether it is tried again and how; and the
//! GPUs that it is given. The programs are shell scripts.
#![cfg(unix)]

use std::path::Path;
use std::sync::Arc;

use pipe_core::progress::NullListener;
use pipe_core::stop::Stop;
use pipe_engine::exec::LocalExecutor;
use pipe_engine::kind::StageKind;
use pipe_engine::session::Session;
use pipe_trainer::program::TrainerKind;
use serde_json::Value;

use crate::project::Project;

const RUN: &str = "checkpoints/trainer/run_001";

/// One epoch, once what stands before it has not ended the program.
const EPOCH: &str = "\
echo done > $(pipe job get scratch)/state
pipe job epoch 1 --metric train_loss=0.5 --checkpoint $(pipe job get scratch)/state
";

/// A stage `base` that runs a shell script; the script says `tried` in a line at each start.
fn project(keys: &str, script: &str) -> Project {
    let project = Project::new();
    let stage =
        "name: f\nstages:\n  base:\n    kind: trainer\n    run: sh train.sh\n    epochs: 1\n";
    project.write("p.yaml", format!("{stage}{keys}"));
    project.write(
        "train.sh",
        format!("set -e\npipe job get micro_batch_splits >> tries\n{script}{EPOCH}"),
    );
    project
}

/// What each start was told of the pieces of a batch.
fn tries(project: &Project) -> Vec<String> {
    project.read("tries").lines().map(str::to_owned).collect()
}

fn attempts(project: &Project) -> Vec<[Option<String>; 2]> {
    let record: Value = serde_json::from_str(&project.read(".pipe/records/f/base.json")).unwrap();
    let word = |value: &Value| value.as_str().map(str::to_owned);
    let all = record["attempts"].as_array().cloned().unwrap_or_default();
    all.iter().map(|a| [word(&a["failure"]), word(&a["change"])]).collect()
}

fn fails_with(kind: &str, unless: &str) -> String {
    format!("{unless} || {{ pipe job failure {kind} 'told why'; exit 1; }}\n")
}

#[test]
fn out_of_memory_halves_the_pieces_until_they_fit_and_they_stay_so() {
    let script = fails_with("out_of_memory", "[ $(pipe job get micro_batch_splits) -ge 4 ]");
    let project = project("", &script);
    project.pipe(&["run", "p.yaml"]).succeeds().says("half the micro-batch");
    assert_eq!(tries(&project), ["1", "2", "4"]);
    let halved = || [Some("out_of_memory".to_owned()), Some("smaller_micro_batch".to_owned())];
    assert_eq!(attempts(&project), [halved(), halved()]);
    assert_eq!(project.metadata(RUN)["pieces_per_batch"], 4);
    assert_eq!(project.list("checkpoints/trainer"), ["run_001"]);
    // It never fits: the pieces are not halved for ever.
    let never = self::project("", &fails_with("out_of_memory", "false"));
    never.pipe(&["run", "p.yaml"]).exits(1).says("out of memory: told why");
    assert_eq!(tries(&never), ["1", "2", "4", "8", "16", "32", "64", "128", "256"]);
}

#[test]
fn a_lost_device_is_tried_once_more_and_then_as_the_policy_says() {
    let times = |n: u32| fails_with("device_lost", &format!("[ $(wc -l < tries) -gt {n} ]"));
    project("", &times(1)).pipe(&["run", "p.yaml"]).succeeds();
    let twice = project("", &times(2));
    twice.pipe(&["run", "p.yaml"]).exits(1).says("device lost: told why");
    assert_eq!(tries(&twice).len(), 2);
    let policy = project("    retry: { max: 1, on: [device_lost] }\n", &times(2));
    policy.pipe(&["run", "p.yaml"]).succeeds();
    assert_eq!(tries(&policy), ["1", "1", "1"]);
}

#[test]
fn an_input_that_is_wrong_is_tried_again_only_where_the_policy_says_so() {
    for (kind, told) in [("input", "input: told why"), ("not_finite", "not finite: told why")] {
        for keys in ["", "    retry: { max: 2, on: [device_lost, command] }\n"] {
            let project = project(keys, &fails_with(kind, "false"));
            project.pipe(&["run", "p.yaml"]).exits(1).says(told);
            assert_eq!(tries(&project), ["1"], "{kind} {keys}");
            assert_eq!(attempts(&project), [[Some(kind.to_owned()), None]]);
        }
    }
    let policy =
        project("    retry: { max: 2 }\n", &fails_with("input", "[ $(wc -l < tries) -gt 2 ]"));
    policy.pipe(&["run", "p.yaml"]).succeeds();
    assert_eq!(tries(&policy).len(), 3);
}

#[test]
fn a_stage_with_a_gpu_of_its_own_is_told_which() {
    let keys = |name: &str| {
        let path = Path::new(env!("CARGO_BIN_EXE_pipe")).parent().unwrap().display();
        let path = format!("{path}:{}", std::env::var("PATH").unwrap_or_default());
        // Each waits for the other, so that both have one at the same time.
        format!(
            "  {name}:\n    kind: trainer\n    epochs: 1\n    resources: {{ gpu: 1 }}\n    env: {{ PATH: '{path}' }}\n    \
             checkpoint: {{ base_dir: checkpoints/{name} }}\n    run: >-\n      pipe job get devices | tr -d ' \\n' > {name}.devices;\n      \
             until test -s left.devices -a -s right.devices; do sleep 0.05; done;\n      sh epoch.sh\n"
        )
    };
    let project = Project::new();
    project.write("epoch.sh", EPOCH);
    project.write("p.yaml", format!("name: g\nstages:\n{}{}", keys("left"), keys("right")));
    let kinds: [Arc<dyn StageKind>; 1] = [Arc::new(TrainerKind)];
    let session = Session::load(project.path("").as_path(), Path::new("p.yaml"), &kinds, &[])
        .unwrap_or_else(|e| panic!("{e}"));
    let stop = Stop::default();
    let mut execution = session.execution(&stop, &NullListener);
    (execution.gpus, execution.jobs) = (2, 2);
    let (plan, inspected) = session.plan(&execution).unwrap_or_else(|(_, e)| panic!("{e}"));
    let summary = session.run(&LocalExecutor, &execution, &plan, inspected).unwrap();
    assert_eq!(summary.finished.len(), 2, "{:?}", summary.failed);
    let mut given = [project.read("left.devices"), project.read("right.devices")];
    given.sort();
    assert_eq!(given, ["[0]", "[1]"]);
}

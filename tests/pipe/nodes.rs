//! A training program as several processes on the nodes of a Slurm job: the variables that they
//! find, who speaks, how they end, and a node that is lost. The programs are shell scripts; one in
//! PyTorch is in `python/tests/test_nodes.py`.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::project::Project;
use crate::slurm::{Cluster, job_of, start, until};

const RUN: &str = "checkpoints/trainer/run_001";

/// A state that tells whether every epoch was done once and in its order. All processes do the same;
/// the first is heard.
const TRAIN: &str = "\
set -e
trap 'stopped=1' TERM
scratch=$(pipe job get scratch)
begin=$(pipe job get start)
state=begin
[ -z \"$begin\" ] || state=$(cat \"$begin\")
echo $$ > pid_${RANK:-0}
for epoch in $(pipe job epochs); do
  state=$(echo \"$state $epoch\" | cksum)
  sleep $(pipe job get settings.pause)
  echo \"$state\" > \"$scratch/state_${RANK:-0}\"
  told=0
  pipe job epoch $epoch --metric train_loss=0.$((99 - epoch)) --checkpoint \"$scratch/state_${RANK:-0}\" > /dev/null || told=$?
  [ $told = 0 ] || [ $told = 75 ]
  [ $told = 0 ] && [ -z \"$stopped\" ] || exit 0
done
";

/// A stage `base` that runs `train.sh`.
fn pipeline(slurm: &str, keys: &str) -> String {
    format!(
        "name: n\nexecutor: {{ kind: slurm, poll: 1s }}\nstages:\n  base:\n    kind: trainer\n    \
         run: sh train.sh\n    epochs: 8\n    settings: {{ pause: 0.3 }}\n    slurm: {slurm}\n{keys}"
    )
}

fn project(cluster: &Cluster, slurm: &str, keys: &str, script: &str) -> Project {
    let project = cluster.project(&pipeline(slurm, keys));
    project.write("train.sh", script);
    project
}

fn state(project: &Project) -> String {
    project.read(&format!("{RUN}/checkpoints/last.ckpt"))
}

/// What a training in one process on this machine ends with.
fn alone() -> String {
    let project = Project::new();
    project.write("p.yaml", pipeline("{ nodes: 2 }", ""));
    project.write("train.sh", TRAIN);
    project.pipe(&["run", "p.yaml", "--executor", "local", "--set", "base.pause=0"]).succeeds();
    state(&project)
}

fn has_saved(project: &Project) -> bool {
    project.path(&format!("{RUN}/checkpoints/last.ckpt")).exists()
}

/// A length of sleep that is this test's own.
fn unique(seconds: u32) -> String {
    format!("{seconds}.{}", std::process::id())
}

/// Whether a program with such arguments runs on this machine.
fn runs(words: &[&str]) -> bool {
    let wanted: Vec<u8> = words.iter().flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.any(|line| line == wanted)
}

fn failures(project: &Project) -> Vec<String> {
    let record: Value = serde_json::from_str(&project.read(".pipe/records/n/base.json")).unwrap();
    let attempts = record["attempts"].as_array().cloned().unwrap_or_default();
    attempts.iter().map(|attempt| attempt["failure"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn each_process_finds_the_variables_of_torchrun_and_the_first_one_speaks() {
    let Some(cluster) = Cluster::start_two() else { return };
    let names = "RANK|WORLD_SIZE|LOCAL_RANK|LOCAL_WORLD_SIZE|NODE_RANK|MASTER_ADDR|MASTER_PORT|PIPE_JOB|SLURMD_NODENAME";
    let script = format!("env | grep -E '^({names})=' | sort > rank_$RANK\n{TRAIN}");
    let project = project(&cluster, "{ nodes: 2, gpus_per_node: 2 }", "", &script);
    project.pipe(&["run", "p.yaml", "--set", "base.pause=0"]).succeeds().says("Epoch 8/8");
    let value = |rank: u32, name: &str| {
        let text = project.read(&format!("rank_{rank}"));
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
    };
    for rank in 0..4 {
        let all = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK"];
        let (local, node) = (rank % 2, rank / 2);
        let expected = [rank, 4, local, 2, node].map(|number| number.to_string());
        assert_eq!(all.map(|name| value(rank, name)), expected);
        assert_eq!(value(rank, "SLURMD_NODENAME"), format!("node{}", node + 1));
        for name in ["MASTER_ADDR", "MASTER_PORT", "PIPE_JOB"] {
            assert_eq!(value(rank, name), value(0, name), "{name}");
        }
    }
    assert!(!project.path("rank_4").exists());
    assert_eq!(state(&project), alone());
    assert_eq!(project.metadata(RUN)["history"].as_array().unwrap().len(), 8);
    assert!(!project.path(&format!("{RUN}/scratch")).exists());
    project.pipe(&["verify"]).succeeds();
    project.pipe(&["run", "p.yaml", "--set", "base.pause=0"]).succeeds().says("up to date");
}

#[test]
fn one_process_that_fails_ends_all_and_is_named() {
    let Some(cluster) = Cluster::start_two() else { return };
    // Slurm may drop what a process says at the moment in which it ends all of them.
    let script = "[ $RANK = 0 ] && exec sleep SECONDS\necho why it failed >&2\nsleep 1\nexit 3\n";
    let script = script.replace("SECONDS", &unique(6173));
    let project = project(&cluster, "{ nodes: 2 }", "", &script);
    let begun = Instant::now();
    project
        .pipe(&["run", "p.yaml"])
        .exits(1)
        .says("srun: error: node2: task 1: Exited with exit code 3")
        .says("1: why it failed");
    assert!(begun.elapsed() < Duration::from_secs(60));
    assert_eq!(failures(&project), ["command"]);
    assert!(!runs(&["sleep", &unique(6173)]), "it goes on");
}

#[test]
fn a_process_that_goes_on_after_the_first_has_ended_is_ended() {
    let Some(cluster) = Cluster::start_two() else { return };
    let seconds = unique(6174);
    let script = format!("[ $RANK = 0 ] || {{ trap '' TERM; sleep {seconds}; }}\n{TRAIN}");
    let project = project(&cluster, "{ nodes: 2 }", "    grace: 1s\n", &script);
    let begun = Instant::now();
    project
        .pipe(&["run", "p.yaml", "--set", "base.pause=0"])
        .succeeds()
        .says("went on for 1s after process 0 had ended, and were ended");
    assert!(begun.elapsed() < Duration::from_secs(60));
    assert_eq!(state(&project), alone());
    assert!(!runs(&["sleep", &unique(6174)]), "it goes on");
}

#[test]
fn a_process_that_crashes_once_all_is_saved_leaves_a_training_that_is_done() {
    let Some(cluster) = Cluster::start_two() else { return };
    let crash = format!(
        "until [ -e {RUN}/checkpoints/epoch_008.ckpt ]; do sleep 0.1; done; sleep 2; kill -ABRT $$"
    );
    let script = format!("{TRAIN}[ $RANK = 0 ] || {{ {crash}; }}\n");
    let project = project(&cluster, "{ nodes: 2 }", "", &script);
    project
        .pipe(&["run", "p.yaml", "--set", "base.pause=0"])
        .succeeds()
        .says("task 1: Exited with exit code 134, after the last epoch: the training is complete");
    assert_eq!(failures(&project), [] as [&str; 0]);
    assert_eq!(state(&project), alone());
}

#[test]
fn a_job_that_is_told_to_stop_saves_and_goes_on_with_all_its_processes() {
    let Some(cluster) = Cluster::start_two() else { return };
    let project = project(&cluster, "{ nodes: 2, time: 60 }", "", TRAIN);
    let mut child = start(&project, &["run", "p.yaml"], "run");
    until("checkpoint", || has_saved(&project));
    let job = job_of(&project, "base");
    // As the end of a walltime does.
    cluster.ask("scancel", &["--batch", "--signal=TERM", &job]);
    assert_eq!(child.wait().unwrap().code(), Some(0), "{}", project.read("run.err"));
    assert_eq!(cluster.job(&job, "Restarts"), "1");
    let log = project.pipe(&["logs", "p.yaml", "base"]).succeeds().stdout();
    assert!(log.contains("Resumed from epoch") && log.contains("is requeued"), "{log}");
    assert!(log.contains("stopped by SIGTERM after epoch"), "it ended by itself: {log}");
    assert_eq!(failures(&project), [] as [&str; 0], "no retry was used up");
    assert_eq!(state(&project), alone());
    assert_eq!(project.list("checkpoints/trainer"), ["run_001"]);
}

#[test]
fn a_process_that_was_killed_is_tried_again_and_then_its_job_is_requeued() {
    let Some(cluster) = Cluster::start_two() else { return };
    let project = project(&cluster, "{ nodes: 2 }", "", TRAIN);
    let mut child = start(&project, &["run", "p.yaml"], "run");
    until("checkpoint", || has_saved(&project));
    let mut killed = String::new();
    for _ in 0..2 {
        until("process", || project.path("pid_1").exists() && project.read("pid_1") != killed);
        killed = project.read("pid_1");
        let status = std::process::Command::new("kill").args(["-KILL", killed.trim()]).status();
        assert!(status.unwrap().success());
    }
    assert_eq!(child.wait().unwrap().code(), Some(0), "{}", project.read("run.err"));
    assert_eq!(cluster.job(&job_of(&project, "base"), "Restarts"), "1");
    let log = project.pipe(&["logs", "p.yaml", "base"]).succeeds().stdout();
    assert_eq!(log.matches("Resumed from epoch").count(), 2, "{log}");
    assert!(log.contains("task 1: Exited with exit code 137"), "{log}");
    assert_eq!(state(&project), alone());
}

#[test]
fn a_job_whose_node_was_lost_goes_on_when_it_is_back() {
    let Some(cluster) = Cluster::start_two() else { return };
    let project = project(&cluster, "{ nodes: 2 }", "", TRAIN);
    let mut child = start(&project, &["run", "p.yaml"], "run");
    until("checkpoint", || has_saved(&project));
    let job = job_of(&project, "base");
    let node = |state: &str| {
        cluster.ask("scontrol", &["update", "nodename=node2", state, "reason=lost"]);
    };
    node("state=down");
    until("second beginning to wait for", || cluster.job(&job, "Restarts") == "1");
    node("state=resume");
    assert_eq!(child.wait().unwrap().code(), Some(0), "{}", project.read("run.err"));
    let log = project.pipe(&["logs", "p.yaml", "base"]).succeeds().stdout();
    assert!(log.contains("DUE TO NODE FAILURE") && log.contains("Resumed from epoch"), "{log}");
    assert_eq!(state(&project), alone());
}

/// Slurm counts walltimes in minutes, and looks every 30 seconds for jobs near their end: with a
/// signal half a minute before it, a job of a minute is told at each look.
#[test]
fn a_training_of_one_process_that_is_longer_than_its_walltime_is_requeued_and_ends_the_same() {
    let Some(cluster) = Cluster::start() else { return };
    let project = project(&cluster, "{ time: 1, signal_before: 35s }", "", TRAIN);
    project.pipe(&["run", "p.yaml", "--set", "base.pause=6"]).succeeds().says("was requeued");
    let job = job_of(&project, "base");
    assert_ne!(cluster.job(&job, "Restarts"), "0");
    assert_eq!(failures(&project), [] as [&str; 0], "no retry was used up");
    assert_eq!(state(&project), alone());
    assert_eq!(project.list("checkpoints/trainer"), ["run_001"]);
}

#[test]
fn a_training_that_is_cancelled_has_saved_and_goes_on_elsewhere() {
    let Some(cluster) = Cluster::start() else { return };
    let project = project(&cluster, "{ time: 60 }", "", TRAIN);
    project.pipe(&["run", "p.yaml", "--detach"]).succeeds().says("submitted as job 1");
    until("checkpoint", || has_saved(&project));
    project.pipe(&["cancel", "p.yaml"]).succeeds().says("cancelled job 1 (base)");
    until("end", || cluster.job("1", "JobState") == "CANCELLED");
    until("end of its process", || project.metadata(RUN)["status"] == "interrupted");
    assert_eq!(cluster.job("1", "Restarts"), "0");
    let here = ["run", "p.yaml", "--executor", "local"];
    project.pipe(&here).succeeds().says("Resumed from epoch");
    assert_eq!(state(&project), alone());
}

#[test]
fn a_pod_of_argo_is_one_process() {
    let project = Project::new();
    project.write("p.yaml", pipeline("{ nodes: 2, gpus_per_node: 4 }", ""));
    let said = "stages.base.slurm.nodes: its program is 8 processes, and Argo starts one pod";
    project.pipe(&["export", "argo", "p.yaml"]).exits(2).says(said);
    let one = ["export", "argo", "p.yaml", "--set", "base.slurm.nodes=1"];
    project.pipe(&one).exits(2).says("stages.base.slurm.gpus_per_node: its program is 4 processes");
    let one = [&one[..], &["--set", "base.slurm.ntasks_per_node=1"]].concat();
    project.pipe(&one).succeeds();
}

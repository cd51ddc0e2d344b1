//! Stages as jobs of a real Slurm: `tests/slurm/cluster.sh` starts one on this machine where
//! `PIPE_TEST_SLURM` is set.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::chain::{BASE, CHAIN, LORA, results};
use crate::project::{Project, all_tensors, root, send};

const RUN: &str = "checkpoints/base_training/run_001";

/// A Slurm of one node, for one test.
pub struct Cluster(tempfile::TempDir);

fn script(what: &str, folder: &std::path::Path) -> std::process::Output {
    let mut command = Command::new("bash");
    command.arg(root().join("tests/slurm/cluster.sh")).arg(what).arg(folder).stdin(Stdio::null());
    command.output().unwrap()
}

impl Cluster {
    /// `None`, with a word, where there is none to be had.
    pub fn start() -> Option<Self> {
        Self::started_if_there("start")
    }

    /// With two nodes that have two GPUs each.
    pub fn start_two() -> Option<Self> {
        Self::started_if_there("start-two")
    }

    fn started_if_there(how: &str) -> Option<Self> {
        if std::env::var_os("PIPE_TEST_SLURM").is_none() {
            eprintln!(
                "skipped: PIPE_TEST_SLURM is not set; Debian's slurm-wlm and munge must be there for it"
            );
            return None;
        }
        Some(Self::started(how))
    }

    /// With two nodes, GPUs, accounts, and a controller that soon forgets a job that has ended.
    fn start_large() -> Option<Self> {
        if std::env::var_os("PIPE_TEST_SLURM_ACCOUNTS").is_none() {
            eprintln!(
                "skipped: PIPE_TEST_SLURM_ACCOUNTS is not set; Debian's mariadb-server and slurmdbd must be there for it"
            );
            return None;
        }
        Some(Self::started("start-large"))
    }

    fn started(how: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let output = script(how, folder.path());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self(folder)
    }

    /// Whether the queue still knows a job, ended or not.
    fn knows(&self, id: &str) -> bool {
        self.ask("squeue", &["--noheader", "--states=all", "--format=%i"])
            .lines()
            .any(|line| line == id)
    }

    pub fn project(&self, pipeline: &str) -> Project {
        let conf = self.0.path().join("slurm.conf").display().to_string();
        let project = Project::new().environment("SLURM_CONF", conf);
        project.write("p.yaml", pipeline);
        project
    }

    /// What one of Slurm's programs prints.
    #[track_caller]
    pub fn ask(&self, program: &str, arguments: &[&str]) -> String {
        let conf = self.0.path().join("slurm.conf");
        let output =
            Command::new(program).args(arguments).env("SLURM_CONF", conf).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The value of a key of `scontrol show job`.
    #[track_caller]
    pub fn job(&self, id: &str, key: &str) -> String {
        let text = self.ask("scontrol", &["show", "--oneliner", "job", id]);
        let value =
            text.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("no {key} in {text}")).to_owned()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        script("stop", self.0.path());
    }
}

/// The tiny pipeline on Slurm.
fn tiny(slurm: &str, train: &str) -> String {
    let file = crate::project::TINY.replace("params:", &format!("executor: {slurm}\nparams:"));
    file.replace("    batch_size: 16\n", &format!("    batch_size: 16\n{train}"))
}

/// The stages as `pipe status --json` has them.
fn status(project: &Project) -> Vec<Value> {
    let text = project.pipe(&["status", "p.yaml", "--json"]).succeeds().stdout();
    serde_json::from_str(&text).unwrap()
}

fn of_stage(all: &[Value], stage: &str) -> Value {
    all.iter().find(|s| s["stage"] == stage).unwrap_or_else(|| panic!("no {stage}")).clone()
}

/// The id of a stage's job.
#[track_caller]
pub fn job_of(project: &Project, stage: &str) -> String {
    of_stage(&status(project), stage)["job"]["id"].as_str().expect("a job").to_owned()
}

#[track_caller]
pub fn until(what: &str, mut there: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !there() {
        assert!(Instant::now() < deadline, "no {what} after two minutes");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Starts a command whose output goes to files.
pub fn start(project: &Project, arguments: &[&str], name: &str) -> Child {
    let file = |end: &str| std::fs::File::create(project.path(&format!("{name}.{end}"))).unwrap();
    project.command(arguments).stdout(file("out")).stderr(file("err")).spawn().unwrap()
}

fn has_saved(project: &Project) -> bool {
    project.list(&format!("{RUN}/checkpoints")).contains(&"last.ckpt".to_owned())
}

/// Slurm counts walltimes in minutes, and looks every 30 seconds for jobs near their end. With a
/// minute of walltime and a signal half a minute before its end, a job is told at each look: it
/// trains for less than 30 seconds at a time.
const SHORT: &str = "executor: { kind: slurm, time: 1, signal_before: 35s, poll: 1s }\n";
/// Seconds of training that are surely more than three such times.
const LONG_ENOUGH: f64 = 85.0;

#[test]
fn base_and_lora_as_jobs_killed_by_their_walltime_end_in_the_bytes_of_a_local_run() {
    let Some(cluster) = Cluster::start() else { return };
    let pipeline = |epochs: u64| {
        let file =
            CHAIN.replace("epochs: 2\n", &format!("epochs: {epochs}\n    retry: {{ max: 1 }}\n"));
        file.replace("num_images: 64", "num_images: 512")
            .replace("name: chain\n", &format!("name: chain\n{SHORT}"))
    };
    // How fast is this machine?
    let trial = cluster.project(&pipeline(4));
    let seconds = |arguments: &[&str]| {
        let began = Instant::now();
        trial.pipe(arguments).succeeds();
        began.elapsed().as_secs_f64()
    };
    let local = ["run", "p.yaml", "base", "--executor", "local"];
    let (few, more) =
        (seconds(&local), seconds(&[&local[..], &["--set", "base.epochs=24", "--force"]].concat()));
    let epochs = (LONG_ENOUGH * 20.0 / (more - few).max(0.05)).clamp(24.0, 50_000.0) as u64;
    eprintln!("4 epochs take {few:.1} s, 24 {more:.1} s: {epochs} epochs");

    let (jobs, straight) = (cluster.project(&pipeline(epochs)), cluster.project(&pipeline(epochs)));
    let beside = start(&straight, &["run", "p.yaml", "--executor", "local"], "local");
    let mut follower = start(&jobs, &["run", "p.yaml"], "first");
    until("checkpoint", || has_saved(&jobs));
    // Whoever submitted may go, and come back.
    let base = job_of(&jobs, "base");
    send(&follower, "TERM");
    assert_eq!(follower.wait().unwrap().code(), Some(75));
    assert!(jobs.read("first.err").contains("the jobs go on"), "{}", jobs.read("first.err"));
    let again = jobs.pipe(&["run", "p.yaml"]).succeeds();
    assert_eq!(job_of(&jobs, "base"), base, "it was followed, not submitted again");
    assert!(again.stderr().contains(&format!("base | has job {base}")), "{}", again.stderr());

    let log = jobs.pipe(&["logs", "p.yaml", "base"]).succeeds().stdout();
    let requeues = |log: &str| log.matches("is requeued and goes on from there").count();
    let mut requeued = requeues(&log);
    assert_eq!(log.matches("Resuming from checkpoint").count(), requeued, "{log}");
    let events = jobs.read(".pipe/events.jsonl");
    assert!(!events.contains("\"event\":\"retrying\""), "a requeue used up a retry");
    again
        .says("Training completed!")
        .says("was requeued: PENDING")
        .says("next: pipe sample ")
        .says("lora | LoRA Fine-tuning - Run 001");
    for stage in status(&jobs) {
        let job = &stage["job"];
        assert_eq!(job["state"], "COMPLETED", "{stage}");
    }

    let local = beside.wait_with_output().unwrap();
    assert!(local.status.success(), "{}", straight.read("local.err"));
    // A machine that has become faster in the meantime needs more of the same training.
    let mut all = epochs;
    while requeued < 3 {
        all += epochs;
        let more = format!("base.epochs={all}");
        jobs.pipe(&["run", "p.yaml", "--set", &more]).succeeds();
        straight.pipe(&["run", "p.yaml", "--executor", "local", "--set", &more]).succeeds();
        requeued += requeues(&jobs.pipe(&["logs", "p.yaml", "base"]).succeeds().stdout());
    }
    assert!(results(&jobs) == results(&straight), "the results differ after {requeued} requeues");
    let last =
        |project: &Project| all_tensors(&project.path(&format!("{RUN}/checkpoints/last.ckpt")));
    assert!(last(&jobs) == last(&straight), "the tensors differ after {requeued} requeues");
    let metrics = |project: &Project, run: &str| -> Vec<Value> {
        let history = project.metadata(run)["history"].clone();
        history.as_array().unwrap().iter().map(|e| e["metrics"].clone()).collect()
    };
    for run in [RUN, LORA] {
        assert_eq!(
            metrics(&jobs, run),
            metrics(&straight, run),
            "every epoch's figures are the same bits too"
        );
    }
    assert!(jobs.path(BASE).is_file());
    let all = format!("base.epochs={all}");
    jobs.pipe(&["run", "p.yaml", "--set", &all]).succeeds().says("everything is up to date");
}

#[test]
fn jobs_are_submitted_seen_and_cancelled() {
    let Some(cluster) = Cluster::start() else { return };
    let project = cluster.project(&tiny("slurm", ""));
    let long = ["--epochs", "4000", "--set", "num_images=512"];
    let told = project.pipe(&[&["run", "p.yaml", "--detach"], &long[..]].concat()).succeeds();
    told.says("data: job 1\nbase: job 2\n")
        .says("base | submitted as job 2")
        .says("pipe status p.yaml");
    let waits = of_stage(&status(&project), "base");
    assert!(["PENDING", "RUNNING"].contains(&waits["job"]["state"].as_str().unwrap()), "{waits}");
    until("checkpoint", || has_saved(&project));
    let base = of_stage(&status(&project), "base");
    assert_eq!(
        (&base["job"]["id"], &base["job"]["state"]),
        (&"2".into(), &"RUNNING".into()),
        "{base}"
    );
    assert_eq!(
        (&base["status"], &base["job"]["node"]),
        (&"running".into(), &"node1".into()),
        "{base}"
    );
    project.pipe(&["status", "p.yaml"]).succeeds().says("Job").says("2 RUNNING (node1)");
    assert_eq!(cluster.job("2", "JobName"), "tiny.base");
    // Other settings would be another training.
    let other = project.pipe(&["run", "p.yaml", "--detach", "--seed", "7"]).exits(1);
    other
        .says("job 2 of stage base was submitted with other settings")
        .says("pipe cancel p.yaml base");

    project.pipe(&["cancel", "p.yaml"]).succeeds().says("cancelled job 2 (base)");
    until("end", || cluster.job("2", "JobState") == "CANCELLED");
    assert_eq!(cluster.job("2", "Restarts"), "0");
    assert_eq!(project.metadata(RUN)["status"], "interrupted", "it saved before it ended");
    project.pipe(&["logs", "p.yaml", "base", "--tail", "40"]).succeeds().says("stopped by SIGTERM");
    project.pipe(&["cancel", "p.yaml"]).succeeds().says("no job is left to cancel");
    let done = project.metadata(RUN)["history"].as_array().unwrap().len();
    let epochs = (done + 1).to_string();
    let here =
        ["run", "p.yaml", "--executor", "local", "--epochs", &epochs, "--set", "num_images=512"];
    project.pipe(&here).succeeds().says("Resuming from checkpoint");
}

#[test]
fn accounts_say_how_a_job_ended_that_the_queue_has_forgotten() {
    let Some(cluster) = Cluster::start_large() else { return };
    let project = cluster.project(
        "name: ends\nexecutor: { kind: slurm, poll: 1s }\nstages:\n  \
         good: { kind: command, run: \"touch good\", outputs: [good] }\n  \
         bad: { kind: command, run: \"exit 3\" }\n  \
         killed: { kind: command, run: \"kill -9 $PPID\" }\n  \
         cancelled: { kind: command, run: \"sleep 600\" }\n",
    );
    project.pipe(&["run", "p.yaml", "--detach", "--keep-going"]).succeeds();
    let ids: Vec<String> = ["good", "bad", "killed", "cancelled"]
        .iter()
        .map(|stage| job_of(&project, stage))
        .collect();
    project.pipe(&["cancel", "p.yaml", "cancelled"]).succeeds().says("cancelled job");
    until("queue that has forgotten them", || !ids.iter().any(|id| cluster.knows(id)));

    let all = status(&project);
    let stands = |stage: &str| {
        let found = of_stage(&all, stage);
        (
            found["status"].as_str().unwrap().to_owned(),
            found["job"]["state"].as_str().unwrap().to_owned(),
        )
    };
    assert_eq!(stands("good"), ("done".into(), "COMPLETED".into()));
    assert_eq!(stands("bad"), ("failed".into(), "FAILED".into()));
    // Nothing was left of it that could write down how it ended.
    assert_eq!(stands("killed"), ("not run".into(), "FAILED".into()), "{all:?}");
    assert_eq!(stands("cancelled").1, "CANCELLED", "{all:?}");
    // What ended is not waited for: it gets a job of its own.
    project.write(
        "p.yaml",
        project
            .read("p.yaml")
            .replace("exit 3", "true")
            .replace("kill -9 $PPID", "true")
            .replace("sleep 600", "true"),
    );
    let again = project.pipe(&["run", "p.yaml"]).succeeds();
    again
        .says("bad | submitted as job")
        .says("killed | submitted as job")
        .says("cancelled | submitted as job");
}

#[test]
fn jobs_share_the_nodes_and_their_gpus() {
    let Some(cluster) = Cluster::start_large() else { return };
    let stage = |name: &str| {
        format!(
            "  {name}: {{ kind: command, run: \"touch {name}.began; until test -e one.began -a -e two.began; do sleep 0.1; done; \
             echo $SLURM_JOB_NODELIST $SLURM_GPUS > {name}\", outputs: [{name}], slurm: {{ gpus: 2 }} }}\n"
        )
    };
    let project = cluster.project(&format!(
        "name: wide\nexecutor: {{ kind: slurm, poll: 1s }}\nstages:\n{}{}",
        stage("one"),
        stage("two")
    ));
    project.pipe(&["run", "p.yaml"]).succeeds();
    let mut told = [project.read("one"), project.read("two")];
    told.sort();
    assert_eq!(told, ["node1 2\n", "node2 2\n"], "each had a node's GPUs for itself");
}

#[test]
fn ctrl_c_cancels_the_jobs_and_they_save() {
    let Some(cluster) = Cluster::start() else { return };
    let project = cluster.project(&tiny("{ kind: slurm, poll: 1s }", ""));
    let long = ["run", "p.yaml", "--epochs", "4000", "--set", "num_images=512"];
    let mut child = start(&project, &long, "run");
    until("checkpoint", || has_saved(&project));
    send(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let (out, err) = (project.read("run.out"), project.read("run.err"));
    assert!(err.contains("cancelling the jobs"), "{err}");
    assert!(out.contains("stopped by Ctrl-C; go on with: pipe run p.yaml"), "{out}");
    assert_eq!(cluster.job("2", "JobState"), "CANCELLED");
    assert_eq!(project.metadata(RUN)["status"], "interrupted", "{err}");
}

#[test]
fn a_failure_is_told_as_in_a_local_run_with_the_end_of_its_log() {
    let Some(cluster) = Cluster::start() else { return };
    let project = cluster.project(
        "name: commands\nexecutor: { kind: slurm, poll: 1s }\nstages:\n  \
         first: { kind: command, run: \"echo one >> tries; test $(wc -l < tries) -gt 1\", outputs: [tries], retry: { max: 1 } }\n  \
         breaks: { kind: command, run: \"echo why it broke; exit 3\", needs: first }\n  \
         after: { kind: command, run: \"touch after\", needs: breaks, outputs: [after] }\n",
    );
    let ended = project.pipe(&["run", "p.yaml"]).exits(1);
    let text = ended.stdout() + &ended.stderr();
    for piece in [
        "first: ",
        "not begun: after",
        "error: stage breaks: ",
        "  | ",
        ".pipe/slurm/commands/breaks-2.log",
    ] {
        assert!(text.contains(piece), "no {piece:?} in\n{text}");
    }
    assert_eq!(project.read("tries"), "one\none\n", "a retry is within its job");
    project.pipe(&["logs", "p.yaml", "breaks"]).succeeds().says("why it broke");
    project.pipe(&["logs", "p.yaml", "brakes"]).exits(2).says("did you mean `breaks`?");
    assert!(!project.path("after").exists());
    assert_eq!(cluster.job("3", "JobState"), "CANCELLED");
    let standing = of_stage(&status(&project), "breaks");
    assert_eq!(
        (&standing["status"], &standing["job"]["state"]),
        (&"failed".into(), &"FAILED".into()),
        "{standing}"
    );

    // What was done gets no job again.
    project.write("p.yaml", project.read("p.yaml").replace("exit 3", "exit 0"));
    let mended = project.pipe(&["run", "p.yaml"]).succeeds();
    mended
        .says("breaks | submitted as job 4")
        .says("after | submitted as job 5")
        .says("skipped, up to date: first");
    assert!(project.path("after").exists());
}

#[test]
fn a_preempted_job_comes_back_and_goes_on() {
    let Some(cluster) = Cluster::start() else { return };
    let project = cluster.project(&tiny("{ kind: slurm, partition: work }", ""));
    project
        .pipe(&["run", "p.yaml", "--detach", "--epochs", "4000", "--set", "num_images=512"])
        .succeeds();
    until("checkpoint", || has_saved(&project));
    // Wants the whole node, at once.
    cluster.ask(
        "sbatch",
        &["--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=sleep 1"],
    );
    until("preemption", || cluster.job("2", "Restarts") == "1");
    let log = || project.pipe(&["logs", "p.yaml", "base"]).stdout();
    until("second beginning", || log().contains("Resuming from checkpoint"));
    let log = log();
    assert!(log.contains("DUE TO PREEMPTION") && log.contains("stopped by SIGTERM"), "{log}");
    assert_eq!(project.list("checkpoints/base_training"), ["run_001"]);
}

#[test]
fn a_job_that_no_walltime_would_finish_ends_and_one_that_was_told_for_another_reason_comes_back() {
    let Some(cluster) = Cluster::start() else { return };
    let project = cluster.project(
        "name: waits\nexecutor: { kind: slurm, poll: 1s }\nstages:\n  \
         short: { kind: command, run: \"echo begun >> begun; sleep 600\", slurm: { time: 1, signal_before: 55s } }\n",
    );
    let mut child = start(&project, &["run", "p.yaml"], "run");
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let err = project.read("run.err");
    assert!(err.contains("give it more `time`"), "{err}");
    assert_eq!(project.read("begun"), "begun\n", "once");
    assert_eq!(cluster.job("1", "Restarts"), "0");

    // A signal that is not the walltime's, as an administrator or another job's scheduler sends it.
    let file = "name: waits\nexecutor: { kind: slurm, poll: 1s }\nstages:\n  \
                twice: { kind: command, run: \"echo begun >> twice; test $(wc -l < twice) -gt 1 || sleep 600\", slurm: { time: 60 } }\n";
    project.write("p.yaml", file);
    let mut child = start(&project, &["run", "p.yaml"], "twice");
    until("start", || project.path("twice").exists());
    cluster.ask("scancel", &["--batch", "--signal=TERM", "2"]);
    assert_eq!(child.wait().unwrap().code(), Some(0), "{}", project.read("twice.err"));
    assert_eq!(project.read("twice"), "begun\nbegun\n");
    assert_eq!(cluster.job("2", "Restarts"), "1");
}

#[test]
fn what_slurm_refuses_is_told_in_its_words() {
    let Some(cluster) = Cluster::start() else { return };
    let project = cluster.project(&tiny("{ kind: slurm, partition: nowhere }", ""));
    let told = project.pipe(&["run", "p.yaml"]).exits(1);
    told.says("`sbatch` refused: the job of stage data:")
        .says("invalid partition specified: nowhere");
    assert_eq!(cluster.ask("squeue", &["--noheader"]), "");
    // What a job was submitted for does not change behind its back.
    project.write("p.yaml", tiny("slurm", ""));
    cluster.ask("scontrol", &["update", "partitionname=work", "state=down"]);
    project.pipe(&["run", "p.yaml", "--detach"]).succeeds();
    project.write("p.yaml", tiny("slurm", "    learning_rate: 0.5\n"));
    cluster.ask("scontrol", &["update", "partitionname=work", "state=up"]);
    until("end", || cluster.job("2", "JobState") == "FAILED");
    project
        .pipe(&["logs", "p.yaml", "base"])
        .succeeds()
        .says("are not those that this job was submitted with");
    assert!(project.list("checkpoints").is_empty());
}

#[test]
fn without_slurm_the_message_says_what_is_missing() {
    let empty = tempfile::tempdir().unwrap();
    let project = Project::new().environment("PATH", empty.path().display().to_string());
    let told = project.pipe(&["run", "p.yaml", "--executor", "slurm"]).exits(1);
    told.says("failed to start `squeue`").says("Slurm's programs must be in PATH");
    project.pipe(&["run", "p.yaml", "--detach"]).exits(2).says("add --executor slurm");
    project
        .pipe(&["logs", "p.yaml", "base"])
        .exits(2)
        .says("stage `base` has not run yet, or not here");
}

#[test]
fn jobs_mirror_what_they_do_and_another_machine_needs_no_cluster() {
    let Some(cluster) = Cluster::start() else { return };
    let nas = tempfile::tempdir().unwrap();
    let store = format!("file://{}", nas.path().join("store").display());
    let project = cluster.project(&tiny("slurm", ""));
    project.pipe(&["run", "p.yaml", "--store", &store]).succeeds().says("Training completed!");
    let elsewhere = Project::new();
    elsewhere
        .pipe(&["run", "p.yaml", "--store", &store])
        .succeeds()
        .says("fetched, as left by")
        .says("up to date");
    let last =
        |project: &Project| all_tensors(&project.path(&format!("{RUN}/checkpoints/last.ckpt")));
    assert!(last(&elsewhere) == last(&project));
}

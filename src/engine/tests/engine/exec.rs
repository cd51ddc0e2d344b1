//! Carrying plans out: order, failures, interruption, panics, going on afterwards.

use std::collections::BTreeSet;

use pipe_core::Status;
use pipe_core::stop::{Signal, Stop};
use pipe_engine::exec::{Execution, Summary, execute, inspect};
use pipe_engine::graph::Targets;
use pipe_engine::identity;
use pipe_engine::kind::{Failure, StageId};
use pipe_engine::plan::plan;
use pipe_engine::state::{Progress, Record, lock_stage};

use crate::fake::{FakeFiles, Heard, Project};

const CHAIN: &str = "\
name: chain
stages:
  data: { kind: source }
  base: { kind: work, dataset: data }
  next: { kind: work, dataset: base }
  other: { kind: work, learning_rate: 2 }
";

pub struct Ran {
    pub summary: Summary,
    pub heard: Vec<String>,
    pub stop: Stop,
    /// `stage action`
    pub planned: Vec<String>,
    pub reasons: Vec<String>,
}

#[derive(Default)]
pub struct How {
    pub keep_going: bool,
    pub jobs: usize,
    pub gpus: u32,
    pub forced: &'static [&'static str],
}

pub fn run(project: &Project, keep_going: bool) -> Ran {
    run_with(project, How { keep_going, ..How::default() })
}

pub fn run_with(project: &Project, how: How) -> Ran {
    let graph = project.load().unwrap_or_else(|e| panic!("{e}"));
    let (stop, heard) = (Stop::default(), Heard::default());
    let manifests = identity::manifests(&graph);
    let forced: BTreeSet<StageId> = how.forced.iter().map(|id| id_of(id)).collect();
    let execution = Execution {
        forced: forced.clone(),
        formats: &FakeFiles,
        keep_going: how.keep_going,
        jobs: how.jobs,
        gpus: how.gpus,
        ..Execution::new(&project.root, &graph, &manifests, &stop, &heard)
    };
    let selection = graph.select(&Targets::default()).unwrap();
    let observed = inspect(&execution, &selection.stages).unwrap();
    let plan = plan(&graph, &selection, &forced, &observed);
    let planned = plan.steps.iter().map(|s| format!("{} {}", s.stage, s.action)).collect();
    let reasons = plan.steps.iter().map(|s| s.reason.clone()).collect();
    let summary = execute(&execution, &plan, observed).unwrap();
    Ran { summary, heard: heard.0.into_inner().unwrap(), stop, planned, reasons }
}

fn id_of(name: &str) -> StageId {
    let (name, values) = name.split_once('@').unwrap_or((name, ""));
    let id = StageId::new(name).unwrap();
    if values.is_empty() { id } else { id.member(values) }
}

fn record(project: &Project, stage: &str) -> Record {
    Record::load(&project.root, "chain", &id_of(stage)).unwrap()
}

fn names<'a, T: std::fmt::Display + 'a>(ids: impl IntoIterator<Item = &'a T>) -> Vec<String> {
    ids.into_iter().map(|id| id.to_string()).collect()
}

#[test]
fn a_second_run_has_nothing_to_do() {
    let project = Project::new(CHAIN);
    let first = run(&project, false);
    assert_eq!(
        names(first.summary.finished.iter().map(|(id, _)| id)),
        ["data", "base", "next", "other"]
    );
    assert!(
        !first.heard.iter().any(|line| line.contains("no artifact")),
        "artifacts reach the next stage"
    );
    let second = run(&project, false);
    assert_eq!(names(&second.summary.skipped), ["data", "base", "next", "other"]);
}

#[test]
fn a_stage_found_done_has_its_record_say_how_far_it_is() {
    let project = Project::new(CHAIN);
    run(&project, false);
    // As its process leaves it that ends between the training's last file and the record.
    let interrupted = Record {
        status: Status::Running,
        progress: Some(Progress { position: 2, target: 3 }),
        ..record(&project, "base")
    };
    interrupted.save(&project.root, &id_of("base")).unwrap();
    assert_eq!(run(&project, false).summary.skipped.len(), 4);
    let settled = record(&project, "base");
    assert_eq!(settled.status, Status::Completed);
    assert_eq!(settled.progress, Some(Progress { position: 3, target: 3 }));
}

#[test]
fn comments_and_order_change_nothing_a_setting_does() {
    let project = Project::new(CHAIN);
    run(&project, false);
    let other_form = "# a comment\nname: chain\nstages:\n  other:\n    learning_rate: 2.0\n    kind: work\n  data: { kind: source }\n  base: { kind: work, dataset: data }\n  next: { kind: work, dataset: base }\n";
    let project = project.file("p.yaml", other_form);
    assert_eq!(run(&project, false).summary.skipped.len(), 4);
    let project =
        project.file("p.yaml", &CHAIN.replace("kind: source", "kind: source, learning_rate: 7"));
    assert_eq!(run(&project, false).planned, ["data run", "base run", "next run", "other skip"]);
}

#[test]
fn what_follows_a_content_runs_again_only_for_another_content() {
    let chain = |epochs: u32, content: &str| {
        format!(
            "name: chain\nstages:\n  data: {{ kind: source }}\n  base: {{ kind: work, dataset: data, epochs: {epochs}, content: {content} }}\n  next: {{ kind: follow, dataset: base }}\n  last: {{ kind: follow, dataset: next }}\n"
        )
    };
    let project = Project::new(&chain(5, "a"));
    assert_eq!(run(&project, false).summary.finished.len(), 4);

    // More epochs that bring nothing new: the plan cannot know, the execution finds out.
    let project = project.file("p.yaml", &chain(6, "a"));
    let ran = run(&project, false);
    assert_eq!(ran.planned, ["data run", "base resume at epoch 5/6", "next run", "last run"]);
    assert_eq!(names(ran.summary.finished.iter().map(|(id, _)| id)), ["data", "base"]);
    assert_eq!(names(&ran.summary.skipped), ["next", "last"]);

    let project = project.file("p.yaml", &chain(7, "b"));
    let ran = run(&project, false);
    assert_eq!(names(ran.summary.finished.iter().map(|(id, _)| id)), ["data", "base", "next"]);
    assert_eq!(names(&ran.summary.skipped), ["last"], "what next hands on is as before");
}

#[test]
fn a_stage_that_keeps_nothing_waits_until_it_is_needed() {
    let file = "name: chain\nstages:\n  base: { kind: work, content: a }\n  data: { kind: source }\n  next: { kind: follow, dataset: base, needs: data }\n";
    let project = Project::new(file);
    run(&project, false);
    let project = project.file("p.yaml", &file.replace("content: a", "content: a, epochs: 6"));
    let ran = run(&project, false);
    assert_eq!(ran.planned, ["base resume at epoch 5/6", "data run", "next run"]);
    assert_eq!(names(&ran.summary.skipped), ["next", "data"]);
}

#[test]
fn after_a_failure_only_the_rest_runs() {
    let failing = CHAIN.replace("dataset: data", "dataset: data, ends: fail");
    let project = Project::new(&failing);
    let ran = run(&project, false);
    assert_eq!(ran.summary.failed[0].1.failure, Failure::Input);
    assert_eq!(names(&ran.summary.not_begun), ["next", "other"]);
    let ran = run(&project, true);
    assert_eq!(
        names(&ran.summary.not_begun),
        ["next"],
        "keep-going reaches what does not depend on the failure"
    );
    let project = project.file("p.yaml", CHAIN);
    assert_eq!(run(&project, false).planned, ["data run", "base run", "next run", "other skip"]);
}

#[test]
fn an_interrupted_stage_is_resumed() {
    let project = Project::new(&CHAIN.replace("dataset: data", "dataset: data, ends: interrupt"));
    let ran = run(&project, true);
    assert_eq!(ran.stop.requested(), Some(Signal::Terminate));
    assert_eq!(
        names(&ran.summary.not_begun),
        ["next", "other"],
        "nothing begins after a signal, even when keeping going"
    );
    let project = project.file("p.yaml", CHAIN);
    assert_eq!(run(&project, false).planned[1], "base resume at epoch 2/5");
}

#[test]
fn a_panic_is_a_bug_with_the_stages_name() {
    let project = Project::new(&CHAIN.replace("dataset: data", "dataset: data, ends: panic"));
    let (_, error) = run(&project, false).summary.failed.remove(0);
    assert_eq!(error.failure, Failure::Bug);
    assert_eq!(error.message, "stage base broke off by a bug in this program: scripted panic");
}

fn single(keys: &str) -> Project {
    Project::new(&format!("name: chain\nstages:\n  base: {{ kind: work, {keys} }}\n"))
}

#[test]
fn a_failure_is_tried_again_as_the_policy_says() {
    // command, command, then well
    let project = single("ends: command command, retry: { max: 2, on: [command] }");
    let ran = run(&project, false);
    assert_eq!(ran.summary.finished.len(), 1, "{:?}", ran.summary.failed);
    assert_eq!(ran.heard.iter().filter(|l| l.contains("Retrying")).count(), 2);
    let record = record(&project, "base");
    assert_eq!((record.status, record.attempts.len()), (Status::Completed, 2));
    assert_eq!(record.attempts[0].message, "scripted command");

    let project = single("ends: command command, retry: { max: 1, on: [command] }");
    assert_eq!(run(&project, false).summary.failed[0].1.failure, Failure::Command);
    let project = single("ends: setting, retry: { max: 5 }");
    let ran = run(&project, false);
    assert!(!ran.heard.iter().any(|l| l.contains("Retrying")), "a bad setting stays bad");
}

#[test]
fn memory_and_devices_are_met_by_a_change() {
    let project = single("ends: out_of_memory out_of_memory device_lost");
    let ran = run(&project, false);
    assert_eq!(ran.summary.finished.len(), 1);
    let told: Vec<&String> =
        ran.heard.iter().filter(|l| l.contains("micro_batch_splits")).collect();
    assert!(told[3].contains("micro_batch_splits 2, lost 1"), "{told:?}");
    let changes: Vec<_> =
        record(&project, "base").attempts.iter().map(|a| a.change.unwrap().to_string()).collect();
    assert_eq!(
        changes,
        ["with half the micro-batch", "with half the micro-batch", "on another device"]
    );
}

#[test]
fn a_resumed_stage_remembers_its_micro_batches_and_a_new_run_does_not() {
    let project = single("ends: out_of_memory signal");
    run(&project, false);
    assert_eq!(record(&project, "base").micro_batch_splits, 1);
    let ran = run(&project, false);
    let told = ran.heard.iter().find(|l| l.contains("micro_batch_splits")).unwrap();
    assert!(told.contains("micro_batch_splits 1, lost 0"), "{told}");
    assert!(
        ran.heard[0].contains("interrupted; batches in 2 micro-batches as before"),
        "{:?}",
        ran.heard
    );
    let ran = run_with(&project, How { forced: &["base"], ..How::default() });
    assert!(ran.heard.iter().any(|l| l.contains("micro_batch_splits 0")), "{:?}", ran.heard);
}

#[test]
fn a_time_limit_stops_the_stage_and_leaves_what_was_done() {
    let project = single("ends: wait, timeout: 50ms");
    let ran = run(&project, false);
    let (_, error) = &ran.summary.failed[0];
    assert_eq!(
        (error.failure, error.message.as_str()),
        (Failure::Timeout, "stopped (timeout: 50ms)")
    );
    assert_eq!(ran.stop.requested(), None, "the others may go on");
    let project = project.file("p.yaml", "name: chain\nstages:\n  base: { kind: work }\n");
    assert_eq!(run(&project, false).planned, ["base resume at epoch 2/5"]);
}

#[test]
fn a_failure_that_others_may_outlive() {
    let file = "name: chain\nstages:\n  base: { kind: work, ends: fail, on_failure: continue }\n  next: { kind: work, dataset: base }\n  other: { kind: work, learning_rate: 2 }\n";
    let ran = run(&Project::new(file), false);
    assert_eq!(names(ran.summary.finished.iter().map(|(id, _)| id)), ["other"]);
    assert_eq!(names(&ran.summary.not_begun), ["next"]);
}

#[test]
fn resuming_can_be_forbidden_and_demanded() {
    let begun = |keys: &str| {
        let project = single("ends: interrupt");
        run(&project, false);
        project.file("p.yaml", &format!("name: chain\nstages:\n  base: {{ kind: work, {keys} }}\n"))
    };
    let attempts = |project: &Project| {
        std::fs::read_to_string(project.folder.path().join("base.attempts")).unwrap()
    };
    let project = begun("resume: never");
    let ran = run(&project, false);
    assert!(ran.heard.iter().any(|l| l.contains("resume: never")), "{:?}", ran.heard);
    assert_eq!(attempts(&project), "\nforced\n");
    let project = begun("resume: must");
    assert_eq!(run(&project, false).summary.finished.len(), 1);
    let ran = run(&single("resume: must"), false);
    assert_eq!(
        ran.summary.failed[0].1.message,
        "resume: must, and there is nothing to go on with: never run"
    );
}

#[test]
fn forced_stages_run_and_leave_the_others_alone() {
    let project = Project::new(CHAIN);
    run(&project, false);
    let ran = run_with(&project, How { forced: &["base"], ..How::default() });
    assert_eq!(names(ran.summary.finished.iter().map(|(id, _)| id)), ["data", "base"]);
    assert_eq!(names(&ran.summary.skipped), ["next", "other"]);
}

#[test]
fn independent_stages_run_at_once() {
    // Each waits until the other one has begun.
    let file = "name: chain\nstages:\n  left: { kind: work, ends: meet, resources: { gpu: 1 } }\n  right: { kind: work, ends: meet, resources: { gpu: 1 } }\n";
    let project = Project::new(file);
    let ran = run_with(&project, How { jobs: 2, gpus: 2, ..How::default() });
    assert_eq!(ran.summary.finished.len(), 2);
    let told = |piece: &str| ran.heard.iter().any(|l| l.contains(piece));
    assert!(
        told("gpu Some(0)") && told("gpu Some(1)"),
        "each has a GPU of its own: {:?}",
        ran.heard
    );
}

#[test]
fn stages_that_share_a_gpu_wait_for_each_other() {
    let file = "name: chain\nstages:\n  left: { kind: work, resources: { gpu: 1 } }\n  right: { kind: work, resources: { gpu: 1 } }\n";
    let project = Project::new(file);
    let ran = run_with(&project, How { jobs: 2, gpus: 1, ..How::default() });
    let order: Vec<&str> = ran
        .heard
        .iter()
        .filter(|l| l.contains("Started") || l.contains("Finished"))
        .map(|l| l.split_whitespace().next().unwrap())
        .collect();
    assert_eq!(order, ["left:", "left:", "right:", "right:"]);
}

#[test]
fn a_stage_that_another_process_runs_is_left_to_it() {
    let project = single("learning_rate: 1");
    let lock = lock_stage(&project.root, "chain", &id_of("base")).unwrap().unwrap();
    let ran = run(&project, false);
    let text = &ran.summary.failed[0].1.message;
    assert!(text.contains(&format!("pid {}", std::process::id())), "{text}");
    drop(lock);
    assert_eq!(run(&project, false).summary.finished.len(), 1);
}

#[test]
fn what_keeps_nothing_waits_for_the_process_that_makes_it_ready() {
    let project = Project::new(CHAIN);
    let lock = lock_stage(&project.root, "chain", &id_of("data")).unwrap().unwrap();
    let ran = std::thread::scope(|scope| {
        let running = scope.spawn(|| run(&project, false));
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert!(!running.is_finished());
        assert!(!project.folder.path().join("data.attempts").exists(), "it waits");
        drop(lock);
        running.join().unwrap()
    });
    assert_eq!(ran.summary.finished.len(), 4, "{:?}", ran.summary.failed);
}

#[test]
fn a_matrix_is_several_stages() {
    let file = "name: chain\nparams: { rates: [0.001, 0.0001] }\nstages:\n  data: { kind: source }\n  base:\n    kind: work\n    dataset: data\n    matrix: { learning_rate: \"${params.rates}\", checkpoint.keep_last_n: [1, 2] }\n  best: { kind: gather, dataset: base }\n  one: { kind: follow, dataset: \"base@checkpoint.keep_last_n=2,learning_rate=0.001\" }\n  after: { kind: work, needs: base }\n";
    let project = Project::new(file);
    let ran = run(&project, false);
    assert_eq!(ran.summary.finished.len(), 8, "{:?}", ran.summary.failed);
    let graph = project.load().unwrap();
    let base = graph.stage(&id_of("base@checkpoint.keep_last_n=2,learning_rate=0.0001")).unwrap();
    assert_eq!(base.stage.settings()["learning_rate"], 0.0001);
    assert_eq!(base.stage.settings()["checkpoint"]["keep_last_n"], 2);
    let told = ran.heard.iter().find(|l| l.starts_with("best: Message")).unwrap();
    assert_eq!(told.matches("dataset.base@checkpoint.keep_last_n=").count(), 4, "{told}");
    assert_eq!(graph.dependencies(&id_of("after")).len(), 4);
    let again = run(&project, false);
    assert_eq!(again.summary.skipped.len(), 8, "{:?}", again.planned);

    let error = Project::new(&file.replace("kind: gather", "kind: work")).error();
    assert!(
        error.contains("`base` is a matrix of 4 stages") && error.contains("select_best"),
        "{error}"
    );
    let error = Project::new(&file.replace("[1, 2]", "[1, 1]")).error();
    assert!(error.contains("comes out more than once"), "{error}");
}

#[test]
fn what_chooses_among_several_does_without_those_that_failed() {
    let file = |ends: &str, policy: &str| {
        format!(
            "name: chain\nstages:\n  base: {{ kind: work, matrix: {{ ends: [{ends}] }}{policy} }}\n  best: {{ kind: gather, dataset: base }}\n  after: {{ kind: follow, dataset: best }}\n"
        )
    };
    for (policy, keep_going) in [("", true), (", on_failure: continue", false)] {
        let project = Project::new(&file("fail, succeed", policy));
        let ran = run(&project, keep_going);
        let finished = names(ran.summary.finished.iter().map(|(id, _)| id));
        assert_eq!(finished, ["base@ends=succeed", "best", "after"], "{:?}", ran.heard);
        let told = |piece: &str| {
            ran.heard.iter().any(|line| line.starts_with("best:") && line.contains(piece))
        };
        assert!(told("base@ends=fail failed and is passed over"), "{:?}", ran.heard);
        assert!(told("inputs dataset.base@ends=succeed\""), "{:?}", ran.heard);
        let again = run(&project, keep_going);
        assert_eq!(names(again.summary.failed.iter().map(|(id, _)| id)), ["base@ends=fail"]);
        assert_eq!(names(&again.summary.skipped), ["base@ends=succeed", "best", "after"]);
    }
    let ran = run(&Project::new(&file("fail, succeed", "")), false);
    assert_eq!(names(&ran.summary.not_begun), ["base@ends=succeed", "best", "after"]);
    let ran = run(&Project::new(&file("fail, panic", "")), true);
    assert_eq!(names(&ran.summary.not_begun), ["best", "after"], "none is left");
    let needs = file("fail, succeed", "").replace("dataset: base", "dataset: base, needs: base");
    assert_eq!(names(&run(&Project::new(&needs), true).summary.not_begun), ["best", "after"]);
}

#[test]
fn events_and_records_are_kept() {
    let project = Project::new(CHAIN);
    run(&project, false);
    let events = std::fs::read_to_string(project.folder.path().join(".pipe/events.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> =
        events.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert!(
        lines
            .iter()
            .all(|l| l["time"].is_string() && l["pipeline"] == "chain" && l["stage"].is_string())
    );
    assert!(lines.iter().any(|l| l["event"] == "finished" && l["stage"] == "next"));
    let record = record(&project, "next");
    assert_eq!((record.status, record.kind.as_str()), (Status::Completed, "work"));
    assert_eq!(record.message.as_deref(), Some("done"));
}

#[test]
fn ways_to_carry_a_stage_out_can_be_named() {
    let file = "name: chain\npolicies:\n  retry: { patient: { max: 2 } }\n  timeout: { short: 50ms, long: 2h }\n  resume: { strict: must }\nstages:\n  base: { kind: work, ends: command command, retry: patient, timeout: long }\n";
    let project = Project::new(file);
    assert_eq!(run(&project, false).summary.finished.len(), 1);
    let ran = run(
        &Project::new(
            &file.replace("command command", "wait").replace("timeout: long", "timeout: short"),
        ),
        false,
    );
    assert_eq!(ran.summary.failed[0].1.failure, Failure::Timeout);
    let ran = run(&Project::new(&file.replace("timeout: long", "resume: strict")), false);
    assert!(ran.summary.failed[0].1.message.starts_with("resume: must"));
    let refused = |from: &str, to: &str| Project::new(&file.replace(from, to)).error();
    assert!(refused("retry: patient", "retry: patiant").contains("did you mean `patient`?"));
    assert!(
        refused("timeout: long", "timeout: 5").contains("stages.base.timeout: expected"),
        "{}",
        refused("timeout: long", "timeout: 5")
    );
    assert!(refused("max: 2", "most: 2").contains("policies.retry.patient.most: unknown key"));
    assert!(refused("timeout: long", "timeout: 3 parsecs").contains("expected a time such as"));
    assert!(
        refused("timeout: long", "on_failure: ignore").contains("expected one of: stop, continue")
    );
}

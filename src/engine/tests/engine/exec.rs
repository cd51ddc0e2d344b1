//! Carrying plans out: order, failures, interruption, panics, going on afterwards.

use pipe_engine::exec::{Execution, Summary, execute, observe};
use pipe_engine::identity;
use pipe_engine::kind::{Failure, Request};
use pipe_engine::plan::plan;
use pipe_engine::stop::{Signal, Stop};

use crate::fake::{Heard, Project};

const CHAIN: &str = "\
name: chain
stages:
  data: { kind: source }
  base: { kind: work, dataset: data }
  next: { kind: work, dataset: base }
  other: { kind: work, learning_rate: 2 }
";

struct Ran {
    summary: Summary,
    heard: Vec<String>,
    stop: Stop,
    planned: Vec<String>,
}

fn run(project: &Project, keep_going: bool) -> Ran {
    let graph = project.load().unwrap_or_else(|e| panic!("{e}"));
    let (stop, heard) = (Stop::default(), Heard::default());
    let manifests = identity::manifests(&graph);
    let execution = Execution {
        root: project.folder.path(),
        graph: &graph,
        manifests: &manifests,
        request: Request::default(),
        keep_going,
        stop: &stop,
        report: &heard,
    };
    let selected = graph.select(&[]).unwrap();
    let observed = observe(&execution, &selected).unwrap();
    let plan = plan(&graph, &selected, &observed);
    let planned = plan.steps.iter().map(|s| format!("{} {}", s.stage, s.action)).collect();
    let summary = execute(&execution, &plan, observed);
    Ran { summary, heard: heard.0.into_inner().unwrap(), stop, planned }
}

fn names<'a, T: std::fmt::Display + 'a>(ids: impl IntoIterator<Item = &'a T>) -> Vec<String> {
    ids.into_iter().map(|id| id.to_string()).collect()
}

#[test]
fn a_second_run_has_nothing_to_do() {
    let project = Project::new(CHAIN);
    let first = run(&project, false);
    assert_eq!(names(first.summary.finished.iter().map(|(id, _)| id)), ["data", "base", "next", "other"]);
    assert!(!first.heard.iter().any(|line| line.contains("no artifact")), "artifacts reach the next stage");
    let second = run(&project, false);
    assert_eq!(names(&second.summary.skipped), ["data", "base", "next", "other"]);
}

#[test]
fn comments_and_order_change_nothing_a_setting_does() {
    let project = Project::new(CHAIN);
    run(&project, false);
    let other_form = "# a comment\nname: chain\nstages:\n  other:\n    learning_rate: 2.0\n    kind: work\n  data: { kind: source }\n  base: { kind: work, dataset: data }\n  next: { kind: work, dataset: base }\n";
    let project = project.file("p.yaml", other_form);
    assert_eq!(run(&project, false).summary.skipped.len(), 4);
    let project = project.file("p.yaml", &CHAIN.replace("kind: source", "kind: source, learning_rate: 7"));
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

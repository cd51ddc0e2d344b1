//! Plans are pure: a graph and states in, steps out.

use std::collections::{BTreeSet, HashMap};

use pipe_engine::exec::InspectedStage;
use pipe_engine::graph::{Graph, Selection, Targets};
use pipe_engine::identity::Difference;
use pipe_engine::kind::{Artifact, Inspection, StageId, StageState};
use pipe_engine::plan::plan;

use crate::fake::Project;

type States = HashMap<StageId, InspectedStage>;

// data -> base -> left  -> last
//            \--> right -/
const DIAMOND: &str = "\
name: diamond
stages:
  last: { kind: work, needs: [left, right] }
  data: { kind: source }
  base: { kind: work, dataset: data }
  right: { kind: work, dataset: base }
  left: { kind: work, dataset: base }
";

fn done() -> StageState {
    StageState::Done { reason: "up to date".into() }
}

fn absent() -> StageState {
    StageState::absent("never run")
}

fn seen(observation: impl Into<Inspection>) -> InspectedStage {
    InspectedStage {
        inspection: observation.into(),
        identity: "sha256:1".into(),
        record: None,
        confirmed: None,
        round: None,
    }
}

/// Everything done but some stages, whose states are given.
fn with(states: &[(&str, StageState)]) -> States {
    let mut all: States =
        HashMap::from([(StageId::new("data").unwrap(), seen(StageState::Transient))]);
    for id in ["base", "left", "right", "last"] {
        all.insert(StageId::new(id).unwrap(), seen(done()));
    }
    for (id, state) in states {
        all.insert(StageId::new(id).unwrap(), seen(state.clone()));
    }
    all
}

fn select(graph: &Graph, targets: &[&str]) -> Selection {
    let until = targets.iter().map(|t| t.to_string()).collect();
    graph.select(&Targets { until, from: Vec::new() }).unwrap_or_else(|e| panic!("{e}"))
}

/// The plan as `stage action` words.
fn planned(graph: &Graph, targets: &[&str], states: &[(&str, StageState)]) -> Vec<String> {
    let all = with(states);
    plan(graph, &select(graph, targets), &BTreeSet::new(), &all)
        .steps
        .iter()
        .map(|s| format!("{} {}", s.stage, s.action))
        .collect()
}

fn graph() -> Graph {
    Project::new(DIAMOND).load().unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn dependencies_come_first_otherwise_the_file_decides() {
    let order: Vec<String> = graph().stages().map(|s| s.id.to_string()).collect();
    assert_eq!(order, ["data", "base", "right", "left", "last"]);
}

#[test]
fn nothing_runs_when_all_is_done() {
    assert_eq!(
        planned(&graph(), &[], &[]),
        ["data skip", "base skip", "right skip", "left skip", "last skip"]
    );
}

#[test]
fn what_follows_a_running_stage_runs_too() {
    let all = ["data run", "base run", "right run", "left run", "last run"];
    assert_eq!(planned(&graph(), &[], &[("base", absent())]), all);
    let side = ["data skip", "base skip", "right skip", "left run", "last run"];
    assert_eq!(planned(&graph(), &[], &[("left", absent())]), side);
}

#[test]
fn an_old_output_is_never_taken_for_a_future_one() {
    let graph = graph();
    let mut states = with(&[]);
    // As a stage whose file is missing and whose content is known already.
    let artifact = Some(Artifact::new((), Some("as before".into())));
    states.insert(StageId::new("base").unwrap(), seen(Inspection::new(absent(), artifact)));
    let plan = plan(&graph, &select(&graph, &[]), &BTreeSet::new(), &states);
    let on = |stage: &str| {
        let step = plan.steps.iter().find(|step| step.stage.as_str() == stage).unwrap();
        (step.action.to_string(), step.depends_on.as_ref().map(StageId::to_string))
    };
    assert_eq!(on("base"), ("run".into(), None));
    assert_eq!(on("left"), ("run".into(), Some("base".into())));
    assert_eq!(on("right"), ("run".into(), Some("base".into())));
    assert_eq!(on("last"), ("run".into(), Some("right".into())));
}

#[test]
fn what_keeps_nothing_passes_on_that_something_ran() {
    let file = "name: chain\nstages:\n  left: { kind: work }\n  data: { kind: source, needs: left }\n  more: { kind: source, needs: data }\n  base: { kind: work, dataset: more }\n";
    let graph = Project::new(file).load().unwrap_or_else(|e| panic!("{e}"));
    let state = |id: &str, state: StageState| (StageId::new(id).unwrap(), seen(state));
    let states = HashMap::from([
        state("left", absent()),
        state("data", StageState::Transient),
        state("more", StageState::Transient),
        state("base", done()),
    ]);
    let plan = plan(&graph, &select(&graph, &[]), &BTreeSet::new(), &states);
    let last = plan.steps.last().unwrap();
    assert_eq!(
        (last.action.to_string(), last.reason.as_str()),
        ("run".into(), "left runs before it")
    );
    assert_eq!(last.depends_on, StageId::new("left"));
}

#[test]
fn a_stage_that_another_one_may_mend_is_not_said_to_run_for_certain() {
    let graph = graph();
    let change = |key: &str| {
        StageState::changed(vec![Difference { key: key.into(), old: None, new: Some(1.into()) }])
    };
    let on = |state: StageState| {
        let states = with(&[("base", absent()), ("left", state)]);
        let plan = plan(&graph, &select(&graph, &[]), &BTreeSet::new(), &states);
        let step = plan.steps.iter().find(|step| step.stage.as_str() == "left").unwrap();
        step.depends_on.is_some()
    };
    assert!(on(change("a.txt")), "a file that it reads");
    assert!(on(partial()));
    assert!(!on(change("learning_rate")), "a setting of its own");
    assert!(!on(absent()), "it never ran");
}

#[test]
fn partial_and_extendable_stages_say_how_far() {
    let partial = StageState::Partial { done: 12, total: 20, reason: "stopped by SIGTERM".into() };
    assert_eq!(
        planned(&graph(), &["base"], &[("base", partial)]),
        ["data run", "base resume at epoch 12/20"]
    );
    let more = StageState::Extendable { from: 10, to: 20 };
    assert_eq!(
        planned(&graph(), &["base"], &[("base", more)]),
        ["data run", "base extend 10 -> 20"]
    );
}

#[test]
fn a_target_brings_only_what_it_needs() {
    assert_eq!(
        planned(&graph(), &["left"], &[("right", absent())]),
        ["data skip", "base skip", "left skip"]
    );
    assert_eq!(planned(&graph(), &["data"], &[]), ["data run"]);
    let wrong = Targets { until: vec!["lft".into()], from: Vec::new() };
    assert!(graph().select(&wrong).unwrap_err().to_string().contains("did you mean `left`?"));
}

#[test]
fn from_and_until_cut_the_graph() {
    let graph = graph();
    let selected = |until: &[&str], from: &[&str]| {
        let names = |of: &[&str]| of.iter().map(|t| t.to_string()).collect();
        let selection = graph.select(&Targets { until: names(until), from: names(from) }).unwrap();
        let join =
            |ids: BTreeSet<StageId>| ids.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(" ");
        (join(selection.stages.into_iter().collect()), join(selection.named))
    };
    let all = "base data last left right";
    assert_eq!(selected(&[], &[]), (all.into(), all.into()));
    assert_eq!(selected(&["left"], &[]), ("base data left".into(), "left".into()));
    assert_eq!(selected(&[], &["left"]), (all.into(), "left".into()), "last needs right too");
    assert_eq!(selected(&["right"], &["base"]), ("base data right".into(), "base right".into()));
    assert_eq!(selected(&["right"], &["left"]).0, "", "nothing lies between");
}

#[test]
fn the_graph_is_drawn_in_three_ways() {
    let graph = graph();
    assert_eq!(
        graph.to_text(),
        "data   source\nbase   work  <- data\nright  work  <- base\nleft   work  <- base\nlast   work  <- right, left\n"
    );
    assert!(graph.to_dot().contains("\"data\" -> \"base\" [label=\"dataset\"];"));
    assert!(graph.to_mermaid().contains("base -->|dataset| left"));
}

/// `stage: action, reason` for every stage, given the states of some.
fn table(forced: &[&str], states: &[(&str, StageState)]) -> Vec<String> {
    let graph = graph();
    let all = with(states);
    let forced = forced.iter().map(|id| StageId::new(id).unwrap()).collect();
    let plan = plan(&graph, &select(&graph, &[]), &forced, &all);
    plan.steps.iter().map(|s| format!("{}: {}, {}", s.stage, s.action, s.reason)).collect()
}

#[test]
fn every_action_has_its_reason() {
    // data -> base -> left  -> last
    //            \--> right -/
    const IDLE: &str = "data: skip, nothing that runs needs it";
    type Case<'a> = (&'a str, &'a [&'a str], Vec<(&'a str, StageState)>, [&'a str; 5]);
    let cases: [Case; 7] = [
        (
            "all is done",
            &[],
            vec![],
            [
                IDLE,
                "base: skip, up to date",
                "right: skip, up to date",
                "left: skip, up to date",
                "last: skip, up to date",
            ],
        ),
        (
            "base was never run",
            &[],
            vec![("base", absent())],
            [
                "data: run, base needs it",
                "base: run, never run",
                "right: run, base runs before it",
                "left: run, base runs before it",
                "last: run, right runs before it",
            ],
        ),
        (
            "base has another learning rate",
            &[],
            vec![("base", StageState::changed(vec![rate()]))],
            [
                "data: run, base needs it",
                "base: run, learning_rate 0.001 -> 0.0001",
                "right: run, base runs before it",
                "left: run, base runs before it",
                "last: run, right runs before it",
            ],
        ),
        (
            "left was interrupted",
            &[],
            vec![("left", partial())],
            [
                IDLE,
                "base: skip, up to date",
                "right: skip, up to date",
                "left: resume at epoch 12/20, stopped by SIGTERM",
                "last: run, left runs before it",
            ],
        ),
        (
            "base is to have more epochs",
            &[],
            vec![("base", StageState::Extendable { from: 10, to: 20 })],
            [
                "data: run, base needs it",
                "base: extend 10 -> 20, more epochs of the same run",
                "right: run, base runs before it",
                "left: run, base runs before it",
                "last: run, right runs before it",
            ],
        ),
        (
            "last is forced",
            &["last"],
            vec![],
            [
                IDLE,
                "base: skip, up to date",
                "right: skip, up to date",
                "left: skip, up to date",
                "last: run, forced",
            ],
        ),
        (
            "base is forced and was interrupted",
            &["base"],
            vec![("base", partial())],
            [
                "data: run, base needs it",
                "base: run, forced",
                "right: run, base runs before it",
                "left: run, base runs before it",
                "last: run, right runs before it",
            ],
        ),
    ];
    for (what, forced, states, expected) in cases {
        assert_eq!(table(forced, &states), expected, "{what}");
    }
}

fn partial() -> StageState {
    StageState::Partial { done: 12, total: 20, reason: "stopped by SIGTERM".into() }
}

fn rate() -> Difference {
    Difference { key: "learning_rate".into(), old: Some(0.001.into()), new: Some(0.0001.into()) }
}

#[test]
fn a_digest_is_told_by_its_first_digits_and_two_by_what_they_are_of() {
    use pipe_engine::identity::{Difference, short_digest};

    let digits = "0123456789abcdef".repeat(4);
    for kind in ["", "sha256:", "blake3:", "blake3-head:"] {
        assert_eq!(short_digest(&format!("{kind}{digits}")), format!("{kind}0123456789ab"));
    }
    for text in ["", "a:b", "sha256:1", &format!("{digits}0"), &format!("x{digits}")] {
        assert_eq!(short_digest(text), text);
    }
    let difference = Difference {
        key: "from".into(),
        old: Some(format!("blake3-head:{digits}").into()),
        new: Some("plain".into()),
    };
    assert_eq!(difference.to_string(), "from blake3-head:0123456789ab -> plain");
    let other = Some(format!("blake3-head:{}", "9".repeat(64)).into());
    let changed = Difference { new: other, ..difference };
    assert_eq!(changed.to_string(), "another content of from");
}

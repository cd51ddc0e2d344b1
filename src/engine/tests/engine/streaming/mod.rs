//! Stages that take what another one makes while that makes it: when they begin and end, what they
//! decide, and what becomes of both when one of them fails.

mod scripted;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pipe_core::error::SpecErrors;
use pipe_core::stop::{Signal, Stop};
use pipe_engine::exec::{Execution, RunsElsewhere, Summary, execute, inspect};
use pipe_engine::graph::{Graph, Targets};
use pipe_engine::identity;
use pipe_engine::kind::*;
use pipe_engine::pipeline_file;
use pipe_engine::plan::{Plan, plan};
use pipe_engine::state::Record;
use pipe_fs::ProjectRoot;

use self::scripted::{Kind, What, parts, write};
use crate::fake::{FakeFiles, Heard, Project};

fn load(project: &Project) -> Result<Graph, SpecErrors> {
    let kinds: Vec<Arc<dyn StageKind>> = vec![
        Arc::new(Kind("make", What::Make)),
        Arc::new(Kind("watch", What::Watch)),
        Arc::new(Kind("take", What::Take)),
    ];
    let root = project.folder.path();
    Graph::build(pipeline_file::load(root, Path::new("p.yaml"), &kinds, &project.sets)?)
}

#[derive(Default)]
struct How<'a> {
    gpus: u32,
    until: &'a [&'a str],
    elsewhere: Option<&'a dyn RunsElsewhere>,
    /// The stages whose steps are left out, since another process runs them.
    without: &'a [&'a str],
    stop: Option<&'a Stop>,
}

struct Ran {
    summary: Summary,
    heard: Vec<String>,
    plan: Plan,
}

impl Ran {
    fn finished(&self) -> Vec<&str> {
        let mut all: Vec<&str> = self.summary.finished.iter().map(|(id, _)| id.as_str()).collect();
        all.sort_unstable();
        all
    }

    fn failed(&self) -> Vec<String> {
        let told = |(id, error): &(StageId, StageError)| format!("{id}: {}", error.message);
        let mut all: Vec<String> = self.summary.failed.iter().map(told).collect();
        all.sort_unstable();
        all
    }

    fn not_begun(&self) -> Vec<&str> {
        self.summary.not_begun.iter().map(StageId::as_str).collect()
    }

    fn place(&self, event: &str) -> usize {
        let found = self.heard.iter().position(|line| line.starts_with(event));
        found.unwrap_or_else(|| panic!("{event} in {:#?}", self.heard))
    }
}

fn run(project: &Project, how: How) -> Ran {
    let graph = load(project).unwrap_or_else(|e| panic!("{e}"));
    let (own, heard) = (Stop::default(), Heard::default());
    let manifests = identity::manifests(&graph);
    let execution = Execution {
        formats: &FakeFiles,
        gpus: how.gpus,
        elsewhere: how.elsewhere,
        ..Execution::new(&project.root, &graph, &manifests, how.stop.unwrap_or(&own), &heard)
    };
    let until = how.until.iter().map(|name| (*name).to_owned()).collect();
    let selection = graph.select(&Targets { until, ..Targets::default() }).unwrap();
    let observed = inspect(&execution, &selection.stages).unwrap();
    let mut plan = plan(&graph, &selection, &Default::default(), &observed);
    plan.steps.retain(|step| !how.without.contains(&step.stage.as_str()));
    let summary = execute(&execution, &plan, observed).unwrap();
    Ran { summary, heard: heard.0.into_inner().unwrap(), plan }
}

const JUDGED: &str = "\
name: p
stages:
  base: { kind: make, parts: 4, judge: quality, waits_for: quality }
  quality: { kind: watch, from: base, values: [1, 9, 3, 2] }
  best: { kind: take, from: base }
";

#[test]
fn a_stage_looks_at_each_part_while_the_other_one_runs() {
    let project = Project::new(JUDGED);
    let ran = run(&project, How::default());
    assert_eq!(ran.failed(), Vec::<String>::new());
    assert_eq!(ran.finished(), ["base", "best", "quality"]);
    assert_eq!(parts(&project.root, "quality"), [1, 2, 3, 4]);
    assert!(ran.place("quality: Started") < ran.place("base: Finished"));
    assert!(ran.place("base: Finished") < ran.place("quality: Finished"));
    assert_eq!(parts(&project.root, "best"), [2], "what the judge has chosen in the end");

    let again = run(&project, How::default());
    assert_eq!(again.summary.skipped.len(), 3, "{:?}", again.plan);

    // More of the same: what is new is looked at, and a better part goes to whoever takes it.
    let more = Project { sets: Vec::new(), ..project }
        .set("base.parts=6")
        .set("quality.values=[1, 9, 3, 2, 5, 11]");
    let ran = run(&more, How::default());
    let reasons: Vec<&str> = ran.plan.steps.iter().map(|step| step.reason.as_str()).collect();
    assert_eq!(reasons[1], "not all is there");
    assert_eq!(parts(&more.root, "best"), [6]);
}

#[test]
fn whoever_takes_what_is_judged_waits_for_both() {
    let project = Project::new(JUDGED);
    let graph = load(&project).unwrap();
    let needs = |name: &str| -> Vec<&str> {
        let needed = graph.dependencies(&StageId::new(name).unwrap());
        needed.into_iter().map(|(_, stage)| stage.id.as_str()).collect()
    };
    assert_eq!(needs("best"), ["base", "quality"]);
    assert_eq!(needs("quality"), ["base"]);
    let selected = |name: &str| {
        let until = vec![name.to_owned()];
        let all = graph.select(&Targets { until, ..Targets::default() }).unwrap().stages;
        let mut all: Vec<String> = all.iter().map(ToString::to_string).collect();
        all.sort();
        all
    };
    assert_eq!(selected("base"), ["base", "quality"], "it is nothing without its judge");
    assert_eq!(selected("best"), ["base", "best", "quality"]);
}

#[test]
fn a_stage_that_nobody_waits_for_is_no_part_of_another_s() {
    let pipeline = "name: p\nstages:\n  base: { kind: make }\n  look: { kind: watch, from: base }\n  \
                    last: { kind: take, from: base }\n";
    let project = Project::new(pipeline);
    let graph = load(&project).unwrap();
    let until = vec!["last".to_owned()];
    assert_eq!(graph.select(&Targets { until, ..Targets::default() }).unwrap().stages.len(), 2);
    let ran = run(&project, How { until: &["last"], ..How::default() });
    assert_eq!(ran.finished(), ["base", "last"]);
    let ran = run(&project, How::default());
    assert_eq!((ran.finished(), ran.summary.skipped.len()), (vec!["look"], 2));
    assert_eq!(parts(&project.root, "look"), [1, 2, 3], "also after the other one has ended");
}

#[test]
fn one_that_follows_beside_a_judge_ends_after_it_and_takes_no_turn_of_its() {
    let pipeline = JUDGED.replace("  best:", "  other: { kind: watch, from: base }\n  best:");
    let pipeline = pipeline
        .replace("kind: watch, from: base, values", "kind: watch, from: base, slow: true, values");
    let project = Project::new(&pipeline);
    let ran = run(&project, How::default());
    assert_eq!(ran.failed(), Vec::<String>::new());
    assert!(ran.place("quality: Finished") < ran.place("other: Finished"));
    // With the maker up to date, one job at a time, and the judge begun after it in the file.
    for stage in ["quality", "other"] {
        std::fs::remove_file(project.root.join(format!("{stage}.parts"))).unwrap();
    }
    let ran = run(&project, How::default());
    assert_eq!(ran.finished(), ["other", "quality"]);
    assert!(ran.place("quality: Finished") < ran.place("other: Finished"));
}

#[test]
fn a_failure_of_either_ends_both_and_nothing_behind_them_begins() {
    let of_base = ["base: scripted failure", "quality: stage base failed"].as_slice();
    let of_quality = ["quality: scripted failure"].as_slice();
    for (set, failed) in [("base.fails_at=3", of_base), ("quality.fails_at=3", of_quality)] {
        // Where nobody looks any more nothing waits for that.
        let project = Project::new(JUDGED).set(set).set("base.waits_for=null");
        let ran = run(&project, How::default());
        assert_eq!(ran.failed(), failed, "{set}");
        assert_eq!(ran.not_begun(), ["best"], "{set}");
        assert_eq!(parts(&project.root, "quality"), [1, 2], "{set}");

        let mended = Project { sets: Vec::new(), ..project };
        let ran = run(&mended, How::default());
        assert_eq!(ran.failed(), Vec::<String>::new(), "{set}");
        assert_eq!(parts(&mended.root, "quality"), [1, 2, 3, 4], "{set}");
        assert_eq!(parts(&mended.root, "best"), [2], "{set}");
    }
}

#[test]
fn a_stage_s_places_are_known_as_its_own_until_it_has_ended_well() {
    let project = Project::new(JUDGED).set("quality.fails_at=2").set("base.waits_for=null");
    let places = |project: &Project| {
        let quality = StageId::new("quality").unwrap();
        let record = Record::load(&ProjectRoot::from(&*project.root), "p", &quality).unwrap();
        record.places.into_iter().collect::<Vec<_>>()
    };
    run(&project, How::default());
    assert_eq!(places(&project), ["quality.parts", "quality/1", "quality/2"]);
    let other = Project { sets: Vec::new(), ..project };
    let other = other.set("quality.fails_at=3").set("base.waits_for=null");
    run(&other, How::default());
    assert_eq!(places(&other), ["quality.parts", "quality/1", "quality/2", "quality/3"]);
    let mended = Project { sets: Vec::new(), ..other };
    assert_eq!(run(&mended, How::default()).failed(), Vec::<String>::new());
    assert_eq!(places(&mended), Vec::<String>::new());

    // One that is found done ends well without being run.
    let failed = Project::new(JUDGED).set("quality.fails_at=4").set("base.waits_for=null");
    run(&failed, How::default());
    assert!(!places(&failed).is_empty());
    write(&failed.root, "quality", &[1, 2, 3, 4]);
    let ran = run(&failed, How::default());
    assert!(ran.summary.skipped.iter().any(|stage| stage.as_str() == "quality"), "{:?}", ran.plan);
    assert_eq!(places(&failed), Vec::<String>::new());
}

#[test]
fn a_signal_ends_both() {
    let project = Project::new(JUDGED).set("base.waits_for=nobody");
    let stop = Stop::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while parts(&project.root, "quality").is_empty() {
                std::thread::sleep(Duration::from_millis(2));
            }
            stop.request(Signal::Terminate);
        });
        let ran = run(&project, How { stop: Some(&stop), ..How::default() });
        assert_eq!(ran.failed(), ["base: stopped", "quality: stopped"]);
    });
    let ran = run(&Project { sets: Vec::new(), ..project }, How::default());
    assert_eq!(ran.finished(), ["base", "best", "quality"]);
}

#[test]
fn a_forecast_ends_with_the_longer_of_both() {
    let project = Project::new(JUDGED);
    let graph = load(&project).unwrap();
    let ends = |quality: f64| -> Vec<f64> {
        let all = [("base", 10.0), ("quality", quality), ("best", 1.0)];
        let found = crate::forecast::of(&graph, &project, 1, &all);
        found.stages.iter().map(|stage| stage.ends_in.unwrap()).collect()
    };
    assert_eq!(ends(2.0), [10.0, 10.0, 11.0]);
    assert_eq!(ends(15.0), [10.0, 15.0, 16.0]);
}

#[test]
fn it_shares_the_gpu_where_there_is_no_other_one() {
    let pipeline = JUDGED.replace("kind: make,", "kind: make, resources: { gpu: 1 },");
    let pipeline = pipeline.replace("kind: watch,", "kind: watch, resources: { gpu: 1 },");
    for (gpus, told) in [(0, "gpu None"), (1, "gpu Some(0)"), (2, "gpu Some(1)")] {
        let ran = run(&Project::new(&pipeline), How { gpus, ..How::default() });
        assert_eq!(ran.failed(), Vec::<String>::new());
        let heard = ran.heard.iter().find(|line| line.contains("gpu ")).unwrap();
        assert!(heard.contains(told), "{gpus}: {heard}");
    }
}

#[test]
fn one_that_does_not_judge_is_no_judge() {
    let message = |from: &str, to: &str| {
        let project = Project::new(&JUDGED.replace(from, to));
        load(&project).err().unwrap().to_string()
    };
    let said = message("judge: quality", "judge: qualty");
    assert!(said.contains("no stage is called `qualty`"), "{said}");
    let said = message("judge: quality", "judge: best");
    assert!(said.contains("stage `best` does not judge what `base` makes"), "{said}");
    assert!(said.contains("a stage of kind `watch` judges"), "{said}");
}

struct Until(std::sync::atomic::AtomicBool);

impl RunsElsewhere for Until {
    fn is_live(&self, stage: &StageId) -> bool {
        assert_eq!(stage.as_str(), "base");
        self.0.load(std::sync::atomic::Ordering::SeqCst)
    }
}

#[test]
fn what_another_process_makes_is_looked_at_while_it_is_live() {
    let project = Project::new(JUDGED).set("base.waits_for=null");
    let live = Until(true.into());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for part in 1..=4u64 {
                let all: Vec<u64> = (1..=part).collect();
                write(&project.root, "base", &all);
                while !parts(&project.root, "quality").contains(&part) {
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
            live.0.store(false, std::sync::atomic::Ordering::SeqCst);
        });
        let how = How {
            elsewhere: Some(&live),
            until: &["quality"],
            without: &["base"],
            ..How::default()
        };
        let ran = run(&project, how);
        assert_eq!(ran.finished(), ["quality"]);
    });
    // One that came to no end is none to wait for.
    let project = Project::new(JUDGED);
    write(&project.root, "base", &[1, 2]);
    let how = How { until: &["quality"], without: &["base"], ..How::default() };
    assert_eq!(run(&project, how).failed(), ["quality: stage base did not come to its end"]);
    assert_eq!(parts(&project.root, "quality"), [1, 2]);
}

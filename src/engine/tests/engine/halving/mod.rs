//! Stages of a matrix that are halved: who goes on, what is trained, and that nothing is trained
//! twice whatever happens in between.

mod search;
mod trained;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use pipe_core::error::SpecErrors;
use pipe_core::stop::Stop;
use pipe_engine::exec::{Execution, Summary, execute, inspect};
use pipe_engine::graph::{Graph, Targets};
use pipe_engine::identity;
use pipe_engine::kind::*;
use pipe_engine::pipeline_file;
use pipe_engine::plan::{Plan, plan};

use self::search::{Search, expected, pipeline};
use self::trained::{Fuse, Gather, Train};
use crate::fake::{FakeFiles, Heard, Project};
use crate::random::Random;

fn load(project: &Project, fuse: &Fuse) -> Result<Graph, SpecErrors> {
    let kinds: Vec<Arc<dyn StageKind>> = vec![Arc::new(Train(fuse.clone())), Arc::new(Gather)];
    let root = project.folder.path();
    Graph::build(pipeline_file::load(root, Path::new("p.yaml"), &kinds, &project.sets)?)
}

struct How<'a> {
    jobs: usize,
    /// Epochs that are trained before a signal comes.
    fuse: i64,
    force: bool,
    until: &'a [&'a str],
}

const WHOLE: How = How { jobs: 1, fuse: i64::MAX, force: false, until: &[] };

struct Ran {
    summary: Summary,
    heard: Vec<String>,
    plan: Plan,
}

impl Ran {
    fn reason(&self, stage: &str) -> &str {
        let found = self.plan.steps.iter().find(|step| step.stage.as_str() == stage);
        &found.unwrap_or_else(|| panic!("no {stage}")).reason
    }
}

fn run(project: &Project, how: How) -> Ran {
    let fuse = Arc::new(AtomicI64::new(how.fuse));
    let graph = load(project, &fuse).unwrap_or_else(|e| panic!("{e}"));
    let (stop, heard) = (Stop::default(), Heard::default());
    let manifests = identity::manifests(&graph);
    let until = how.until.iter().map(|name| (*name).to_owned()).collect();
    let selection = graph.select(&Targets { until, ..Targets::default() }).unwrap();
    let forced = if how.force { selection.named.clone() } else { BTreeSet::new() };
    let root = project.root.clone().with_level(graph.pipeline.fsync);
    let execution = Execution {
        formats: &FakeFiles,
        jobs: how.jobs,
        forced: forced.clone(),
        ..Execution::new(&root, &graph, &manifests, &stop, &heard)
    };
    let observed = inspect(&execution, &selection.stages).unwrap();
    let plan = plan(&graph, &selection, &forced, &observed);
    let summary = execute(&execution, &plan, observed).unwrap();
    Ran { summary, heard: heard.0.into_inner().unwrap(), plan }
}

/// How often each epoch of each stage was trained.
fn trained(project: &Project) -> BTreeMap<(String, u64), usize> {
    let log = std::fs::read_to_string(project.folder.path().join(".trained")).unwrap_or_default();
    let mut all = BTreeMap::new();
    for line in log.lines() {
        let (stage, epoch) = line.split_once(' ').unwrap();
        *all.entry((stage.to_owned(), epoch.parse().unwrap())).or_default() += 1;
    }
    all
}

/// Epochs that stand of each stage.
fn epochs(project: &Project) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for (stage, epoch) in trained(project).into_keys() {
        let known = all.entry(stage).or_insert(0);
        *known = epoch.max(*known);
    }
    all
}

#[test]
fn a_search_carries_the_better_part_on_and_hands_all_over_in_the_end() {
    let rates: Vec<u64> = (1..=9).collect();
    let text = pipeline(&rates, "{ rungs: [2, 4, 8], keep: 1/3, monitor: loss }");
    let project = Project::new(&text);
    let ran = run(&project, WHOLE);
    assert!(ran.summary.failed.is_empty(), "{:?}", ran.summary.failed);
    let found = epochs(&project);
    assert_eq!(found, expected(&rates, &[2, 4, 8], (1, 3), false));
    assert!(trained(&project).values().all(|count| *count == 1));
    let gathered = std::fs::read_to_string(project.folder.path().join(".gathered")).unwrap();
    assert_eq!(gathered.lines().count(), 9, "{gathered}");
    let (best, _) = found.iter().find(|(_, epochs)| **epochs == 8).unwrap();
    let rate = best.strip_prefix("base@rate=").unwrap();
    assert!(gathered.contains(&format!("{best}: rate {rate} epoch 8")), "{gathered}");
    let told = |start: &str| ran.heard.iter().filter(|line| line.contains(start)).count();
    assert_eq!((told("goes on to epoch 4"), told("goes on to epoch 8")), (3, 1));
    assert_eq!((told("goes no further: "), told("th of 9 at epoch 2, loss 0.")), (8, 6));

    let again = run(&project, WHOLE);
    assert_eq!(again.summary.skipped.len(), 10, "{:?}", again.plan);
    let reached = "; rung 3 of 3, to the end, 1st of 1 at epoch 8, loss ";
    assert!(again.reason(best).contains(reached), "{}", again.reason(best));
    let out = found.iter().find(|(_, epochs)| **epochs == 2).unwrap().0;
    assert!(again.reason(out).contains("; halved out, "), "{}", again.reason(out));
}

#[test]
fn a_larger_share_a_further_rung_and_more_members_train_what_is_missing() {
    let (few, all): (Vec<u64>, Vec<u64>) = ((1..=6).collect(), (1..=9).collect());
    let project = Project::new(&pipeline(&few, "{ rungs: [2, 4], keep: 1/3, monitor: loss }"));
    run(&project, WHOLE);
    let first = epochs(&project);
    let changed = pipeline(&all, "{ rungs: [2, 4, 6], keep: 1/2, monitor: loss }");
    std::fs::write(project.folder.path().join("p.yaml"), changed).unwrap();
    let ran = run(&project, WHOLE);
    let wanted = expected(&all, &[2, 4, 6], (1, 2), false);
    for (stage, epochs) in epochs(&project) {
        let before = first.get(&stage).copied().unwrap_or(0);
        assert_eq!(epochs, wanted[&stage].max(before), "{stage}: {:#?}", ran.heard);
    }
    assert!(trained(&project).values().all(|count| *count == 1));
}

#[test]
fn one_that_fails_counts_as_last_and_ends_nothing_but_itself() {
    let text = "\
name: p
stages:
  base:
    kind: train
    matrix: { include: [{ rate: 1 }, { rate: 2, fails_in: 1 }, { rate: 3 }, { rate: 4, fails_in: 3 }] }
    halving: { rungs: [2, 4], keep: 0.5, monitor: loss }
  all: { kind: gather, over: base }
";
    let project = Project::new(text).file("broken", "");
    let ran = run(&project, WHOLE);
    let failed: Vec<&str> = ran.summary.failed.iter().map(|(id, _)| id.as_str()).collect();
    assert!(failed.contains(&"base@fails_in=1,rate=2"), "{failed:?}");
    let left = epochs(&project);
    assert_eq!(left.get("base@fails_in=1,rate=2"), None);
    assert!(left.values().filter(|epochs| **epochs == 4).count() >= 1, "{left:?}");
    let finished: Vec<&str> = ran.summary.finished.iter().map(|(id, _)| id.as_str()).collect();
    assert!(finished.contains(&"all"), "{finished:?}");
    // The one that got over its first rung failed all the same.
    assert!(failed.contains(&"base@fails_in=3,rate=4"), "{failed:?}");
    assert!(!failed.iter().any(|stage| finished.contains(stage)), "{finished:?}");
    // Mended, it is compared like the others.
    std::fs::remove_file(project.folder.path().join("broken")).unwrap();
    let ran = run(&project, WHOLE);
    assert!(ran.summary.failed.is_empty(), "{:?}", ran.summary.failed);
    assert_eq!(epochs(&project).len(), 4);
    assert!(trained(&project).values().all(|count| *count == 1));
}

#[test]
fn one_that_ended_by_itself_goes_on_without_a_further_epoch() {
    let text = "\
name: p
stages:
  base:
    kind: train
    ends_after: 3
    matrix: { rate: [1, 2, 3, 4] }
    halving: { rungs: [2, 4, 6], keep: 0.5, monitor: loss }
";
    let project = Project::new(text);
    let ran = run(&project, WHOLE);
    assert!(ran.summary.failed.is_empty() && ran.summary.not_begun.is_empty());
    let found = epochs(&project);
    assert_eq!(found.values().filter(|epochs| **epochs == 3).count(), 2, "{found:?}");
    let again = run(&project, WHOLE);
    assert_eq!(again.summary.skipped.len(), 4, "{:?}", again.plan);
}

#[test]
fn forced_members_begin_anew_and_go_on_as_usual() {
    let rates: Vec<u64> = (1..=4).collect();
    let project = Project::new(&pipeline(&rates, "{ rungs: [1, 3], keep: 1/2, monitor: loss }"));
    run(&project, WHOLE);
    let before = epochs(&project);
    let ran = run(&project, How { force: true, until: &["base"], ..WHOLE });
    assert!(ran.summary.failed.is_empty(), "{:?}", ran.summary.failed);
    assert_eq!(epochs(&project), before);
    assert!(trained(&project).values().all(|count| *count == 2), "{:?}", trained(&project));
}

#[test]
fn one_of_them_is_carried_on_with_all_of_them() {
    let rates: Vec<u64> = (1..=4).collect();
    let project = Project::new(&pipeline(&rates, "{ rungs: [1, 3], keep: 1/2, monitor: loss }"));
    run(&project, How { until: &["base@rate=3"], ..WHOLE });
    assert_eq!(epochs(&project), expected(&rates, &[1, 3], (1, 2), false));
}

#[test]
fn no_more_run_at_once_than_may() {
    let rates: Vec<u64> = (1..=12).collect();
    let rule = "{ rungs: [1, 2], keep: 1/2, monitor: loss, max_parallel: 2 }";
    let project = Project::new(&pipeline(&rates, rule));
    let ran = run(&project, How { jobs: 8, ..WHOLE });
    let (mut running, mut most) = (0i32, 0);
    for line in ran.heard.iter().filter(|line| line.starts_with("base@")) {
        running += i32::from(line.contains(": Started")) - i32::from(line.contains(": Finished"));
        most = most.max(running);
    }
    assert_eq!(most, 2, "{:#?}", ran.heard);
}

#[test]
fn searches_that_are_interrupted_and_changed_end_where_undisturbed_ones_do() {
    for seed in 0..60 {
        let random = &mut Random::new(seed + 1);
        let mut search = Search::drawn(random);
        let project = Project::new(&search.text());
        let mut before: BTreeMap<String, u64> = BTreeMap::new();
        for _ in 0..1 + random.below(3) {
            std::fs::write(project.folder.path().join("p.yaml"), search.text()).unwrap();
            let jobs = 1 + random.below(3);
            while random.below(3) > 0 {
                run(&project, How { fuse: random.below(12) as i64, jobs, ..WHOLE });
            }
            let ran = run(&project, How { jobs, ..WHOLE });
            assert!(ran.summary.failed.is_empty(), "seed {seed}: {:?}", ran.summary.failed);
            let wanted = expected(&search.rates, &search.rungs, search.keep, search.max);
            let found = epochs(&project);
            for (stage, epochs) in &found {
                let least = before.get(stage).copied().unwrap_or(0);
                let wanted = wanted.get(stage).copied().unwrap_or(0);
                assert_eq!(*epochs, wanted.max(least), "seed {seed}, {stage}: {}", search.text());
            }
            assert_eq!(found.len(), search.rates.len());
            let twice: Vec<_> =
                trained(&project).into_iter().filter(|(_, count)| *count > 1).collect();
            assert!(twice.is_empty(), "seed {seed}: trained twice: {twice:?}");
            let again = run(&project, WHOLE);
            assert_eq!(again.summary.skipped.len(), found.len() + 1, "seed {seed}");
            before = found;
            search.change(random);
        }
    }
}

#[test]
fn asynchronous_searches_train_nothing_twice_and_keep_what_was_decided() {
    for seed in 0..40 {
        let random = &mut Random::new(seed + 1000);
        let search = Search { asynchronous: true, ..Search::drawn(random) };
        let project = Project::new(&search.text());
        let jobs = 1 + random.below(4);
        let mut known: BTreeMap<String, u64> = BTreeMap::new();
        for _ in 0..random.below(5) {
            run(&project, How { fuse: random.below(10) as i64, jobs, ..WHOLE });
            let now = epochs(&project);
            assert!(known.iter().all(|(stage, epochs)| now[stage] >= *epochs), "seed {seed}");
            known = now;
        }
        let ran = run(&project, How { jobs, ..WHOLE });
        assert!(ran.summary.failed.is_empty(), "seed {seed}: {:?}", ran.summary.failed);
        assert!(trained(&project).values().all(|count| *count == 1), "seed {seed}");
        let found = epochs(&project);
        assert_eq!(found.len(), search.rates.len());
        assert!(found.values().all(|epochs| search.rungs.contains(epochs)), "{found:?}");
        let last = search.rungs.last().unwrap();
        assert!(found.values().any(|epochs| epochs == last), "seed {seed}: {found:?}");
        let again = run(&project, WHOLE);
        assert_eq!(again.summary.skipped.len(), found.len() + 1, "seed {seed}: {:?}", again.plan);
    }
}

#[test]
fn a_forecast_counts_the_rungs_to_come() {
    let rates: Vec<u64> = (1..=4).collect();
    let project = Project::new(&pipeline(&rates, "{ rungs: [1, 3], keep: 1/2, monitor: loss }"));
    let graph = load(&project, &Fuse::default()).unwrap();
    let names: Vec<String> = rates.iter().map(|rate| format!("base@rate={rate}")).collect();
    let seconds: Vec<(&str, f64)> = names.iter().map(|name| (name.as_str(), 1.0)).collect();
    // Four epochs for all, and two more for two of them.
    assert_eq!(crate::forecast::of(&graph, &project, 1, &seconds).seconds, 8.0);
}

#[test]
fn what_is_no_halving_says_so_where_it_stands() {
    let error = |stage: &str| {
        let text = format!("name: p\nstages:\n  base: {{ kind: train, {stage} }}\n");
        match load(&Project::new(&text), &Fuse::default()) {
            Ok(_) => panic!("accepted: {stage}"),
            Err(error) => error.to_string().lines().next().unwrap_or_default().to_owned(),
        }
    };
    let rule = "halving: { rungs: [2, 4], keep: 1/2, monitor: loss }";
    let found = error(&format!("rate: 1, {rule}"));
    assert!(
        found.ends_with("halving: only the stages of a `matrix` can be chosen among"),
        "{found}"
    );
    let found = error(&format!("matrix: {{ rate: [1, 2] }}, epochs: 5, {rule}"));
    let said = "stages.base.halving.rungs: the last rung is 4, and `epochs` is 5: leave one of them out, or make them equal";
    assert!(found.ends_with(said), "{found}");
    let found =
        error("matrix: { rate: [1, 2] }, halving: { rungs: [4, 2], keep: 1/2, monitor: loss }");
    assert!(found.ends_with("halving.rungs: expected numbers of epochs that rise"), "{found}");
    let found =
        error("matrix: { rate: [1, 2] }, halving: { rungs: [2, 4], keep: 2, monitor: loss }");
    assert!(found.contains("halving.keep: expected a part above 0 and below 1"), "{found}");
}

/// Members of the search that is timed, unless `PIPE_TEST_MEMBERS` says how many.
const MEMBERS: u64 = 200;
const RUNGS: [u64; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

#[test]
fn a_search_of_many_members_costs_little() {
    let members = std::env::var("PIPE_TEST_MEMBERS").ok().and_then(|text| text.parse().ok());
    let rates: Vec<u64> = (0..members.unwrap_or(MEMBERS)).collect();
    let rule = format!("{{ rungs: {RUNGS:?}, keep: 3/4, monitor: loss }}");
    let project = Project::new(&format!("fsync: off\n{}", pipeline(&rates, &rule)));
    let began = Instant::now();
    run(&project, WHOLE);
    let all = trained(&project).len();
    let each = began.elapsed().as_secs_f64() * 1e3 / all as f64;
    let fuse: Fuse = Arc::new(AtomicI64::new(0));
    let graph = load(&project, &fuse).unwrap();
    let (stop, heard) = (Stop::default(), Heard::default());
    let manifests = identity::manifests(&graph);
    let execution = Execution::new(&project.root, &graph, &manifests, &stop, &heard);
    let selection = graph.select(&Targets::default()).unwrap();
    let began = Instant::now();
    let observed = inspect(&execution, &selection.stages).unwrap();
    plan(&graph, &selection, &Default::default(), &observed);
    let planned = began.elapsed().as_secs_f64();
    println!("{all} member-rungs, {each:.2} ms each; plan {planned:.3} s");
    assert_eq!(fuse.load(Ordering::SeqCst), 0);
    // Generous: the machine may be busy. The printed figures are what was aimed at.
    assert!(each < 50.0 && planned < 2.0, "{each} ms, {planned} s");
}

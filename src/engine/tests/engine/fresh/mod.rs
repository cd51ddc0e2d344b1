//! One run always equals a fresh build: drawn graphs, and drawn edits between runs. Run with more
//! rounds than usual by `PIPE_ROUNDS=100000`, and one of them again by `PIPE_SEED`, which a failure
//! prints.

mod drawn;
mod trainings;
mod world;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pipe_core::progress::NullListener;
use pipe_core::stop::Stop;
use pipe_engine::command::InProcess;
use pipe_engine::exec::{Execution, Summary, execute, inspect};
use pipe_engine::graph::{Graph, Targets};
use pipe_engine::kind::StageKind;
use pipe_engine::plan::{Action, Plan, plan};
use pipe_engine::{identity, pipeline_file};

use self::drawn::{Drawn, sources};
use self::world::{World, files};
use crate::random::Random;

/// A folder with a pipeline, and what its stages did.
struct Project {
    folder: tempfile::TempDir,
    world: Arc<World>,
}

/// In memory where there is such a folder: what a power cut does to it is no matter here.
fn folder() -> tempfile::TempDir {
    let builder = tempfile::Builder::new();
    builder.tempdir_in("/dev/shm").or_else(|_| builder.tempdir()).unwrap()
}

impl Project {
    fn new() -> Self {
        Self { folder: folder(), world: Arc::default() }
    }

    fn root(&self) -> &Path {
        self.folder.path()
    }

    fn run(&self, yaml: &str, jobs: usize, keep_going: bool) -> (Plan, Summary) {
        std::fs::write(self.root().join("p.yaml"), yaml).unwrap();
        let world = self.world.clone();
        let mut kinds: Vec<Arc<dyn StageKind>> = trainings::kinds(&world);
        kinds
            .push(Arc::new(InProcess(Arc::new(move |context, line| world.program(context, line)))));
        let pipeline = pipeline_file::load(self.root(), Path::new("p.yaml"), &kinds, &[]);
        let graph = pipeline.and_then(Graph::build).unwrap_or_else(|e| panic!("{e}\n{yaml}"));
        let (stop, manifests, root) =
            (Stop::default(), identity::manifests(&graph), self.root().into());
        let execution = Execution {
            jobs,
            keep_going,
            ..Execution::new(&root, &graph, &manifests, &stop, &NullListener)
        };
        let selection = graph.select(&Targets::default()).unwrap();
        let observed =
            inspect(&execution, &selection.stages).unwrap_or_else(|(_, e)| panic!("{e}"));
        let plan = plan(&graph, &selection, &Default::default(), &observed);
        self.world.ran.lock().unwrap().clear();
        let summary = execute(&execution, &plan, observed).unwrap();
        (plan, summary)
    }

    /// What a run of the same files and settings gives where nothing was made yet.
    fn built_anew(&self, yaml: &str, outputs: &[String]) -> BTreeMap<String, Option<String>> {
        let fresh = Self::new();
        let names = ["src".to_owned(), "more".to_owned()];
        for (path, content) in files(self.root(), &names) {
            let path = fresh.root().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content.unwrap()).unwrap();
        }
        let (_, summary) = fresh.run(yaml, 1, false);
        assert!(summary.failed.is_empty(), "{:?}\n{yaml}", summary.failed);
        files(fresh.root(), outputs)
    }

    /// Whether the plan said truly what would be done.
    fn check_plan(&self, plan: &Plan, summary: &Summary, told: &str) {
        let ran = self.world.ran.lock().unwrap().clone();
        for step in &plan.steps {
            let did = ran.contains(&step.stage.to_string());
            match (&step.action, &step.depends_on) {
                (Action::Skip, _) => {
                    assert!(!did, "{} ran, and the plan said skip: {told}", step.stage)
                }
                (_, None) if summary.failed.is_empty() => {
                    assert!(did, "{} did not run, and the plan was sure: {told}", step.stage);
                }
                _ => {}
            }
        }
        let in_vain = std::mem::take(&mut *self.world.in_vain.lock().unwrap());
        assert!(in_vain.is_empty(), "{in_vain:?} ran without cause: {told}");
    }
}

/// A pipeline, and a few edits of it with a run after each.
fn round(seed: u64) {
    let mut random = Random::new(seed);
    let (project, mut drawn) = (Project::new(), Drawn::new(&mut random));
    sources(project.root());
    let mut told = format!("PIPE_SEED={seed}");
    for turn in 0..3 {
        for _ in 0..random.below(3) {
            let edit = drawn.edit(&mut random, project.root());
            told += &format!("\nbefore run {turn}: {edit}");
        }
        let yaml = drawn.to_yaml(&mut random);
        let told = format!("{told}\n{yaml}");
        let mut run = |failing: &[String]| {
            *project.world.failing.lock().unwrap() = failing.iter().cloned().collect();
            project.run(&yaml, 1 + random.below(3), random.below(2) == 0)
        };
        if turn % 2 == 1 {
            let (plan, summary) = run(&[format!("s{}", turn + 1), "s0".to_owned()]);
            project.check_plan(&plan, &summary, &told);
        }
        let (plan, summary) = run(&[]);
        assert!(
            summary.failed.is_empty() && summary.not_begun.is_empty(),
            "{:?}: {told}",
            summary.failed
        );
        project.check_plan(&plan, &summary, &told);
        let outputs = drawn.outputs();
        let expected = project.built_anew(&yaml, &outputs);
        assert_eq!(files(project.root(), &outputs), expected, "{told}");
        let (plan, _) = run(&[]);
        let runs: Vec<_> = plan.steps.iter().filter(|step| step.action != Action::Skip).collect();
        assert!(runs.is_empty(), "not up to date after a run: {runs:?}\n{told}");
    }
}

#[test]
fn one_run_equals_a_fresh_build_and_nothing_runs_without_cause() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (first, rounds) = match number("PIPE_SEED") {
        Some(seed) => (seed, 1),
        None => (1, number("PIPE_ROUNDS").unwrap_or(1000)),
    };
    let next = AtomicU64::new(first);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + rounds {
                        return;
                    }
                    round(seed);
                }
            });
        }
    });
}

//! A drawn pipeline in a folder of its own, carried out by the engine on a cluster that is not
//! real. Records, events and locks are real.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use figment::Figment;
use pipe_core::progress::{Event, NullListener};
use pipe_core::stop::Stop;
use pipe_engine::exec::{self, Execution};
use pipe_engine::graph::{Graph, Targets};
use pipe_engine::kind::*;
use pipe_engine::state::Record;
use pipe_engine::{identity, pipeline_file, plan};
use pipe_fs::ProjectRoot;
use pipe_fs::io_counters::IoCounters;
use serde::{Deserialize, Serialize};

use crate::cluster::{self, Cluster, Conditions, Time};
use crate::drawn::{self, CHECKPOINT, Job};

/// What a run came to.
pub struct Ran {
    pub outcome: cluster::Outcome,
    /// What the engine did in `.pipe/`.
    pub traffic: IoCounters,
    /// Real time of it all, which the tests do not look at.
    #[allow(dead_code)]
    pub took: Duration,
}

pub struct Simulation {
    folder: tempfile::TempDir,
    root: ProjectRoot,
    conditions: Conditions,
}

impl Simulation {
    /// In memory where that can be had; otherwise on a disk, whose fsyncs take most of the time.
    pub fn new(conditions: Conditions) -> Self {
        let memory = Path::new("/dev/shm");
        let folder =
            if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let folder = folder.unwrap();
        Self { root: folder.path().into(), folder, conditions }
    }

    /// All stages by one process, as many at once as there are nodes.
    pub fn run(&self, jobs: &[Job], seed: u64) -> Ran {
        let needs: Vec<_> = jobs.iter().map(|job| (job.name.clone(), job.needs.clone())).collect();
        let cluster = Arc::new(Cluster::new(self.conditions, &needs));
        let world = Arc::new(World::new(Some(cluster.clone()), jobs));
        let graph = self.graph(jobs, seed, &world);
        let (began, before) = (Instant::now(), self.root.disk().io_counters());
        let done = carry_out(&self.root, &graph, &[], self.conditions.nodes);
        let (took, traffic) = (began.elapsed(), self.root.disk().io_counters() - before);
        assert_eq!(done, jobs.len());
        drop((graph, world));
        let outcome = Arc::into_inner(cluster).unwrap().outcome();
        Ran { outcome, traffic, took }
    }

    /// Each stage by a process of its own, which looks at what it needs first: `pipe run FILE
    /// STAGE`, one after another.
    pub fn run_one_by_one(&self, jobs: &[Job], seed: u64) -> (IoCounters, Duration) {
        let world = Arc::new(World::new(None, jobs));
        let graph = self.graph(jobs, seed, &world);
        let (began, before) = (Instant::now(), self.root.disk().io_counters());
        for job in jobs {
            assert_eq!(carry_out(&self.root, &graph, &[&job.name], 1), 1);
        }
        (self.root.disk().io_counters() - before, began.elapsed())
    }

    /// Makes the records say that stages took as long as they did by the cluster's clock.
    pub fn remember(&self, outcome: &cluster::Outcome) {
        for (stage, (began, ended)) in &outcome.spans {
            let stage = StageId::new(stage).unwrap();
            let mut record = Record::load(&self.root, "drawn", &stage).unwrap();
            record.updated_at = record.started_at + Duration::from_micros(ended - began);
            record.save(&self.root, &stage).unwrap();
        }
    }

    fn graph(&self, jobs: &[Job], seed: u64, world: &Arc<World>) -> Graph {
        let root = self.folder.path();
        std::fs::write(root.join("p.yaml"), drawn::file(jobs, seed)).unwrap();
        let kinds: Vec<Arc<dyn StageKind>> = vec![Arc::new(JobKind(world.clone()))];
        Graph::build(pipeline_file::load(root, Path::new("p.yaml"), &kinds, &[]).unwrap()).unwrap()
    }
}

/// What `pipe run FILE STAGE…` does. Returns how many stages ran.
fn carry_out(root: &ProjectRoot, graph: &Graph, until: &[&str], jobs: usize) -> usize {
    let (stop, manifests) = (Stop::default(), identity::manifests(graph));
    let execution =
        Execution { jobs, ..Execution::new(root, graph, &manifests, &stop, &NullListener) };
    let until = until.iter().map(|stage| stage.to_string()).collect();
    let selection = graph.select(&Targets { until, from: Vec::new() }).unwrap();
    let observed =
        exec::inspect(&execution, &selection.stages).unwrap_or_else(|(_, e)| panic!("{e}"));
    let plan = plan::plan(graph, &selection, &Default::default(), &observed);
    let summary = exec::execute(&execution, &plan, observed).unwrap();
    assert!(summary.failed.is_empty() && summary.not_begun.is_empty(), "{:?}", summary.failed);
    summary.finished.len()
}

/// What stages have in common: the cluster, if time passes at all, and what was drawn for each.
struct World {
    cluster: Option<Arc<Cluster>>,
    pieces: HashMap<String, Vec<Time>>,
    /// Attempts of each, and the seed that it was completed with.
    attempts: Mutex<HashMap<String, usize>>,
    done: Mutex<HashMap<String, u64>>,
}

impl World {
    fn new(cluster: Option<Arc<Cluster>>, jobs: &[Job]) -> Self {
        let pieces = jobs.iter().map(|job| (job.name.clone(), job.pieces.clone())).collect();
        Self { cluster, pieces, attempts: Mutex::default(), done: Mutex::default() }
    }
}

#[derive(Clone, Serialize, Deserialize, schemars::JsonSchema)]
struct Settings {
    seed: u64,
}

struct JobKind(Arc<World>);

struct JobStage {
    world: Arc<World>,
    settings: Settings,
}

impl StageKind for JobKind {
    fn name(&self) -> &'static str {
        "job"
    }

    fn schema(&self) -> schemars::Schema {
        schemars::schema_for!(Settings)
    }

    fn resolve(&self, settings: &Figment) -> Result<Arc<dyn Stage>, Rejection> {
        Ok(Arc::new(JobStage { world: self.0.clone(), settings: settings.extract()? }))
    }
}

impl Stage for JobStage {
    fn settings(&self) -> serde_json::Value {
        serde_json::to_value(&self.settings).unwrap()
    }

    fn references(&self) -> Vec<Reference> {
        Vec::new()
    }

    fn inspect(&self, o: &InspectContext) -> Result<Inspection, StageError> {
        let done =
            self.world.done.lock().unwrap().get(o.stage.as_str()) == Some(&self.settings.seed);
        Ok(if done {
            StageState::Done { reason: "up to date".into() }
        } else {
            StageState::absent("never run")
        }
        .into())
    }

    fn run(&self, c: &RunContext) -> Result<Outcome, StageError> {
        let (world, stage) = (&self.world, c.stage.as_str());
        let pieces = &world.pieces[stage];
        let attempt = {
            let mut attempts = world.attempts.lock().unwrap();
            let attempt = attempts.entry(stage.to_owned()).or_default();
            *attempt += 1;
            *attempt
        };
        let (length, last) = (pieces[attempt - 1], attempt == pieces.len());
        if let Some(cluster) = &world.cluster {
            cluster.work(stage, length, !last);
        }
        // Told at the end, as the time in between is not real: the record is written as often as it
        // would be.
        for _ in 0..length / CHECKPOINT {
            let file = format!("checkpoints/{stage}/epoch_001.ckpt");
            c.event(Event::Saved { file, bytes: 1 << 30, seconds: 1.0, blocked: 0.1 });
        }
        if !last {
            return Err(StageError::new(Failure::DeviceLost, "the node went away"));
        }
        world.done.lock().unwrap().insert(stage.to_owned(), self.settings.seed);
        if let Some(cluster) = &world.cluster {
            cluster.ended(stage);
        }
        Ok(Outcome { summary: "done".into(), ..Default::default() })
    }
}

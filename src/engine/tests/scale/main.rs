//! A thousand stages on two hundred nodes that fail, by the real scheduler on a clock that is not
//! real: docs/scale.md. A program of its own, since what is done to the disk is counted by process.

mod cluster;
mod drawn;
mod simulation;

use cluster::{CLUSTER, Time};
use drawn::{Draw, Job, SHAPES, bounds, draw};
use simulation::Simulation;

/// How much longer it took than any order on any number of nodes must take.
fn over(makespan: Time, jobs: &[Job]) -> f64 {
    let (path, work) = bounds(jobs, CLUSTER.nodes);
    makespan as f64 / path.max(work) as f64
}

fn shape(name: &str) -> Draw {
    *SHAPES.iter().find(|shape| shape.name == name).unwrap()
}

/// The same work with other failures: first when nobody knows how long stages take, then with the
/// records of that.
fn twice(name: &str, seed: u64) -> [f64; 2] {
    let [first, second] = [1, 2].map(|failures| draw(shape(name), seed, seed + 1000 * failures));
    let simulation = Simulation::new(CLUSTER);
    let ran = simulation.run(&first, 1);
    assert!(ran.outcome.lost_nodes > 50, "{} nodes were lost", ran.outcome.lost_nodes);
    simulation.remember(&ran.outcome);
    let again = simulation.run(&second, 2);
    [over(ran.outcome.makespan, &first), over(again.outcome.makespan, &second)]
}

#[test]
fn graphs_come_within_a_tenth_of_the_bound() {
    for (name, seed) in [("random", 1), ("random", 2), ("trees", 1)] {
        let [unknown, known] = twice(name, seed);
        assert!((1.0..=1.1).contains(&unknown), "{name} {seed}: {unknown:.3}");
        assert!((1.0..=1.1).contains(&known), "{name} {seed}: {known:.3}");
    }
}

#[test]
fn where_the_order_decides_it_needs_to_know_how_long_stages_take() {
    for name in ["sweep", "two layers"] {
        let [unknown, known] = twice(name, 1);
        assert!((1.0..=1.1).contains(&known), "{name}: {known:.3}");
        assert!((1.0..=2.0).contains(&unknown), "{name}: {unknown:.3}");
    }
}

#[test]
fn the_clock_and_the_nodes_are_those_that_were_asked_for() {
    let jobs = draw(Draw { stages: 40, ..shape("sweep") }, 1, 1);
    let ran = Simulation::new(cluster::Conditions { nodes: 1, start: 0, repair: 0 }).run(&jobs, 1);
    let work: Time = jobs.iter().map(Job::busy).sum();
    assert_eq!(ran.outcome.makespan, work, "one node does all the work, one after another");

    let ran = Simulation::new(cluster::Conditions { nodes: 40, start: 0, repair: 0 }).run(&jobs, 1);
    let longest = jobs.iter().map(Job::busy).max().unwrap();
    assert_eq!(ran.outcome.makespan, longest, "a node for each");
    assert_eq!(ran.outcome.lost_nodes as u64, jobs.iter().map(Job::failures).sum::<u64>());
}

#[test]
fn what_is_done_to_the_disk_grows_with_the_stages_alone() {
    let jobs = draw(Draw { stages: 300, ..shape("random") }, 3, 3);
    let t = Simulation::new(CLUSTER).run(&jobs, 1).traffic;
    let stages = jobs.len() as u64;
    let (failures, checkpoints): (u64, u64) =
        (jobs.iter().map(Job::failures).sum(), jobs.iter().map(Job::checkpoints).sum());
    // A record when a stage begins, at each checkpoint, after a failed attempt, at its end.
    let records = 2 * stages + checkpoints + failures;
    assert_eq!(t.renamed, records);
    // A process has the disk know once of the folder of the events, and of the project's folder and
    // those around it.
    let once = t.synced - 2 * records - t.folders;
    assert!(
        once <= 1 + std::env::temp_dir().components().count() as u64 + 1,
        "the file and its folder: {once}"
    );
    assert_eq!(t.locks, stages);
    assert_eq!(t.opened, records + stages + 1, "records, locks, events");
    // Each record, each lock's holder, and a line for each thing that happened.
    assert_eq!(t.writes, records + stages + records);
    assert_eq!((t.reads, t.listed, t.linked, t.removed), (2 * stages, 1, 0, 0));
    assert!(t.bytes_written < 600 * t.writes, "{t:?}");

    // A process for each stage looks at all that the stage needs.
    let (alone, _) = Simulation::new(CLUSTER).run_one_by_one(&jobs, 1);
    assert_eq!((alone.renamed, alone.locks, alone.listed), (records, stages, stages));
    assert_eq!(alone.reads, stages + jobs.len() as u64 + ancestors(&jobs));
}

/// Stages before each one, directly or not, added up.
fn ancestors(jobs: &[Job]) -> u64 {
    let mut before: std::collections::HashMap<&str, std::collections::HashSet<&str>> =
        Default::default();
    for job in jobs {
        let mut all: std::collections::HashSet<&str> =
            job.needs.iter().map(String::as_str).collect();
        all.extend(job.needs.iter().flat_map(|b| before[b.as_str()].iter().copied()));
        before.insert(&job.name, all);
    }
    before.values().map(|all| all.len() as u64).sum()
}

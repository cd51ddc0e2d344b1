//! Drawn pipelines: who needs whom, how long each stage works, when the node under it fails.

use std::collections::HashMap;
use std::fmt::Write;

use crate::cluster::{SECOND, Time};

/// How a pipeline is drawn.
#[derive(Debug, Clone, Copy)]
pub struct Draw {
    pub name: &'static str,
    pub stages: usize,
    /// A stage needs at most so many others…
    pub most_needs: usize,
    /// …which stand at most so many places before it…
    pub reach: usize,
    /// …in another layer of so many stages, if they come in layers.
    pub layer: Option<usize>,
}

/// Stages that do not need each other; two layers, such as trainings and what is made of each;
/// trees that grow from few stages; and anything.
pub const SHAPES: [Draw; 4] = [
    Draw { name: "sweep", stages: 1000, most_needs: 0, reach: 1000, layer: None },
    Draw { name: "two layers", stages: 1000, most_needs: 3, reach: 500, layer: Some(500) },
    Draw { name: "trees", stages: 1000, most_needs: 1, reach: 1000, layer: None },
    Draw { name: "random", stages: 1000, most_needs: 3, reach: 1000, layer: None },
];

/// A stage works for half an hour in the middle, and for hours now and then: log-normal, cut at its
/// end.
const MEDIAN_SECONDS: f64 = 1800.0;
const SPREAD: f64 = 1.0;
const LONGEST_SECONDS: f64 = 4.0 * 3600.0;
/// A checkpoint every ten minutes of work.
pub const CHECKPOINT: Time = 600 * SECOND;
/// A node works so long until it fails, in the mean: exponential, so that its age does not matter.
const BETWEEN_FAILURES_SECONDS: f64 = 8.0 * 3600.0;

#[derive(Debug, Clone)]
pub struct Job {
    pub name: String,
    pub needs: Vec<String>,
    /// How long it works in each attempt: all but the last end with the node.
    pub pieces: Vec<Time>,
}

impl Job {
    pub fn failures(&self) -> u64 {
        self.pieces.len() as u64 - 1
    }

    pub fn checkpoints(&self) -> u64 {
        self.pieces.iter().map(|piece| piece / CHECKPOINT).sum()
    }

    /// Work with what has to be done again, however it is scheduled.
    pub fn busy(&self) -> Time {
        self.pieces.iter().sum()
    }
}

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// In (0, 1].
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
}

/// `seed` decides the graph and the work, `failures` when nodes fail.
pub fn draw(draw: Draw, seed: u64, failures: u64) -> Vec<Job> {
    let (mut random, mut fate) = (Random(seed), Random(failures));
    let name = |i: usize| format!("s{i:04}");
    let jobs = (0..draw.stages).map(|i| {
        let end = draw.layer.map_or(i, |layer| i / layer * layer);
        let first = end.saturating_sub(draw.reach);
        let count = if end == 0 { 0 } else { random.below(draw.most_needs + 1) };
        let mut needs: Vec<usize> = (0..count).map(|_| first + random.below(end - first)).collect();
        needs.sort();
        needs.dedup();
        let seconds = (MEDIAN_SECONDS.ln() + SPREAD * random.normal()).exp().min(LONGEST_SECONDS);
        let length = (seconds * SECOND as f64) as Time;
        Job {
            name: name(i),
            needs: needs.into_iter().map(name).collect(),
            pieces: pieces(length, &mut fate),
        }
    });
    jobs.collect()
}

fn pieces(length: Time, fate: &mut Random) -> Vec<Time> {
    let (mut done, mut pieces) = (0, Vec::new());
    loop {
        let until_failure = (-BETWEEN_FAILURES_SECONDS * fate.unit().ln() * SECOND as f64) as Time;
        if done + until_failure >= length {
            pieces.push(length - done);
            return pieces;
        }
        pieces.push(until_failure);
        done = (done + until_failure) / CHECKPOINT * CHECKPOINT;
    }
}

/// The pipeline's file. `seed` is a setting that makes all of it another experiment.
pub fn file(jobs: &[Job], seed: u64) -> String {
    let mut text =
        "name: drawn\npolicies:\n  retry: { nodes: { max: 1000, on: [device_lost] } }\nstages:\n"
            .to_owned();
    for job in jobs {
        let needs = job.needs.join(", ");
        let _ = writeln!(
            text,
            "  {}: {{ kind: job, seed: {seed}, retry: nodes, needs: [{needs}] }}",
            job.name
        );
    }
    text
}

/// No order and no number of nodes is faster: the longest way through the graph, or all the work on
/// all the nodes. What has to be done again after a failure is part of the work.
pub fn bounds(jobs: &[Job], nodes: usize) -> (Time, Time) {
    let mut ends: HashMap<&str, Time> = HashMap::new();
    for job in jobs {
        let begins = job.needs.iter().map(|b| ends[b.as_str()]).max().unwrap_or(0);
        ends.insert(&job.name, begins + job.busy());
    }
    let work: Time = jobs.iter().map(Job::busy).sum();
    (ends.values().copied().max().unwrap_or(0), work / nodes as Time)
}

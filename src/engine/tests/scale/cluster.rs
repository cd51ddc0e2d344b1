//! Nodes and a clock that are not real. Stages run in the engine's own threads and wait here; the
//! time stands still until every stage that has a right to run has come, and then jumps to what
//! happens next. So what is measured is the real scheduler, and hours take as long as it does.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// Microseconds.
pub type Time = u64;

pub const SECOND: Time = 1_000_000;

/// How long the clock waits for the scheduler before the simulation is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

/// What happens to nodes and stages on them.
#[derive(Debug, Clone, Copy)]
pub struct Conditions {
    pub nodes: usize,
    /// From the moment a node is given to a stage until the stage does something.
    pub start: Time,
    /// A node that failed is gone for so long.
    pub repair: Time,
}

/// What docs/scale.md speaks of.
pub const CLUSTER: Conditions = Conditions { nodes: 200, start: 30 * SECOND, repair: 600 * SECOND };

pub struct Cluster {
    conditions: Conditions,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    now: Time,
    free: BTreeSet<usize>,
    /// What happens next, and when: the earliest first.
    events: BinaryHeap<Reverse<(Time, Event)>>,
    /// Stages that have no node yet, in the order in which they are given one.
    waiting: BTreeMap<(Time, String), Piece>,
    /// Stages that wait here.
    blocked: usize,
    /// Stages whose time here is over, and that have not noticed.
    over: BTreeSet<String>,
    /// Stages before each one that have not ended, and those after it.
    open: HashMap<String, usize>,
    after: HashMap<String, Vec<String>>,
    /// Stages that could run now, those that run among them.
    available: usize,
    /// When each stage was first here, and when it ended.
    spans: HashMap<String, (Time, Time)>,
    lost: usize,
}

#[derive(Debug, Clone, Copy)]
struct Piece {
    length: Time,
    node_fails: bool,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Repaired(usize),
    Ended { stage: String, node: usize, node_fails: bool },
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    pub makespan: Time,
    pub lost_nodes: usize,
    pub spans: HashMap<String, (Time, Time)>,
}

impl Cluster {
    /// `needs`: each stage, and those before it.
    pub fn new(conditions: Conditions, needs: &[(String, Vec<String>)]) -> Self {
        let mut after: HashMap<String, Vec<String>> = HashMap::new();
        for (stage, before) in needs {
            before.iter().for_each(|b| after.entry(b.clone()).or_default().push(stage.clone()));
        }
        let state = State {
            now: 0,
            free: (0..conditions.nodes).collect(),
            events: BinaryHeap::new(),
            waiting: BTreeMap::new(),
            blocked: 0,
            over: BTreeSet::new(),
            open: needs.iter().map(|(stage, before)| (stage.clone(), before.len())).collect(),
            after,
            available: needs.iter().filter(|(_, before)| before.is_empty()).count(),
            spans: HashMap::new(),
            lost: 0,
        };
        Self { conditions, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Takes a node for so long, of which the start is no part. The node may fail at the end.
    pub fn work(&self, stage: &str, length: Time, node_fails: bool) {
        let mut state = self.state.lock().unwrap();
        let now = state.now;
        state.spans.entry(stage.to_owned()).or_insert((now, now));
        state.waiting.insert((now, stage.to_owned()), Piece { length, node_fails });
        state.blocked += 1;
        state.go_on(&self.conditions);
        self.changed.notify_all();
        while !state.over.remove(stage) {
            let (back, timeout) = self.changed.wait_timeout(state, PATIENCE).unwrap();
            state = back;
            assert!(
                !timeout.timed_out() || state.over.contains(stage),
                "the scheduler runs {} stages, and {} could run on {} nodes",
                state.blocked,
                state.available,
                self.conditions.nodes
            );
        }
    }

    /// The stage has done all: those after it may come.
    pub fn ended(&self, stage: &str) {
        let mut state = self.state.lock().unwrap();
        let now = state.now;
        state.spans.get_mut(stage).unwrap().1 = now;
        state.available -= 1;
        for next in state.after.remove(stage).unwrap_or_default() {
            let open = state.open.get_mut(&next).unwrap();
            *open -= 1;
            state.available += usize::from(*open == 0);
        }
        state.go_on(&self.conditions);
        self.changed.notify_all();
    }

    pub fn outcome(self) -> Outcome {
        let state = self.state.into_inner().unwrap();
        let makespan = state.spans.values().map(|(_, ended)| *ended).max().unwrap_or(0);
        Outcome { makespan, lost_nodes: state.lost, spans: state.spans }
    }
}

impl State {
    /// Lets the time go on until a stage has something to do, if all are here that should be.
    fn go_on(&mut self, conditions: &Conditions) {
        let mut expected = self.available.min(conditions.nodes);
        while self.blocked > 0 && self.blocked == expected {
            while !self.free.is_empty() && !self.waiting.is_empty() {
                let (node, ((_, stage), piece)) =
                    (self.free.pop_first().unwrap(), self.waiting.pop_first().unwrap());
                let taken = conditions.start + piece.length;
                let ended = Event::Ended { stage, node, node_fails: piece.node_fails };
                self.events.push(Reverse((self.now + taken, ended)));
            }
            let Reverse((at, event)) =
                self.events.pop().expect("all stages wait, and nothing is to happen");
            self.now = at;
            match event {
                Event::Repaired(node) => drop(self.free.insert(node)),
                Event::Ended { stage, node, node_fails } => {
                    if node_fails {
                        self.lost += 1;
                        self.events.push(Reverse((at + conditions.repair, Event::Repaired(node))));
                    } else {
                        self.free.insert(node);
                    }
                    self.blocked -= 1;
                    self.over.insert(stage);
                    expected = self.available.min(conditions.nodes);
                }
            }
        }
    }
}

//! The scheduler: which stage begins when. One thread decides; each stage that runs has a thread of
//! its own and sends its result back.
//!
//! # Phases of a stage
//!
//! | phase | meaning | next |
//! |---|---|---|
//! | `Waiting` | stages before it have not ended | `OnDemand`, `WaitingForInputs`, `Running`, `Done`, `Skipped` |
//! | `OnDemand` | it is transient and could begin; it begins when a stage asks for it | `WaitingForInputs`; at the end of the run it counts as not needed |
//! | `WaitingForInputs` | it asked transient stages to begin, or was asked and is in the queue | `Running`, `Skipped` |
//! | `Running` | it has a thread | `Done`, `Paused`, `Skipped` |
//! | `Paused` | it has come to its rung of a halving | `Waiting`, if it goes on; `Done`, if it does not |
//! | `Done` | it ran, or it was found up to date | `WaitingForInputs`, if it is transient, was passed over and is needed after all |
//! | `Skipped` | it failed, or stands behind one that failed | none |
//!
//! Transient stages keep nothing on disk (a data set is opened anew in each process). They are not
//! begun for themselves: a stage that is up to date needs none of them made ready.
//!
//! # The loop
//!
//! 1. Of the stages that wait for nothing, the first in the order of their priority begins, as long
//!    as there is a free job and, for a stage that wants one, a free GPU.
//! 2. A stage that the plan skips, and behind which nothing ran, ends at once without a look at the
//!    disk.
//! 3. Every other stage takes its lock, reads its record again and is inspected again: since the
//!    plan was made stages before it have ended, and other processes may have been here. It is
//!    skipped if it is up to date after all (`identity` has the rules).
//! 4. Otherwise it asks for the transient stages before it, waits for them, and gets a thread with
//!    its lock (`attempt` carries it through: retries, time limit, stop).
//! 5. Its end lets go of those that wait for it. Its record stands before any of them begins.
//!
//! # Stages that follow another one
//!
//! A stage that takes what another one makes while that makes it begins as soon as that one runs, and
//! learns from `RunningStages` when it has ended. It runs beside it, whatever `--jobs` says, since
//! the other one's results stay until it has looked at them. It gets a GPU of its own where one is
//! free, and shares that of the stage that it follows where none is.
//! What it finds out may decide what the other one hands on, so that this is looked at again when it
//! has ended.
//!
//! # Stages that are halved
//!
//! A stage that is halved with others runs until its rung, and is looked at then. When it is known that
//! it goes on, it begins again with the next rung; when it is known that it does not, it has ended.
//! Which, `policy::Halving` says, out of how far all of them are and what they were measured at.
//! One that failed counts as the last of its rung, and ends nothing but itself.
//!
//! # Failures
//!
//! What depends on a failed stage never begins. A stage that refers to a whole matrix may do
//! without some of its members, as long as one is left. Stages that do not depend on the failed one
//! go on only with `--keep-going` or `on_failure: continue`.
//!
//! # Stopping
//!
//! After a signal nothing begins. Running stages see the wish to stop, save and end; the run then
//! lists what was not begun. A second signal ends the process at once: every change of the disk is
//! safe at every instant, so that needs no help from here.
//!
//! # Hooks
//!
//! What stages tell goes on to `hooks`, which starts commands beside them. The run ends when these
//! have ended, each within its time limit.
//!
//! # Several processes
//!
//! A stage has one lock, which the system frees when the process ends. Two runs of one pipeline
//! never carry out one stage at the same time: the second is refused, except for transient stages,
//! for which it waits.

mod begin;
mod end;
mod halving;
mod node;

use std::collections::{BTreeSet, HashMap};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Scope;

use pipe_core::failure::StageError;
use pipe_core::ids::StageId;
use pipe_core::progress::{Event, EventListener};
use pipe_fs::FileError;

use self::halving::BracketState;
use self::node::{Node, NodeIndex, Phase, nodes};
use super::execution::{Execution, InspectedStage, Summary};
use super::journal::Journal;
use super::upstream::RunningStages;
use crate::artifact::{Artifact, Outcome};
use crate::hooks;
use crate::plan::{Action, Plan};

/// Runs the plan's stages, each when those before it have ended.
pub fn execute(
    execution: &Execution,
    plan: &Plan,
    observed: HashMap<StageId, InspectedStage>,
) -> Result<Summary, FileError> {
    hooks::listening(execution, |report| {
        let journal = Journal::open(execution.root, &execution.graph.pipeline.name, report)?;
        let upstreams = RunningStages::new(execution, plan);
        Ok(std::thread::scope(|scope| {
            Scheduler::new(execution, (&journal, &upstreams), plan, observed, scope).run()
        }))
    })
}

struct Scheduler<'scope, 'env> {
    execution: &'env Execution<'env>,
    journal: &'env Journal<'env>,
    scope: &'scope Scope<'scope, 'env>,
    nodes: Vec<Node<'env>>,
    ready: BTreeSet<NodeIndex>,
    running: usize,
    /// Those of the running ones that follow another one.
    beside: usize,
    free_gpus: Vec<u32>,
    /// Stages that are halved together.
    brackets: Vec<BracketState<'env>>,
    halted: bool,
    has_followers: bool,
    upstreams: &'env RunningStages<'env>,
    /// What the stages that are up to date by now hand on.
    artifacts: HashMap<StageId, Artifact>,
    summary: Summary,
    ended: (Sender<Ended>, Receiver<Ended>),
}

/// What a stage's thread sends at its end.
struct Ended {
    place: NodeIndex,
    result: Result<Outcome, StageError>,
    gpu: Option<u32>,
}

impl<'scope, 'env> Scheduler<'scope, 'env> {
    fn new(
        execution: &'env Execution<'env>,
        (journal, upstreams): (&'env Journal<'env>, &'env RunningStages<'env>),
        plan: &Plan,
        observed: HashMap<StageId, InspectedStage>,
        scope: &'scope Scope<'scope, 'env>,
    ) -> Self {
        let progress = halving::members_progress(execution, &observed);
        let (mut nodes, artifacts) = nodes(execution, plan, observed);
        let brackets = halving::brackets(execution, &mut nodes, progress);
        let has_followers = nodes.iter().any(|node| !node.follows.is_empty());
        let ready = (0..nodes.len()).filter(|&i| nodes[i].open == 0).collect();
        Self {
            execution,
            journal,
            scope,
            nodes,
            ready,
            running: 0,
            beside: 0,
            free_gpus: (0..execution.gpus).rev().collect(),
            brackets,
            halted: false,
            has_followers,
            upstreams,
            artifacts,
            summary: Summary::default(),
            ended: channel(),
        }
    }

    fn run(mut self) -> Summary {
        loop {
            self.begin_what_can();
            if self.running == 0 {
                break;
            }
            let Ok(ended) = self.ended.1.recv() else { break };
            self.running -= 1;
            self.beside -= usize::from(self.nodes[ended.place].is_beside);
            self.free_gpus.extend(ended.gpu);
            self.leave_bracket(ended.place);
            self.take_in(ended.place, ended.result);
        }
        for node in &self.nodes {
            let stopped = self.halted || self.execution.stop.requested().is_some();
            match node.phase {
                Phase::OnDemand if !stopped => {
                    let reason = "nothing that ran needed it".to_owned();
                    self.journal.event(&node.stage.id, &Event::Skipped { reason });
                    self.summary.skipped.push(node.stage.id.clone());
                }
                Phase::OnDemand | Phase::Waiting | Phase::WaitingForInputs => {
                    self.summary.not_begun.push(node.stage.id.clone())
                }
                Phase::Running | Phase::Paused | Phase::Done | Phase::Skipped => {}
            }
        }
        self.summary
    }

    /// Begins stages in their turn while there is room.
    fn begin_what_can(&mut self) {
        let mut at = 0;
        while let Some(&place) = self.ready.range(at..).next() {
            at = place + 1;
            if self.halted || self.execution.stop.requested().is_some() {
                return;
            }
            let full = self.running - self.beside >= self.execution.jobs.max(1);
            if full && !self.begins_beside(place) {
                if self.has_followers {
                    continue;
                }
                return;
            }
            let (skip, lazy) = {
                let node = &self.nodes[place];
                let lazy = node.transient && node.phase == Phase::Waiting && !node.after.is_empty();
                // What the plan knew of it holds as long as nothing before it ran.
                (
                    node.action == Action::Skip && (node.transient || !self.is_behind_moved(place)),
                    lazy,
                )
            };
            if skip {
                self.ready.remove(&place);
                let reason = self.nodes[place].reason.clone();
                match self.look_again(place) {
                    Ok(()) => self.skip(place, reason),
                    Err(error) => self.take_in(place, Err(error)),
                }
                at = 0;
                continue;
            }
            if lazy {
                self.ready.remove(&place);
                self.nodes[place].phase = Phase::OnDemand;
                match self.look_again(place) {
                    Ok(()) => self.release(place),
                    Err(error) => self.take_in(place, Err(error)),
                }
                at = 0;
                continue;
            }
            if self.wants_gpu(place) && self.free_gpus.is_empty() && !self.begins_beside(place) {
                continue;
            }
            if self.is_bracket_full(place) {
                continue;
            }
            self.ready.remove(&place);
            if let Err(error) = self.begin(place) {
                self.take_in(place, Err(error));
            }
            at = 0;
        }
    }

    /// Whether a stage that it follows runs.
    fn begins_beside(&self, place: NodeIndex) -> bool {
        let is_running = |&source: &NodeIndex| self.nodes[source].phase == Phase::Running;
        self.nodes[place].follows.iter().any(is_running)
    }

    fn is_behind_moved(&self, place: NodeIndex) -> bool {
        self.nodes[place].before.iter().any(|&before| self.nodes[before].has_run)
    }
}

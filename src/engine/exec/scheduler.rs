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
//! | `Running` | it has a thread | `Done`, `Skipped` |
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
//! # Several processes
//!
//! A stage has one lock, which the system frees when the process ends. Two runs of one pipeline
//! never carry out one stage at the same time: the second is refused, except for transient stages,
//! for which it waits.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Scope;
use std::time::Duration;

use chrono::Utc;
use pipe_core::Status;
use pipe_core::failure::{Failure, StageError};
use pipe_core::ids::StageId;
use pipe_core::progress::{Event, EventListener};
use pipe_core::threads::STACK_SIZE;
use pipe_fs::{FileError, Lock};

use super::attempt::{Begin, carry_out};
use super::execution::{Execution, InspectedStage, Summary, inputs, inspect_stage};
use super::journal::Journal;
use super::priority::by_priority;
use crate::artifact::{Artifact, Outcome};
use crate::pipeline_file::LoadedStage;
use crate::plan::{self, Action, Plan};
use crate::policy::{OnFailure, Resume};
use crate::state::{OutputBaseline, Outputs, Progress, Record, lock_stage};

/// Runs the plan's stages, each when those before it have ended.
pub fn execute(
    execution: &Execution,
    plan: &Plan,
    observed: HashMap<StageId, InspectedStage>,
) -> Result<Summary, FileError> {
    let journal = Journal::open(execution.root, &execution.graph.pipeline.name, execution.report)?;
    Ok(std::thread::scope(|scope| Scheduler::new(execution, &journal, plan, observed, scope).run()))
}

/// How often a stage that another process has is asked for.
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

/// A stage's place in the order in which stages begin.
type NodeIndex = usize;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Stages before it have not ended.
    Waiting,
    /// It could begin, and keeps nothing: it begins when a stage that needs it does.
    OnDemand,
    /// Waits for stages that keep nothing to be made ready for it.
    WaitingForInputs,
    Running,
    Done,
    /// Failed, or never to begin.
    Skipped,
}

/// A stage of the plan.
struct Node<'a> {
    stage: &'a LoadedStage,
    action: Action,
    reason: String,
    transient: bool,
    /// What it last made, as it was found when its turn came.
    made: Option<Outputs>,
    /// See [`Record::micro_batch_splits`].
    micro_batch_splits: u32,
    /// See [`Record::before`].
    baseline: Option<OutputBaseline>,
    /// Its record does not say that it was completed.
    unsettled: bool,
    /// See [`InspectedStage::confirmed`].
    confirmed: Option<Outputs>,
    /// It was carried out by this run, or keeps nothing and stands behind one that was.
    has_run: bool,
    phase: Phase,
    before: Vec<NodeIndex>,
    after: Vec<NodeIndex>,
    /// Stages before it that have not ended.
    open: usize,
}

struct Scheduler<'scope, 'env> {
    execution: &'env Execution<'env>,
    journal: &'env Journal<'env>,
    scope: &'scope Scope<'scope, 'env>,
    nodes: Vec<Node<'env>>,
    ready: BTreeSet<NodeIndex>,
    running: usize,
    free_gpus: Vec<u32>,
    halted: bool,
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
        journal: &'env Journal<'env>,
        plan: &Plan,
        mut observed: HashMap<StageId, InspectedStage>,
        scope: &'scope Scope<'scope, 'env>,
    ) -> Self {
        let steps = by_priority(execution, plan, &observed);
        let places: HashMap<&StageId, NodeIndex> =
            steps.iter().enumerate().map(|(i, s)| (&s.stage, i)).collect();
        let mut artifacts = HashMap::new();
        let mut nodes = Vec::with_capacity(steps.len());
        for step in steps {
            let Some(stage) = execution.graph.stage(&step.stage) else { continue };
            let found = observed.remove(&step.stage);
            let transient = found.as_ref().is_some_and(InspectedStage::is_transient);
            let record = found.as_ref().and_then(|o| o.record.as_ref());
            let unsettled =
                !transient && record.is_none_or(|record| record.status != Status::Completed);
            let (artifact, confirmed) =
                found.map_or((None, None), |found| (found.inspection.artifact, found.confirmed));
            // What runs hands on something newer; what keeps nothing, the same, until it is looked
            // at again.
            if let Some(artifact) = artifact.filter(|_| step.action == Action::Skip || transient) {
                artifacts.insert(step.stage.clone(), artifact);
            }
            let in_plan = |stages: Vec<&LoadedStage>| -> Vec<NodeIndex> {
                stages.into_iter().filter_map(|s| places.get(&s.id).copied()).collect()
            };
            let dependencies =
                execution.graph.dependencies(&step.stage).into_iter().map(|(_, s)| s).collect();
            let before = in_plan(dependencies);
            nodes.push(Node {
                stage,
                action: step.action.clone(),
                reason: step.reason.clone(),
                transient,
                made: None,
                micro_batch_splits: 0,
                baseline: None,
                unsettled,
                confirmed,
                has_run: false,
                phase: Phase::Waiting,
                open: before.len(),
                before,
                after: in_plan(execution.graph.dependents(&step.stage)),
            });
        }
        let ready = (0..nodes.len()).filter(|&i| nodes[i].open == 0).collect();
        Self {
            execution,
            journal,
            scope,
            nodes,
            ready,
            running: 0,
            free_gpus: (0..execution.gpus).rev().collect(),
            halted: false,
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
            self.free_gpus.extend(ended.gpu);
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
                Phase::Running | Phase::Done | Phase::Skipped => {}
            }
        }
        self.summary
    }

    /// Begins stages in their turn while there is room.
    fn begin_what_can(&mut self) {
        let mut at = 0;
        while let Some(&place) = self.ready.range(at..).next() {
            at = place + 1;
            let full = self.running >= self.execution.jobs.max(1);
            if full || self.halted || self.execution.stop.requested().is_some() {
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
            if self.wants_gpu(place) && self.free_gpus.is_empty() {
                continue;
            }
            self.ready.remove(&place);
            if let Err(error) = self.begin(place) {
                self.take_in(place, Err(error));
            }
            at = 0;
        }
    }

    fn is_behind_moved(&self, place: NodeIndex) -> bool {
        self.nodes[place].before.iter().any(|&before| self.nodes[before].has_run)
    }

    /// Looks at what a stage that keeps nothing will hand on, if a stage before it ran since the
    /// plan was made.
    fn look_again(&mut self, place: NodeIndex) -> Result<(), StageError> {
        if !self.nodes[place].transient || !self.is_behind_moved(place) {
            return Ok(());
        }
        self.nodes[place].has_run = true;
        let stage = self.nodes[place].stage;
        let looked =
            inspect_stage(self.execution, stage, None, &self.artifacts, &HashSet::new(), false);
        let found = looked?.inspection;
        self.artifacts.remove(&stage.id);
        self.artifacts.extend(found.artifact.map(|artifact| (stage.id.clone(), artifact)));
        Ok(())
    }

    /// Whether a stage waits for a GPU of its own: not where there is none at all.
    fn wants_gpu(&self, place: NodeIndex) -> bool {
        self.execution.gpus > 0 && self.nodes[place].stage.options.resources.gpu > 0
    }

    /// Begins a stage whose time has come, or finds that there is nothing to do for it, or asks for
    /// what it needs.
    fn begin(&mut self, place: NodeIndex) -> Result<(), StageError> {
        let (execution, stage) = (self.execution, self.nodes[place].stage);
        let pipeline = &execution.graph.pipeline.name;
        let lock = lock_stage(execution.root, pipeline, &stage.id)?;
        let lock = match lock {
            Ok(lock) => Some(lock),
            // Each process that needs it makes it ready for itself, one after the other: its thread
            // waits.
            Err(_) if self.nodes[place].transient => None,
            Err(holder) => {
                let mut text =
                    format!("it is being run by {}; wait for that, or stop it", holder.0);
                if let Some(command) = holder.1 {
                    text.push_str(&format!(": {command}"));
                } else if stage.stage.runs().is_some() {
                    text.push_str(
                        "; to train with several settings at the same time, list them in the stage's `matrix` and \
                         run it with `--jobs 2`",
                    );
                }
                return Err(StageError::new(Failure::Setting, text));
            }
        };
        let mut anew = false;
        if !self.nodes[place].transient {
            // Since the plan was made a stage before it has ended, or another process was here.
            let record = Record::load(execution.root, pipeline, &stage.id);
            let failed: HashSet<&StageId> = self
                .nodes
                .iter()
                .filter(|n| n.phase == Phase::Skipped)
                .map(|n| &n.stage.id)
                .collect();
            let observed =
                inspect_stage(execution, stage, record, &self.artifacts, &failed, false)?;
            self.nodes[place].confirmed = observed.confirmed;
            let forced = execution.forced.contains(&stage.id);
            let (mut action, mut reason) = plan::decide(&observed.inspection.state, forced);
            if action == Action::Skip {
                self.artifacts.extend(observed.inspection.artifact.map(|a| (stage.id.clone(), a)));
                // `settle` takes it.
                drop(lock);
                self.skip(place, reason);
                return Ok(());
            }
            if !forced && !execution.restarted {
                (anew, action, reason) = by_policy(stage.options.resume, action, reason)?;
            }
            let node = &mut self.nodes[place];
            if let Some(record) = observed.record {
                if matches!(action, Action::Resume { .. } | Action::Extend { .. })
                    && record.micro_batch_splits > 0
                {
                    node.micro_batch_splits = record.micro_batch_splits;
                    reason.push_str(&format!(
                        "; batches in {} micro-batches as before",
                        1u64.checked_shl(record.micro_batch_splits).unwrap_or(u64::MAX)
                    ));
                }
                node.made = record.made;
                node.baseline = record.before.filter(|_| record.status != Status::Completed);
            }
            (node.action, node.reason) = (action, reason);
            let before = node.before.clone();
            // What keeps nothing and was passed over since nobody was to need it is needed after
            // all.
            let passed_over = |node: &Node| {
                node.transient && node.phase == Phase::Done && node.action == Action::Skip
            };
            let to_come = |place: &NodeIndex| {
                let node = &self.nodes[*place];
                matches!(node.phase, Phase::OnDemand | Phase::WaitingForInputs | Phase::Running)
                    || passed_over(node)
            };
            let asked: Vec<NodeIndex> = before.into_iter().filter(to_come).collect();
            if !asked.is_empty() {
                let node = &mut self.nodes[place];
                node.phase = Phase::WaitingForInputs;
                node.open = asked.len();
                for b in asked {
                    let node = &mut self.nodes[b];
                    if matches!(node.phase, Phase::OnDemand | Phase::Done) {
                        (node.phase, node.action) = (Phase::WaitingForInputs, Action::Run);
                        self.summary.skipped.retain(|id| *id != node.stage.id);
                        self.ready.insert(b);
                    }
                }
                return Ok(());
            }
        }
        self.spawn(place, anew, lock)
    }

    fn spawn(
        &mut self,
        place: NodeIndex,
        anew: bool,
        lock: Option<Lock>,
    ) -> Result<(), StageError> {
        let gpu = if self.wants_gpu(place) { self.free_gpus.pop() } else { None };
        let node = &mut self.nodes[place];
        node.phase = Phase::Running;
        let begin = Begin {
            stage: node.stage,
            action: node.action.to_string(),
            reason: node.reason.clone(),
            progress: node.action.progress(),
            anew,
            micro_batch_splits: node.micro_batch_splits,
            inputs: inputs(node.stage, &self.artifacts),
            gpu,
            made: node.made.clone(),
            before: node.baseline.clone(),
        };
        let (execution, journal, end) = (self.execution, self.journal, self.ended.0.clone());
        let work = move || {
            let lock = lock.map_or_else(|| wait_for(execution, &begin.stage.id), Ok);
            let result = match lock {
                Ok(lock) => carry_out(execution, journal, begin, &lock),
                Err(error) => Err(error),
            };
            let _ = end.send(Ended { place, result, gpu });
        };
        let thread =
            std::thread::Builder::new().name(node.stage.id.to_string()).stack_size(STACK_SIZE);
        match thread.spawn_scoped(self.scope, work) {
            Ok(_) => {
                self.running += 1;
                Ok(())
            }
            Err(error) => {
                self.free_gpus.extend(gpu);
                self.nodes[place].phase = Phase::Waiting;
                Err(StageError::new(Failure::Storage, format!("failed to start a thread: {error}")))
            }
        }
    }

    fn skip(&mut self, place: NodeIndex, reason: String) {
        if self.nodes[place].unsettled || self.nodes[place].confirmed.is_some() {
            self.settle(place, &reason);
        }
        self.nodes[place].has_run = self.nodes[place].transient && self.is_behind_moved(place);
        let id = &self.nodes[place].stage.id;
        self.journal.event(id, &Event::Skipped { reason });
        self.summary.skipped.push(id.clone());
        self.end(place, Phase::Done);
    }

    /// Writes the record of a stage that is done and has none that says so (its process ended
    /// between its last file and its record, or the record was damaged), or whose files were found
    /// unchanged where it does not know that.
    fn settle(&self, place: NodeIndex, reason: &str) {
        let (root, pipeline) = (self.execution.root, &self.execution.graph.pipeline.name);
        let Node { stage: LoadedStage { id, kind, .. }, confirmed, .. } = &self.nodes[place];
        // Whoever has the stage now will write its record.
        let Ok(Ok(_lock)) = lock_stage(root, pipeline, id) else { return };
        let mut record = Record::load(root, pipeline, id).unwrap_or_else(|| {
            Record::begun(pipeline, id, kind, Action::Skip.to_string(), reason.to_owned(), None)
        });
        let mut changed = false;
        if record.status != Status::Completed {
            record.status = Status::Completed;
            record.message = Some("done before, without a record that said so".to_owned());
            record.updated_at = Utc::now();
            // What was done after the record was last written is not in it.
            record.progress =
                record.progress.map(|progress| Progress { position: progress.target, ..progress });
            (record.before, changed) = (None, true);
        }
        let is_of = |made: &Outputs, other: &Outputs| {
            made.identity == other.identity && made.written_at == other.written_at
        };
        if let (Some(made), Some(confirmed)) = (&mut record.made, confirmed)
            && is_of(made, confirmed)
        {
            (*made, changed) = (confirmed.clone(), true);
        }
        if changed && let Err(error) = record.save(root, id) {
            tracing::warn!("{error}");
        }
    }

    /// A stage has ended, well or badly.
    fn take_in(&mut self, place: NodeIndex, result: Result<Outcome, StageError>) {
        let stage = self.nodes[place].stage;
        match result {
            Ok(outcome) => {
                self.artifacts
                    .extend(outcome.artifact.map(|artifact| (stage.id.clone(), artifact)));
                self.summary.finished.push((stage.id.clone(), outcome.summary));
                self.nodes[place].has_run =
                    !self.nodes[place].transient || self.is_behind_moved(place);
                self.end(place, Phase::Done);
            }
            Err(error) => {
                if self.nodes[place].phase != Phase::Running {
                    // It failed before it began, so nobody has said so yet.
                    let event =
                        Event::Failed { failure: error.failure, message: error.message.clone() };
                    self.journal.event(&stage.id, &event);
                }
                self.halted |=
                    !self.execution.keep_going && stage.options.on_failure == OnFailure::Stop;
                self.summary.failed.push((stage.id.clone(), error));
                self.break_off(place);
            }
        }
    }

    /// What depends on a failed stage never begins, unless it can do without.
    fn break_off(&mut self, place: NodeIndex) {
        self.nodes[place].phase = Phase::Skipped;
        let mut broken = vec![place];
        while let Some(from) = broken.pop() {
            for next in self.nodes[from].after.clone() {
                if !matches!(
                    self.nodes[next].phase,
                    Phase::Waiting | Phase::WaitingForInputs | Phase::OnDemand
                ) {
                    continue;
                }
                if self.passes_over(next, from) {
                    let text = format!("{} failed and is passed over", self.nodes[from].stage.id);
                    self.journal.event(&self.nodes[next].stage.id, &Event::Warning { text });
                    self.let_go(next);
                    continue;
                }
                self.nodes[next].phase = Phase::Skipped;
                self.ready.remove(&next);
                self.summary.not_begun.push(self.nodes[next].stage.id.clone());
                broken.push(next);
            }
        }
    }

    /// Whether a stage can do without one that failed: it has others like that.
    fn passes_over(&self, place: NodeIndex, failed: NodeIndex) -> bool {
        let Node { stage, before, phase, .. } = &self.nodes[place];
        let can = |before: NodeIndex| stage.passes_over(&self.nodes[before].stage.id);
        let is_left =
            |&before: &NodeIndex| self.nodes[before].phase != Phase::Skipped && can(before);
        *phase == Phase::Waiting && can(failed) && before.iter().any(is_left)
    }

    fn end(&mut self, place: NodeIndex, phase: Phase) {
        let was_lazy = self.nodes[place].transient && self.nodes[place].phase == Phase::Running;
        self.nodes[place].phase = phase;
        if !was_lazy {
            self.release(place);
            return;
        }
        // Those that waited for it have let the others go already.
        for next in self.nodes[place].after.clone() {
            if self.nodes[next].phase == Phase::WaitingForInputs {
                self.let_go(next);
            }
        }
    }

    /// One stage less to wait for.
    fn release(&mut self, place: NodeIndex) {
        for next in self.nodes[place].after.clone() {
            if self.nodes[next].phase == Phase::Waiting {
                self.let_go(next);
            }
        }
    }

    fn let_go(&mut self, place: NodeIndex) {
        let node = &mut self.nodes[place];
        node.open = node.open.saturating_sub(1);
        if node.open == 0 {
            self.ready.insert(place);
        }
    }
}

/// Takes a stage when the process that has it has done with it.
fn wait_for(execution: &Execution, stage: &StageId) -> Result<Lock, StageError> {
    loop {
        if let Ok(lock) = lock_stage(execution.root, &execution.graph.pipeline.name, stage)? {
            return Ok(lock);
        }
        execution.stop.sleep(BETWEEN_LOOKS);
        if let Some(signal) = execution.stop.requested() {
            return Err(StageError::new(
                Failure::Interrupted(signal),
                "stopped while another process had it",
            ));
        }
    }
}

/// What `resume:` makes of a decision: whether to begin anew, and the decision.
fn by_policy(
    resume: Resume,
    action: Action,
    reason: String,
) -> Result<(bool, Action, String), StageError> {
    match (resume, action) {
        (Resume::Never, Action::Resume { .. }) => {
            Ok((true, Action::Run, format!("resume: never ({reason})")))
        }
        (Resume::Must, Action::Run) => Err(StageError::new(
            Failure::Setting,
            format!("resume: must, and there is nothing to go on with: {reason}"),
        )),
        (_, action) => Ok((false, action, reason)),
    }
}

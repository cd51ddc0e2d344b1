//! How a stage begins: looked at once more, asking for what it needs, in a thread of its own.

use std::collections::HashSet;
use std::time::Duration;

use pipe_core::Status;
use pipe_core::failure::{Failure, StageError};
use pipe_core::ids::StageId;
use pipe_core::threads::STACK_SIZE;
use pipe_fs::Lock;

use super::node::{Node, NodeIndex, Phase};
use super::{Ended, Scheduler};
use crate::exec::attempt::{Begin, carry_out};
use crate::exec::execution::{Ahead, Execution, inputs, inspect_stage, request};
use crate::plan::{self, Action};
use crate::policy::Resume;
use crate::state::{Record, lock_stage};

/// How often a stage that another process has is asked for.
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

impl Scheduler<'_, '_> {
    /// Looks at what a stage that keeps nothing will hand on, if a stage before it ran since the
    /// plan was made.
    pub(super) fn look_again(&mut self, place: NodeIndex) -> Result<(), StageError> {
        if !self.nodes[place].transient || !self.is_behind_moved(place) {
            return Ok(());
        }
        self.nodes[place].has_run = true;
        let stage = self.nodes[place].stage;
        let asked = request(self.execution, stage, None);
        let looked = inspect_stage(
            self.execution,
            (stage, &asked),
            None,
            &self.artifacts,
            &HashSet::new(),
            &Ahead::default(),
        );
        let found = looked?.inspection;
        self.artifacts.remove(&stage.id);
        self.artifacts.extend(found.artifact.map(|artifact| (stage.id.clone(), artifact)));
        Ok(())
    }

    /// Whether a stage waits for a GPU of its own: not where there is none at all.
    pub(super) fn wants_gpu(&self, place: NodeIndex) -> bool {
        self.execution.gpus > 0 && self.nodes[place].stage.options.resources.gpu > 0
    }

    /// Begins a stage whose time has come, or finds that there is nothing to do for it, or asks for
    /// what it needs.
    pub(super) fn begin(&mut self, place: NodeIndex) -> Result<(), StageError> {
        let lock = self.take(place)?;
        if self.nodes[place].transient {
            return self.spawn(place, false, lock);
        }
        let (anew, action, reason) = self.decide_again(place)?;
        if action == Action::Skip {
            // `settle` takes it.
            drop(lock);
            self.skip(place, reason);
            return Ok(());
        }
        (self.nodes[place].action, self.nodes[place].reason) = (action, reason);
        if self.waits_for_inputs(place) { Ok(()) } else { self.spawn(place, anew, lock) }
    }

    /// The lock of a stage; `None` for one that keeps nothing and that another process has.
    fn take(&mut self, place: NodeIndex) -> Result<Option<Lock>, StageError> {
        let (execution, stage) = (self.execution, self.nodes[place].stage);
        let holder = match lock_stage(execution.root, &execution.graph.pipeline.name, &stage.id)? {
            Ok(lock) => return Ok(Some(lock)),
            // Each process that needs it makes it ready for itself, one after the other: its thread
            // waits.
            Err(_) if self.nodes[place].transient => return Ok(None),
            Err(holder) => holder,
        };
        self.nodes[place].is_elsewhere = true;
        let mut text = format!("it is being run by {}; wait for that, or stop it", holder.0);
        if let Some(command) = holder.1 {
            text.push_str(&format!(": {command}"));
        } else if stage.stage.runs().is_some() {
            text.push_str(
                "; to train with several settings at the same time, list them in the stage's `matrix` and \
                         run it with `--jobs 2`",
            );
        }
        Err(StageError::new(Failure::Setting, text))
    }

    /// What is to be done for a stage that keeps something, and whether it begins anew: since the
    /// plan was made a stage before it has ended, or another process was here.
    fn decide_again(&mut self, place: NodeIndex) -> Result<(bool, Action, String), StageError> {
        let (execution, stage) = (self.execution, self.nodes[place].stage);
        let record = Record::load(execution.root, &execution.graph.pipeline.name, &stage.id);
        let skipped = self.nodes.iter().filter(|n| n.phase == Phase::Skipped);
        let failed: HashSet<&StageId> = skipped.map(|n| &n.stage.id).collect();
        let asked = request(execution, stage, self.nodes[place].round.as_ref());
        let observed = inspect_stage(
            execution,
            (stage, &asked),
            record,
            &self.artifacts,
            &failed,
            &Ahead::default(),
        )?;
        let forced = asked.force;
        let node = &mut self.nodes[place];
        node.unnoted_run = observed.unnoted_run();
        node.confirmed = observed.confirmed;
        let (mut action, mut reason) = plan::decide(&observed.inspection.state, forced);
        if action == Action::Skip {
            self.artifacts.extend(observed.inspection.artifact.map(|a| (stage.id.clone(), a)));
            return Ok((false, action, reason));
        }
        let mut anew = false;
        if !forced && !execution.restarted {
            (anew, action, reason) = by_policy(stage.options.resume, action, reason)?;
        }
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
            node.places = record.places;
            node.baseline = record.before.filter(|_| record.status != Status::Completed);
        }
        Ok((anew, action, reason))
    }

    /// Asks stages that keep nothing to be made ready for this one, and says whether there are any.
    fn waits_for_inputs(&mut self, place: NodeIndex) -> bool {
        // What keeps nothing and was passed over since nobody was to need it is needed after all.
        let passed_over = |node: &Node| {
            node.transient && node.phase == Phase::Done && node.action == Action::Skip
        };
        let to_come = |place: &NodeIndex| {
            let node = &self.nodes[*place];
            matches!(node.phase, Phase::OnDemand | Phase::WaitingForInputs | Phase::Running)
                || passed_over(node)
        };
        let Node { before, follows, .. } = &self.nodes[place];
        let before = before.iter().filter(|b| !follows.contains(b)).copied().collect::<Vec<_>>();
        let asked: Vec<NodeIndex> = before.into_iter().filter(to_come).collect();
        if asked.is_empty() {
            return false;
        }
        let node = &mut self.nodes[place];
        (node.phase, node.open) = (Phase::WaitingForInputs, asked.len());
        for b in asked {
            let node = &mut self.nodes[b];
            if matches!(node.phase, Phase::OnDemand | Phase::Done) {
                (node.phase, node.action) = (Phase::WaitingForInputs, Action::Run);
                self.summary.skipped.retain(|id| *id != node.stage.id);
                self.ready.insert(b);
            }
        }
        true
    }

    fn spawn(
        &mut self,
        place: NodeIndex,
        anew: bool,
        lock: Option<Lock>,
    ) -> Result<(), StageError> {
        let own_gpu = if self.wants_gpu(place) { self.free_gpus.pop() } else { None };
        let shared = || self.nodes[place].follows.iter().find_map(|&source| self.nodes[source].gpu);
        let gpu = own_gpu.or_else(|| shared().filter(|_| self.wants_gpu(place)));
        let is_beside = self.begins_beside(place);
        let node = &mut self.nodes[place];
        (node.phase, node.gpu, node.is_beside) = (Phase::Running, gpu, is_beside);
        let begin = Begin {
            stage: node.stage,
            action: node.action.to_string(),
            reason: node.reason.clone(),
            progress: node.action.progress(),
            round: node.round.clone(),
            anew,
            micro_batch_splits: node.micro_batch_splits,
            inputs: inputs(node.stage, &self.artifacts),
            gpu,
            made: node.made.clone(),
            before: node.baseline.clone(),
            places: node.places.clone(),
            aside: None,
        };
        let (execution, journal, end) = (self.execution, self.journal, self.ended.0.clone());
        let upstreams = self.upstreams;
        let work = move || {
            let lock = lock.map_or_else(|| wait_for(execution, &begin.stage.id), Ok);
            let result = match lock {
                Ok(lock) => carry_out(execution, journal, begin, (upstreams, &lock)),
                Err(error) => Err(error),
            };
            let _ = end.send(Ended { place, result, gpu: own_gpu });
        };
        let thread =
            std::thread::Builder::new().name(node.stage.id.to_string()).stack_size(STACK_SIZE);
        match thread.spawn_scoped(self.scope, work) {
            Ok(_) => {
                self.running += 1;
                self.beside += usize::from(is_beside);
                self.enter_bracket(place);
                self.let_followers_begin(place);
                Ok(())
            }
            Err(error) => {
                self.free_gpus.extend(own_gpu);
                self.nodes[place].phase = Phase::Waiting;
                Err(StageError::new(Failure::Storage, format!("failed to start a thread: {error}")))
            }
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
            format!("must, and there is nothing to go on with: {reason}"),
        )
        .at("resume")),
        (_, action) => Ok((false, action, reason)),
    }
}

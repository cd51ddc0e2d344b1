//! How a stage ends, well or badly, and what that means for those that wait for it.

use std::collections::HashSet;

use chrono::Utc;
use pipe_core::Status;
use pipe_core::failure::StageError;
use pipe_core::progress::{Event, EventListener};

use super::Scheduler;
use super::node::{Node, NodeIndex, Phase};
use crate::artifact::Outcome;
use crate::exec::execution::{Ahead, inspect_stage, request};
use crate::pipeline_file::LoadedStage;
use crate::plan::Action;
use crate::policy::OnFailure;
use crate::state::{Outputs, Progress, Record, lock_stage};
use crate::upstream::Upstream;

impl Scheduler<'_, '_> {
    pub(super) fn skip(&mut self, place: NodeIndex, reason: String) {
        let node = &self.nodes[place];
        if node.unsettled || node.confirmed.is_some() || node.unnoted_run.is_some() {
            self.settle(place, &reason);
        }
        self.nodes[place].has_run = self.nodes[place].transient && self.is_behind_moved(place);
        let id = &self.nodes[place].stage.id;
        self.journal.event(id, &Event::Skipped { reason });
        self.summary.skipped.push(id.clone());
        self.end_or_pause(place);
    }

    /// Its work is done: all of it, or as far as its rung.
    fn end_or_pause(&mut self, place: NodeIndex) {
        match self.nodes[place].bracket {
            // Where each stage has a process of its own, another one decides.
            Some(bracket) if !self.execution.is_part => self.pause(place, bracket),
            _ => self.finish(place),
        }
    }

    /// Nothing more is to come of it.
    pub(super) fn finish(&mut self, place: NodeIndex) {
        let id = &self.nodes[place].stage.id;
        self.upstreams.end(id, Upstream::Ended(self.artifacts.get(id).cloned()));
        self.end(place, Phase::Done);
    }

    /// Writes the record of a stage that is done and has none that says so (its process ended
    /// between its last file and its record, or the record was damaged), whose files were found
    /// unchanged where it does not know that, or that is done by another run than it names.
    fn settle(&self, place: NodeIndex, reason: &str) {
        let (root, pipeline) = (self.execution.root, &self.execution.graph.pipeline.name);
        let Node { stage: LoadedStage { id, kind, stage, .. }, confirmed, unnoted_run, .. } =
            &self.nodes[place];
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
            record.runs = stage.runs();
            (record.before, changed) = (None, true);
            record.places.clear();
        }
        if unnoted_run.is_some() && record.run != *unnoted_run {
            (record.run, changed) = (unnoted_run.clone(), true);
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
    pub(super) fn take_in(&mut self, place: NodeIndex, result: Result<Outcome, StageError>) {
        let stage = self.nodes[place].stage;
        match result {
            Ok(outcome) => {
                self.artifacts
                    .extend(outcome.artifact.map(|artifact| (stage.id.clone(), artifact)));
                // Of several rungs the last one tells.
                self.summary.finished.retain(|(id, _)| *id != stage.id);
                self.summary.finished.push((stage.id.clone(), outcome.summary));
                self.nodes[place].has_run =
                    !self.nodes[place].transient || self.is_behind_moved(place);
                if let Err(error) = self.look_at_followed(place) {
                    self.fail(place, error);
                    return;
                }
                self.end_or_pause(place);
            }
            Err(error) => self.fail(place, error),
        }
    }

    pub(super) fn fail(&mut self, place: NodeIndex, error: StageError) {
        let stage = self.nodes[place].stage;
        if self.nodes[place].phase != Phase::Running {
            // It failed before it began, so nobody has said so yet.
            let event = Event::Failed { failure: error.failure, message: error.message.clone() };
            if self.nodes[place].is_elsewhere {
                self.journal.tell(&stage.id, &event);
            } else {
                self.journal.event(&stage.id, &event);
            }
        }
        self.halted |= !self.execution.keep_going
            && stage.options.on_failure == OnFailure::Stop
            && self.nodes[place].bracket.is_none();
        let why = format!("stage {} failed", stage.id);
        self.upstreams.end(&stage.id, Upstream::Failed(why));
        // Of several rungs the last one tells.
        self.summary.finished.retain(|(id, _)| *id != stage.id);
        self.summary.failed.push((stage.id.clone(), error));
        self.break_off(place);
        self.decide_brackets();
    }

    /// What a stage found out may decide what the one hands on that it followed: looks at that once
    /// more.
    fn look_at_followed(&mut self, place: NodeIndex) -> Result<(), StageError> {
        let (execution, follows) = (self.execution, self.nodes[place].follows.clone());
        for source in follows.into_iter().filter(|&s| self.nodes[s].phase == Phase::Done) {
            let stage = self.nodes[source].stage;
            let record = Record::load(execution.root, &execution.graph.pipeline.name, &stage.id);
            let none = HashSet::new();
            let asked = request(execution, stage, self.nodes[source].round.as_ref());
            let found = inspect_stage(
                execution,
                (stage, &asked),
                record,
                &self.artifacts,
                &none,
                &Ahead::default(),
            )?;
            if let Some(artifact) = found.inspection.artifact {
                self.artifacts.insert(stage.id.clone(), artifact);
            }
        }
        Ok(())
    }

    /// What depends on a failed stage never begins, unless it can do without.
    fn break_off(&mut self, place: NodeIndex) {
        self.nodes[place].phase = Phase::Skipped;
        // A stage that was stopped did not fail, and nothing begins after it.
        let is_stopped = self.execution.stop.requested().is_some();
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
                    if !is_stopped {
                        let text =
                            format!("{} failed and is passed over", self.nodes[from].stage.id);
                        self.journal.event(&self.nodes[next].stage.id, &Event::Warning { text });
                    }
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

    /// A stage runs: those begin that take what it makes while it makes that.
    pub(super) fn let_followers_begin(&mut self, place: NodeIndex) {
        for next in self.nodes[place].after.clone() {
            if self.nodes[next].follows.contains(&place) && self.nodes[next].phase == Phase::Waiting
            {
                self.let_go(next);
            }
        }
        self.nodes[place].has_let_followers_begin = true;
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
    pub(super) fn release(&mut self, place: NodeIndex) {
        let is_let_go = |scheduler: &Self, next: NodeIndex| {
            scheduler.nodes[place].has_let_followers_begin
                && scheduler.nodes[next].follows.contains(&place)
        };
        for next in self.nodes[place].after.clone() {
            if self.nodes[next].phase == Phase::Waiting && !is_let_go(self, next) {
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

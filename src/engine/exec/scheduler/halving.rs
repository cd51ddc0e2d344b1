//! Stages that are halved together: who goes on from its rung, and who has ended.

use std::collections::{HashMap, HashSet};

use pipe_core::failure::StageError;
use pipe_core::ids::StageId;
use pipe_core::progress::{Event, EventListener};

use super::Scheduler;
use super::node::{Node, NodeIndex, Phase};
use crate::exec::execution::{Ahead, Execution, InspectedStage, inspect_stage, request};
use crate::exec::rounds::{Bracket, Round, progress};
use crate::inspection::Request;
use crate::plan::Action;
use crate::policy::{Halving, MemberProgress};
use crate::state::Record;

/// The stages of one halving, as far as they are.
pub(super) struct BracketState<'env> {
    halving: &'env Halving,
    places: Vec<NodeIndex>,
    members_progress: Vec<MemberProgress>,
    /// See [`Halving::courses`].
    promoted: Vec<usize>,
    running: u32,
}

/// How far those are that a plan found at their rungs.
pub(super) fn members_progress(
    execution: &Execution,
    found: &HashMap<StageId, InspectedStage>,
) -> HashMap<StageId, MemberProgress> {
    let of = |found: &InspectedStage| {
        let known = progress(&found.inspection);
        let until = found.round.as_ref().map_or(0, |round| round.until);
        // It is at its rung, which need not be its end.
        let position = if known.has_ended { until } else { known.position };
        MemberProgress { position, has_ended: false, ..known }
    };
    let halved = found.iter().filter(|(_, found)| found.round.is_some());
    let is_forced = |id: &StageId| execution.forced.contains(id);
    let all = halved.map(|(id, found)| {
        (id.clone(), if is_forced(id) { MemberProgress::default() } else { of(found) })
    });
    all.collect()
}

/// The brackets of a plan. Each of their stages knows which is its own.
pub(super) fn brackets<'env>(
    execution: &Execution<'env>,
    nodes: &mut [Node],
    mut known: HashMap<StageId, MemberProgress>,
) -> Vec<BracketState<'env>> {
    let places: HashMap<StageId, NodeIndex> =
        nodes.iter().enumerate().map(|(place, node)| (node.stage.id.clone(), place)).collect();
    let all = Bracket::all(execution, |id| places.contains_key(id));
    let state = |(number, bracket): (usize, Bracket<'env>)| {
        let places: Vec<NodeIndex> =
            bracket.members.iter().filter_map(|member| places.get(&member.id).copied()).collect();
        let mut of = |member| known.remove(member).unwrap_or_default();
        let members_progress: Vec<MemberProgress> =
            bracket.members.iter().map(|m| of(&m.id)).collect();
        places.iter().for_each(|&place| nodes[place].bracket = Some(number));
        let rung = |&place: &NodeIndex| nodes[place].round.as_ref().map_or(0, |r| r.course.rung);
        let promoted = places.iter().map(rung).collect();
        BracketState { halving: bracket.halving, places, members_progress, promoted, running: 0 }
    };
    all.into_iter().enumerate().map(state).collect()
}

impl Scheduler<'_, '_> {
    /// Whether as many of a stage's bracket run as may.
    pub(super) fn is_bracket_full(&self, place: NodeIndex) -> bool {
        let Some(bracket) = self.nodes[place].bracket.map(|at| &self.brackets[at]) else {
            return false;
        };
        bracket.halving.max_parallel.is_some_and(|most| bracket.running >= most)
    }

    pub(super) fn enter_bracket(&mut self, place: NodeIndex) {
        if let Some(at) = self.nodes[place].bracket {
            self.brackets[at].running += 1;
        }
    }

    pub(super) fn leave_bracket(&mut self, place: NodeIndex) {
        if let Some(at) = self.nodes[place].bracket {
            self.brackets[at].running -= 1;
        }
    }

    /// A stage has come to its rung.
    pub(super) fn pause(&mut self, place: NodeIndex, at: usize) {
        match self.progress(place) {
            Ok(progress) => {
                let bracket = &mut self.brackets[at];
                if let Some(member) = bracket.places.iter().position(|&other| other == place) {
                    bracket.members_progress[member] = progress;
                }
                self.nodes[place].phase = Phase::Paused;
                self.decide(at);
            }
            Err(error) => self.fail(place, error),
        }
    }

    /// How far a stage is that was carried to its rung.
    fn progress(&self, place: NodeIndex) -> Result<MemberProgress, StageError> {
        let (execution, stage) = (self.execution, self.nodes[place].stage);
        let record = Record::load(execution.root, &execution.graph.pipeline.name, &stage.id);
        let whole = Request { force: false, until: None, ..request(execution, stage, None) };
        let none = HashSet::new();
        let found = inspect_stage(
            execution,
            (stage, &whole),
            record,
            &self.artifacts,
            &none,
            &Ahead::default(),
        )?;
        let known = progress(&found.inspection);
        let until = self.nodes[place].round.as_ref().map_or(0, |round| round.until);
        // What it was carried to stands, whatever is asked of it besides.
        Ok(MemberProgress { position: known.position.max(until), ..known })
    }

    /// Some stages may have failed: decides in all brackets.
    pub(super) fn decide_brackets(&mut self) {
        (0..self.brackets.len()).for_each(|at| self.decide(at));
    }

    /// Lets those go on, and end, of which it is known by now.
    fn decide(&mut self, at: usize) {
        // What a signal has ended did not fail.
        if self.execution.stop.requested().is_some() {
            return;
        }
        let bracket = &mut self.brackets[at];
        for (progress, &place) in bracket.members_progress.iter_mut().zip(&bracket.places) {
            progress.has_failed = self.nodes[place].phase == Phase::Skipped;
        }
        let courses = bracket.halving.courses(&bracket.members_progress, &mut bracket.promoted);
        let (halving, places) = (bracket.halving, bracket.places.clone());
        for (place, course) in places.into_iter().zip(courses) {
            let node = &mut self.nodes[place];
            let was_at = node.round.as_ref().map_or(0, |round| round.course.rung);
            // One that runs is on its way to its rung.
            if node.phase != Phase::Paused || (course.rung == was_at && !course.is_final) {
                continue;
            }
            let round = Round::of(halving, course);
            let told = round.place().unwrap_or_default();
            node.round = Some(round);
            if course.rung > was_at {
                (node.action, node.phase) = (Action::Run, Phase::Waiting);
                let (id, until) = (&node.stage.id, halving.until(course.rung));
                let text = format!("{id} goes on to epoch {until}: {told}");
                self.journal.event(&node.stage.id, &Event::Message { text });
                self.summary.skipped.retain(|id| *id != node.stage.id);
                self.ready.insert(place);
            } else {
                if course.rung + 1 < halving.rungs.len() {
                    let text = format!("{} goes no further: {told}", node.stage.id);
                    self.journal.event(&node.stage.id, &Event::Message { text });
                }
                self.finish(place);
            }
        }
    }
}

//! What is to be done for each stage, and why. Pure: the same graph, selection and states give the
//! same plan.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;

use pipe_core::ids::StageId;
use serde::{Deserialize, Serialize};

use crate::exec::{InspectedStage, Round};
use crate::graph::{Graph, Selection};
use crate::identity::Difference;
use crate::inspection::StageState;
use crate::pipeline_file::{Input, LoadedStage};
use crate::reference::DependencyMode;
use crate::state::Progress;

/// What is to be done for one stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    Run,
    Skip,
    Resume { done: u64, total: u64 },
    Extend { from: u64, to: u64 },
}

impl Action {
    /// How far the stage is that is gone on with.
    pub fn progress(&self) -> Option<Progress> {
        match *self {
            Action::Run | Action::Skip => None,
            Action::Resume { done, total } => Some(Progress { position: done, target: total }),
            Action::Extend { from, to } => Some(Progress { position: from, target: to }),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Action::Run => f.write_str("run"),
            Action::Skip => f.write_str("skip"),
            Action::Resume { done, total } => write!(f, "resume at epoch {done}/{total}"),
            Action::Extend { from, to } => write!(f, "extend {from} -> {to}"),
        }
    }
}

/// One stage of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub stage: StageId,
    pub kind: String,
    #[serde(flatten)]
    pub action: Action,
    pub reason: String,
    /// The settings that differ from those of the last time, where that is the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Difference>,
    /// A stage that runs before it and may change what is said here: it is looked at again then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depends_on: Option<StageId>,
    /// Digest of all that decides the result, as far as that is known.
    pub identity: String,
}

/// The steps in the order in which they are done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub steps: Vec<Step>,
}

/// What to do for a stage that keeps something on disk, when all that it needs is there.
pub fn decide(state: &StageState, forced: bool) -> (Action, String) {
    match state {
        _ if forced => (Action::Run, "forced".to_owned()),
        StageState::Done { reason } => (Action::Skip, reason.clone()),
        StageState::Partial { done, total, reason } => {
            (Action::Resume { done: *done, total: *total }, reason.clone())
        }
        StageState::Extendable { from, to } => {
            (Action::Extend { from: *from, to: *to }, "more epochs of the same run".to_owned())
        }
        StageState::Absent { reason, .. } => (Action::Run, reason.clone()),
        StageState::Transient => (Action::Run, String::new()),
    }
}

/// Why a stage runs that would be up to date by itself.
fn runs_because_of(stage: &LoadedStage, before: &StageId) -> String {
    let order = if stage.streams_from(before) { "beside" } else { "before" };
    format!("{before} runs {order} it")
}

/// Whether what a stage before it does may be all that is missing: not its own settings are the
/// reason, but what it reads.
fn may_be_mended(
    found: &InspectedStage,
    stage: &LoadedStage,
    observed: &HashMap<StageId, InspectedStage>,
    running: &HashSet<&StageId>,
) -> bool {
    match &found.inspection.state {
        StageState::Absent { changes, .. } if changes.is_empty() => {
            // It was made before from what is not known now: what stands of a stage that runs is
            // not what that will hand on.
            let is_unknown = |input: &Input| {
                let before = observed.get(&input.stage);
                input.counts == DependencyMode::Content
                    && (running.contains(&input.stage)
                        || before.is_none_or(|f| f.inspection.artifact.is_none()))
            };
            let made = found.record.as_ref().is_some_and(|record| record.made.is_some());
            made && stage.inputs.iter().any(is_unknown)
        }
        StageState::Absent { changes, .. } => {
            let own = stage.manifest.record();
            changes.iter().all(|change| !own.contains_key(&change.key))
        }
        StageState::Partial { .. } | StageState::Extendable { .. } => true,
        StageState::Done { .. } | StageState::Transient => false,
    }
}

/// The stages that the one at `place` needs directly and that run.
fn running_before<'a>(
    graph: &'a Graph,
    place: usize,
    running: &[Option<usize>],
) -> HashSet<&'a StageId> {
    let before = graph.before(place).into_iter().filter(|before| running[*before].is_some());
    before.map(|before| &graph.pipeline.stages[before].id).collect()
}

/// What is to be done for a stage, and why.
struct Decision {
    action: Action,
    reason: String,
    depends_on: Option<StageId>,
}

impl Decision {
    /// The same with a word about its round.
    fn in_round(self, round: Option<&Round>) -> Self {
        let Some(round) = round.map(Round::in_words) else { return self };
        Self { reason: format!("{}; {round}", self.reason), ..self }
    }
}

/// Decides for every selected stage. `observed` has an entry for each of them.
///
/// What a stage hands on is known when it is up to date, and not before it has run where it is not:
/// an old output is never taken for a future one. So a stage behind one that runs counts as one
/// that runs, however far behind it is. When its turn comes, [`execute`](crate::exec::execute)
/// looks at it again, and skips it after all if it is as good as before.
pub fn plan(
    graph: &Graph,
    selection: &Selection,
    forced: &BTreeSet<StageId>,
    observed: &HashMap<StageId, InspectedStage>,
) -> Plan {
    // By place in the file, so that each name is looked up once.
    let stages = &graph.pipeline.stages;
    let found: Vec<Option<&InspectedStage>> = stages
        .iter()
        .map(|stage| observed.get(&stage.id).filter(|_| selection.stages.contains(&stage.id)))
        .collect();
    let mut decided: Vec<Option<Decision>> = stages.iter().map(|_| None).collect();
    // The stage that runs and that others will have to wait for: itself, or one before a stage that
    // keeps nothing.
    let mut running: Vec<Option<usize>> = vec![None; stages.len()];
    let is_transient = |place: usize| found[place].is_some_and(InspectedStage::is_transient);
    // Forwards: stages that keep something on disk, by their own state and by what runs before
    // them.
    for &place in graph.order() {
        let Some(seen) = found[place] else { continue };
        let before = graph.before(place).into_iter().find_map(|before| running[before]);
        if is_transient(place) {
            running[place] = before;
            continue;
        }
        let waits_for = before.map(|before| stages[before].id.clone());
        let round = seen.round.as_ref();
        let is_open = round.is_some_and(|round| !round.course.is_final);
        let is_forced = forced.contains(&stages[place].id);
        let decision = match (decide(&seen.inspection.state, is_forced), waits_for) {
            ((Action::Skip, _), Some(before)) => Decision {
                action: Action::Run,
                reason: runs_because_of(&stages[place], &before),
                depends_on: Some(before),
            },
            ((action, reason), waits_for) => {
                let before = running_before(graph, place, &running);
                let open = !is_forced && may_be_mended(seen, &stages[place], observed, &before);
                Decision { action, reason, depends_on: waits_for.filter(|_| open) }
            }
        };
        // What is at its rung may go on from there.
        let runs = decision.action != Action::Skip || is_open;
        running[place] = runs.then_some(place);
        decided[place] = Some(decision.in_round(round));
    }
    // Backwards: stages that keep nothing run when somebody needs them.
    for &place in graph.order().iter().rev().filter(|&&place| is_transient(place)) {
        let mut after = graph.after(place);
        after.retain(|&after| found[after].is_some());
        let runs = |place: usize| decided[place].as_ref().is_some_and(|d| d.action != Action::Skip);
        let (action, reason) = match after.iter().find(|&&after| runs(after)) {
            Some(&after) => (Action::Run, format!("{} needs it", stages[after].id)),
            None if after.is_empty() => (Action::Run, "asked for".to_owned()),
            None => (Action::Skip, "nothing that runs needs it".to_owned()),
        };
        decided[place] = Some(Decision { action, reason, depends_on: None });
    }
    let step = |&place: &usize| {
        let (found, Decision { action, reason, depends_on }) =
            (found[place]?, decided[place].take()?);
        let changes = match &found.inspection.state {
            StageState::Absent { changes, .. } => changes.clone(),
            _ => Vec::new(),
        };
        let (stage, kind) = (stages[place].id.clone(), stages[place].kind.clone());
        Some(Step {
            stage,
            kind,
            action,
            reason,
            changes,
            depends_on,
            identity: found.identity.clone(),
        })
    };
    Plan { steps: graph.order().iter().filter_map(step).collect() }
}

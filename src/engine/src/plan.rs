//! What is to be done for each stage, and why. Pure: the same graph, selection and states give the same plan.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::graph::Graph;
use crate::kind::{Observation, StageId, State};

/// What is to be done for one stage.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    Run,
    Skip,
    Resume { done: u64, total: u64 },
    Extend { from: u64, to: u64 },
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
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Step {
    pub stage: StageId,
    #[serde(flatten)]
    pub action: Action,
    pub reason: String,
}

/// The steps in the order in which they are done.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Plan {
    pub steps: Vec<Step>,
}

/// What to do for a stage that keeps something on disk, when all that it needs is there.
pub fn decide(state: &State) -> (Action, String) {
    match state {
        State::Done { reason } => (Action::Skip, reason.clone()),
        State::Partial { done, total, reason } => {
            (Action::Resume { done: *done, total: *total }, reason.clone())
        }
        State::Extendable { from, to } => {
            (Action::Extend { from: *from, to: *to }, format!("epochs {from} -> {to}"))
        }
        State::Absent { reason } => (Action::Run, reason.clone()),
        State::Transient => (Action::Run, String::new()),
    }
}

/// Decides for every selected stage. `observed` has an entry for each of them.
///
/// A stage that is done runs if one before it runs and what that one will hand on is not known yet: when it is,
/// [`execute`](crate::exec::execute) looks again, and skips the stage after all if it is as good as before.
pub fn plan(graph: &Graph, selected: &BTreeSet<StageId>, observed: &BTreeMap<StageId, Observation>) -> Plan {
    let transient = |id: &StageId| observed.get(id).is_some_and(|o| matches!(o.state, State::Transient));
    let mut decided: BTreeMap<StageId, (Action, String)> = BTreeMap::new();
    // Forwards: stages that keep something on disk, by their own state and by what runs before them.
    for stage in graph.stages().filter(|s| selected.contains(&s.id) && !transient(&s.id)) {
        let Some(observation) = observed.get(&stage.id) else { continue };
        let renewed = graph.dependencies(&stage.id).into_iter().find_map(|(_, dependency)| {
            let (action, _) = decided.get(&dependency.id)?;
            let known = observed.get(&dependency.id).is_some_and(|o| o.artifact.is_some());
            (*action != Action::Skip && !known).then_some(&dependency.id)
        });
        let decision = match (decide(&observation.state), renewed) {
            ((Action::Skip, _), Some(before)) => (Action::Run, format!("{before} runs before it")),
            (decision, _) => decision,
        };
        decided.insert(stage.id.clone(), decision);
    }
    // Backwards: stages that keep nothing run when somebody needs them.
    let order: Vec<&StageId> = graph.stages().map(|s| &s.id).filter(|id| selected.contains(*id)).collect();
    for id in order.iter().rev().filter(|id| transient(id)) {
        let dependents: Vec<&StageId> =
            graph.dependents(id).into_iter().map(|s| &s.id).filter(|d| selected.contains(*d)).collect();
        let running = dependents.iter().find(|d| decided.get(**d).is_some_and(|(a, _)| *a != Action::Skip));
        let decision = match running {
            Some(dependent) => (Action::Run, format!("{dependent} needs it")),
            None if dependents.is_empty() => (Action::Run, "asked for".to_owned()),
            None => (Action::Skip, "nothing that runs needs it".to_owned()),
        };
        decided.insert((*id).clone(), decision);
    }
    let steps = order
        .into_iter()
        .filter_map(|id| {
            decided.remove(id).map(|(action, reason)| Step { stage: id.clone(), action, reason })
        })
        .collect();
    Plan { steps }
}

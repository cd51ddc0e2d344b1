//! What is to be done for each stage, and why. Pure: the same graph, selection and states give the same plan.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::graph::Graph;
use crate::kind::{StageId, State};

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

impl Plan {
    pub fn is_idle(&self) -> bool {
        self.steps.iter().all(|s| s.action == Action::Skip)
    }
}

/// Decides for every selected stage. `states` has an entry for each of them.
pub fn plan(graph: &Graph, selected: &BTreeSet<StageId>, states: &BTreeMap<StageId, State>) -> Plan {
    let mut decided: BTreeMap<StageId, (Action, String)> = BTreeMap::new();
    // Forwards: stages that keep something on disk, by their own state and by what runs before them.
    for stage in graph.stages().filter(|s| selected.contains(&s.id)) {
        let state = states.get(&stage.id);
        if matches!(state, Some(State::Transient)) {
            continue;
        }
        let renewed = graph.dependencies(&stage.id).into_iter().find_map(|(_, dependency)| {
            let (action, _) = decided.get(&dependency.id)?;
            (*action != Action::Skip).then_some(&dependency.id)
        });
        let decision = match (state, renewed) {
            (Some(State::Done { .. }), Some(before)) => (Action::Run, format!("{before} runs before it")),
            (Some(State::Done { reason }), None) => (Action::Skip, reason.clone()),
            (Some(State::Partial { done, total, reason }), _) => {
                (Action::Resume { done: *done, total: *total }, reason.clone())
            }
            (Some(State::Extendable { from, to }), _) => {
                (Action::Extend { from: *from, to: *to }, format!("epochs {from} -> {to}"))
            }
            (Some(State::Absent { reason }), _) => (Action::Run, reason.clone()),
            (Some(State::Transient) | None, _) => (Action::Run, String::new()),
        };
        decided.insert(stage.id.clone(), decision);
    }
    // Backwards: stages that keep nothing run when somebody needs them.
    let order: Vec<&StageId> = graph.stages().map(|s| &s.id).filter(|id| selected.contains(*id)).collect();
    for id in order.iter().rev().filter(|id| matches!(states.get(*id), Some(State::Transient))) {
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

//! What is to be done for each stage, and why. Pure: the same graph, selection and states give the same plan.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::exec::Observed;
use crate::graph::{Graph, Selection};
use crate::identity::Difference;
use crate::kind::{StageId, State};
use crate::store::Progress;

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
            Action::Resume { done, total } => Some(Progress { epoch: done, epochs: total }),
            Action::Extend { from, to } => Some(Progress { epoch: from, epochs: to }),
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
pub fn decide(state: &State, forced: bool) -> (Action, String) {
    match state {
        _ if forced => (Action::Run, "forced".to_owned()),
        State::Done { reason } => (Action::Skip, reason.clone()),
        State::Partial { done, total, reason } => {
            (Action::Resume { done: *done, total: *total }, reason.clone())
        }
        State::Extendable { from, to } => {
            (Action::Extend { from: *from, to: *to }, "more epochs of the same run".to_owned())
        }
        State::Absent { reason, .. } => (Action::Run, reason.clone()),
        State::Transient => (Action::Run, String::new()),
    }
}

/// Decides for every selected stage. `observed` has an entry for each of them.
///
/// A stage that is done runs if one before it runs and what that one will hand on is not known yet: when it is,
/// [`execute`](crate::exec::execute) looks again, and skips the stage after all if it is as good as before.
pub fn plan(
    graph: &Graph,
    selection: &Selection,
    forced: &BTreeSet<StageId>,
    observed: &HashMap<StageId, Observed>,
) -> Plan {
    struct Decision {
        action: Action,
        reason: String,
        depends_on: Option<StageId>,
    }
    let selected = &selection.stages;
    let transient = |id: &StageId| observed.get(id).is_some_and(Observed::is_transient);
    let mut decided: HashMap<&StageId, Decision> = HashMap::new();
    // Forwards: stages that keep something on disk, by their own state and by what runs before them.
    for stage in graph.stages().filter(|s| selected.contains(&s.id) && !transient(&s.id)) {
        let Some(found) = observed.get(&stage.id) else { continue };
        let renewed = graph.dependencies(&stage.id).into_iter().find_map(|(_, dependency)| {
            let before = decided.get(&dependency.id)?;
            let known = observed.get(&dependency.id).is_some_and(|o| o.observation.artifact.is_some());
            (before.action != Action::Skip && !known).then(|| dependency.id.clone())
        });
        let (action, reason) = decide(&found.observation.state, forced.contains(&stage.id));
        let decision = match (action, renewed) {
            (Action::Skip, Some(before)) => Decision {
                action: Action::Run,
                reason: format!("{before} runs before it"),
                depends_on: Some(before),
            },
            (action, _) => Decision { action, reason, depends_on: None },
        };
        decided.insert(&stage.id, decision);
    }
    // Backwards: stages that keep nothing run when somebody needs them.
    let order: Vec<&StageId> = graph.stages().map(|s| &s.id).filter(|id| selected.contains(*id)).collect();
    for id in order.iter().rev().filter(|id| transient(id)) {
        let dependents: Vec<&StageId> =
            graph.dependents(id).into_iter().map(|s| &s.id).filter(|d| selected.contains(*d)).collect();
        let running = dependents.iter().find(|d| decided.get(*d).is_some_and(|d| d.action != Action::Skip));
        let (action, reason) = match running {
            Some(dependent) => (Action::Run, format!("{dependent} needs it")),
            None if dependents.is_empty() => (Action::Run, "asked for".to_owned()),
            None => (Action::Skip, "nothing that runs needs it".to_owned()),
        };
        decided.insert(id, Decision { action, reason, depends_on: None });
    }
    let step = |id: &StageId| {
        let Decision { action, reason, depends_on } = decided.remove(id)?;
        let changes = match observed.get(id).map(|o| &o.observation.state) {
            Some(State::Absent { changes, .. }) => changes.clone(),
            _ => Vec::new(),
        };
        Some(Step {
            stage: id.clone(),
            kind: graph.stage(id)?.kind.clone(),
            action,
            reason,
            changes,
            depends_on,
            identity: observed.get(id)?.identity.clone(),
        })
    };
    Plan { steps: order.into_iter().filter_map(step).collect() }
}

//! A stage of the plan as the scheduler sees it, and all of them as they are before the first one
//! begins.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use pipe_core::Status;
use pipe_core::ids::StageId;

use crate::artifact::Artifact;
use crate::exec::execution::{Execution, InspectedStage};
use crate::exec::priority::by_priority;
use crate::exec::rounds::Round;
use crate::pipeline_file::LoadedStage;
use crate::plan::{Action, Plan};
use crate::state::{OutputBaseline, Outputs};

/// A stage's place in the order in which stages begin.
pub(super) type NodeIndex = usize;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Stages before it have not ended.
    Waiting,
    /// It could begin, and keeps nothing: it begins when a stage that needs it does.
    OnDemand,
    /// Waits for stages that keep nothing to be made ready for it.
    WaitingForInputs,
    Running,
    /// It has come to its rung, and waits for the others to tell whether it goes on.
    Paused,
    Done,
    /// Failed, or never to begin.
    Skipped,
}

/// A stage of the plan.
pub(super) struct Node<'a> {
    pub stage: &'a LoadedStage,
    pub action: Action,
    pub reason: String,
    pub transient: bool,
    /// Another process has it.
    pub is_elsewhere: bool,
    /// How far it is carried now, where it is halved with others.
    pub round: Option<Round>,
    /// The place of those among the brackets.
    pub bracket: Option<usize>,
    /// What it last made, as it was found when its turn came.
    pub made: Option<Outputs>,
    /// See [`Record::micro_batch_splits`].
    pub micro_batch_splits: u32,
    /// See [`Record::before`].
    pub baseline: Option<OutputBaseline>,
    /// See [`Record::places`].
    pub places: BTreeSet<String>,
    /// Its record does not say that it was completed.
    pub unsettled: bool,
    /// See [`InspectedStage::confirmed`].
    pub confirmed: Option<Outputs>,
    /// See [`InspectedStage::unnoted_run`].
    pub unnoted_run: Option<PathBuf>,
    /// It was carried out by this run, or keeps nothing and stands behind one that was.
    pub has_run: bool,
    pub phase: Phase,
    pub before: Vec<NodeIndex>,
    /// Those before it that it takes from while they run: it begins when they do.
    pub follows: Vec<NodeIndex>,
    /// Those that follow it have heard that it runs.
    pub has_let_followers_begin: bool,
    /// It began beside a stage that it follows.
    pub is_beside: bool,
    /// The GPU that it has.
    pub gpu: Option<u32>,
    pub after: Vec<NodeIndex>,
    /// Stages before it that have not ended.
    pub open: usize,
}

/// The stages of a plan in the order in which they begin, and what those that are up to date hand
/// on.
pub(super) fn nodes<'a>(
    execution: &Execution<'a>,
    plan: &Plan,
    mut observed: HashMap<StageId, InspectedStage>,
) -> (Vec<Node<'a>>, HashMap<StageId, Artifact>) {
    let steps = by_priority(execution, plan, &observed);
    let places: HashMap<&StageId, NodeIndex> =
        steps.iter().enumerate().map(|(i, s)| (&s.stage, i)).collect();
    let mut artifacts = HashMap::new();
    let mut nodes = Vec::with_capacity(steps.len());
    for step in &steps {
        let Some(stage) = execution.graph.stage(&step.stage) else { continue };
        let found = observed.remove(&step.stage);
        let transient = found.as_ref().is_some_and(InspectedStage::is_transient);
        let record = found.as_ref().and_then(|o| o.record.as_ref());
        let unsettled =
            !transient && record.is_none_or(|record| record.status != Status::Completed);
        let unnoted_run = found.as_ref().and_then(InspectedStage::unnoted_run);
        let (artifact, confirmed, round) = found.map_or((None, None, None), |found| {
            (found.inspection.artifact, found.confirmed, found.round)
        });
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
        let mut follows = before.clone();
        follows.retain(|&place| stage.streams_from(&steps[place].stage));
        nodes.push(Node {
            stage,
            action: step.action.clone(),
            reason: step.reason.clone(),
            transient,
            is_elsewhere: false,
            round,
            bracket: None,
            made: None,
            micro_batch_splits: 0,
            baseline: None,
            places: BTreeSet::new(),
            unsettled,
            confirmed,
            unnoted_run,
            has_run: false,
            phase: Phase::Waiting,
            open: before.len(),
            before,
            follows,
            has_let_followers_begin: false,
            is_beside: false,
            gpu: None,
            after: in_plan(execution.graph.dependents(&step.stage)),
        });
    }
    (nodes, artifacts)
}

//! How the stages stand whose results are taken while they are made, for those that take them.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use pipe_core::ids::StageId;

use super::execution::{Execution, inspect};
use crate::graph::Targets;
use crate::plan::Plan;
use crate::upstream::{Upstream, Upstreams};

/// All stages of a run, for those that take what others make while they make it.
pub struct RunningStages<'a> {
    execution: &'a Execution<'a>,
    /// The stages that this process runs.
    planned: HashSet<StageId>,
    ended: Mutex<HashMap<StageId, Upstream>>,
}

impl<'a> RunningStages<'a> {
    pub(super) fn new(execution: &'a Execution<'a>, plan: &Plan) -> Self {
        let planned = plan.steps.iter().map(|step| step.stage.clone()).collect();
        Self { execution, planned, ended: Mutex::default() }
    }

    /// A stage has ended.
    pub(super) fn end(&self, stage: &StageId, how: Upstream) {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).insert(stage.clone(), how);
    }

    /// How a stage came out that another process ran.
    fn on_disk(&self, stage: &StageId) -> Upstream {
        let wanted = Targets { until: vec![stage.to_string()], ..Targets::default() };
        let failed = |why: String| Upstream::Failed(why);
        let Ok(selection) = self.execution.graph.select(&wanted) else {
            return failed(format!("stage {stage} is not there"));
        };
        match inspect(self.execution, &selection.stages) {
            Ok(mut all) => match all.remove(stage).and_then(|found| found.inspection.artifact) {
                Some(artifact) => Upstream::Ended(Some(artifact)),
                None => failed(format!("stage {stage} did not come to its end")),
            },
            Err((stage, error)) => failed(format!("stage {stage}: {}", error.message)),
        }
    }
}

impl Upstreams for RunningStages<'_> {
    fn state(&self, stage: &StageId) -> Upstream {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).get(stage).cloned();
        match ended {
            Some(ended) => ended,
            None if self.planned.contains(stage) => Upstream::Running,
            None if self.execution.elsewhere.is_some_and(|other| other.is_live(stage)) => {
                Upstream::Running
            }
            None => self.on_disk(stage),
        }
    }

    /// The stages that take what one makes while it makes it. Where each stage is run by a process
    /// of its own, all of them; else those that this process runs too.
    fn followers(&self, stage: &StageId) -> Vec<StageId> {
        let all = self.execution.graph.followers(stage).into_iter();
        let takes_part = |id: &StageId| self.execution.is_part || self.planned.contains(id);
        all.map(|follower| follower.id.clone()).filter(takes_part).collect()
    }
}

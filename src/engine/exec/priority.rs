//! In which turn stages begin that could begin together: those first that the most work waits for.
//! Where one runs at a time, that would change nothing but the order, which is the file's.

use std::cmp::Reverse;
use std::collections::HashMap;

use pipe_core::Status;
use pipe_core::ids::StageId;

use super::{Execution, InspectedStage};
use crate::plan::{Action, Plan, Step};
use crate::state::Record;

/// The steps of a plan in their turn, each still behind those that it needs.
pub(crate) fn by_priority<'p>(
    execution: &Execution,
    plan: &'p Plan,
    observed: &HashMap<StageId, InspectedStage>,
) -> Vec<&'p Step> {
    let mut steps: Vec<&Step> = plan.steps.iter().collect();
    if execution.jobs > 1 {
        let ahead = ahead(execution, plan, observed);
        steps.sort_by_cached_key(|step| Reverse(ahead.get(&step.stage).copied().unwrap_or(0)));
    }
    steps
}

/// Milliseconds from each stage's beginning to the end of the last one that waits for it, if there
/// were room for all. A stage takes as long as its record says that it took, or else as long as the
/// others do.
fn ahead<'p>(
    execution: &Execution,
    plan: &'p Plan,
    observed: &HashMap<StageId, InspectedStage>,
) -> HashMap<&'p StageId, u64> {
    let taken = |step: &Step| taken(observed.get(&step.stage)?.record.as_ref()?);
    let known: Vec<u64> = plan.steps.iter().filter_map(taken).collect();
    let usual = known.iter().sum::<u64>().checked_div(known.len() as u64).unwrap_or(1).max(1);
    let mut ahead = HashMap::with_capacity(plan.steps.len());
    for step in plan.steps.iter().rev() {
        let own = match step.action {
            Action::Skip => 0,
            _ => taken(step).unwrap_or(usual),
        };
        let after = execution.graph.dependents(&step.stage);
        let longest = after.iter().filter_map(|next| ahead.get(&next.id)).max().copied();
        ahead.insert(&step.stage, own + longest.unwrap_or(0));
    }
    ahead
}

/// Milliseconds that a stage took when it was last carried out.
pub(crate) fn taken(record: &Record) -> Option<u64> {
    let completed = record.status == Status::Completed;
    let time = record.updated_at.signed_duration_since(record.started_at).num_milliseconds();
    u64::try_from(time).ok().filter(|_| completed)
}

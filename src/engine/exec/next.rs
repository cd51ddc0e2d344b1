//! What one would type next when a pipeline has run.

use pipe_core::Status;
use pipe_core::ids::StageId;

use super::{Execution, Summary};
use crate::state::Record;

/// The command of the stage that finished last and has one, from the project's folder. Of a matrix
/// it is that of its best stage, which may have been trained earlier.
pub fn next(execution: &Execution, summary: &Summary) -> Option<String> {
    let pipeline = &execution.graph.pipeline;
    let of = |stage: &StageId| {
        let record = Record::load(execution.root, &pipeline.name, stage)?;
        let done = record.status == Status::Completed;
        Some((record.score.unwrap_or(f64::NEG_INFINITY), record.next.filter(|_| done)?))
    };
    let (last, own) =
        summary.finished.iter().rev().find_map(|(stage, _)| Some((stage, of(stage)?)))?;
    let beside =
        pipeline.matrices.get(last.declared()).into_iter().flatten().filter(|stage| *stage != last);
    // Of equals the one that was just trained.
    let best =
        beside.filter_map(of).fold(own, |best, other| if other.0 > best.0 { other } else { best });
    Some(best.1)
}

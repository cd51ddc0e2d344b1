//! Carries out a stage aside. Nothing of it is recorded, no event is written down, and no hook hears
//! of it.

use std::collections::{BTreeSet, HashMap, HashSet};

use pipe_core::failure::{Failure, StageError};
use pipe_core::ids::StageId;
use pipe_fs::Lock;

use super::attempt::{Begin, attempt};
use super::execution::{Execution, inputs, inspect};
use super::journal::Journal;
use super::upstream::RunningStages;
use crate::artifact::{Artifact, Outcome};
use crate::aside::Aside;
use crate::inspection::StageState;
use crate::pipeline_file::LoadedStage;
use crate::plan::Plan;
use crate::policy::Adjustment;

/// Carries out a stage aside. `lock`: held as long as its programs run. The stages that it refers to
/// must be up to date.
///
/// # Errors
/// What went wrong, with the stage that it went wrong in.
pub fn run_aside(
    execution: &Execution,
    stage: &StageId,
    aside: Aside,
    lock: &Lock,
) -> Result<Outcome, (StageId, StageError)> {
    let refused =
        |stage: &StageId, text: String| (stage.clone(), StageError::new(Failure::Setting, text));
    let missing = || refused(stage, "the run's settings have no such stage".to_owned());
    let pipeline = &execution.graph.pipeline.name;
    let journal = Journal::silent(execution.root, pipeline, execution.report);
    let plan = Plan { steps: Vec::new() };
    let held = (&RunningStages::new(execution, &plan), lock);
    let target = execution.graph.stage(stage).ok_or_else(missing)?;
    let mut before: HashSet<StageId> = execution.graph.upstream(stage).into_iter().collect();
    before.remove(stage);
    let found = inspect(execution, &before)?;
    let mut artifacts: HashMap<StageId, Artifact> = HashMap::new();
    let run = |stage: &LoadedStage, artifacts: &HashMap<_, _>, aside: Option<Aside>| {
        let splits = aside.as_ref().map_or(0, |aside| aside.micro_batch_splits);
        let begin = Begin {
            round: None,
            stage,
            action: String::new(),
            reason: String::new(),
            progress: None,
            anew: false,
            micro_batch_splits: splits,
            inputs: inputs(stage, artifacts),
            gpu: None,
            made: None,
            before: None,
            places: BTreeSet::new(),
            aside,
        };
        let adjustment = Adjustment { micro_batch_splits: splits, ..Adjustment::default() };
        attempt(execution, &journal, &begin, adjustment, true, held)
            .map_err(|error| (stage.id.clone(), error))
    };
    for one in execution.graph.stages().filter(|one| before.contains(&one.id)) {
        let Some(seen) = found.get(&one.id) else { continue };
        let artifact = match &seen.inspection.state {
            StageState::Transient => run(one, &artifacts, None)?.artifact,
            StageState::Done { .. } => seen.inspection.artifact.clone(),
            _ => {
                let text =
                    format!("it is not up to date, and stage {stage} needs it: run it first");
                return Err(refused(&one.id, text));
            }
        };
        artifacts.extend(artifact.map(|artifact| (one.id.clone(), artifact)));
    }
    run(target, &artifacts, Some(aside))
}

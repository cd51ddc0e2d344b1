//! Stages whose metrics decide what another one hands on: whoever takes that waits for both.

use pipe_core::ids::StageId;

use crate::diagnostic::Diagnostic;
use crate::graph::LoadedStage;
use crate::reference::DependencyMode;

/// The stages of that name that take what `source` makes while it makes it.
fn judges_of(source: &StageId, judge: &str, stages: &[LoadedStage]) -> Vec<StageId> {
    let judges =
        stages.iter().filter(|other| other.id.declared() == judge && other.streams_from(source));
    judges.map(|judge| judge.id.clone()).collect()
}

/// Adds what follows from judges: a stage that takes what a judged one hands on needs its judges.
pub(super) fn connect(stages: &mut [LoadedStage]) {
    let judged = stages.iter().filter_map(|stage| Some((stage.id.clone(), stage.stage.judge()?)));
    for (source, judge) in judged.collect::<Vec<_>>() {
        let judges = judges_of(&source, &judge.stage, stages);
        for stage in stages.iter_mut().filter(|stage| !judges.contains(&stage.id)) {
            let takes = stage
                .inputs
                .iter()
                .find(|i| i.stage == source && i.counts != DependencyMode::Streaming);
            let Some(key) = takes.map(|input| input.name.clone()) else { continue };
            let missing = judges.iter().filter(|judge| !stage.needs.iter().any(|n| n.1 == **judge));
            let missing: Vec<_> = missing.map(|judge| (vec![key.clone()], judge.clone())).collect();
            stage.needs.extend(missing);
        }
    }
}

/// Refuses a judge that is none.
pub(super) fn check(stage: &LoadedStage, stages: &[LoadedStage]) -> Option<Diagnostic> {
    let judge = stage.stage.judge()?;
    if !judges_of(&stage.id, &judge.stage, stages).is_empty() {
        return None;
    }
    let (name, id) = (&judge.stage, &stage.id);
    let message = if stages.iter().any(|stage| stage.id.declared() == name) {
        format!("stage `{name}` does not judge what `{id}` makes while it makes it")
    } else {
        format!("no stage is called `{name}`")
    };
    Some(Diagnostic::error(judge.key, message).note(judge.advice))
}

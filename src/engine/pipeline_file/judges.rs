//! Stages whose metrics decide what another one hands on: whoever takes that waits for both.

use pipe_core::ids::StageId;

use crate::diagnostic::Diagnostic;
use crate::graph::{Input, LoadedStage};
use crate::reference::{DependencyMode, JUDGE_INPUT};

/// The stages of that name that take what `source` makes while it makes it.
fn judges_of(source: &StageId, judge: &str, stages: &[LoadedStage]) -> Vec<StageId> {
    let judges =
        stages.iter().filter(|other| other.id.declared() == judge && other.streams_from(source));
    judges.map(|judge| judge.id.clone()).collect()
}

/// Adds what follows from judges: a stage that takes what a judged one hands on needs its judges. One
/// that follows it beside them ends after them, so that it knows what they have decided.
pub(super) fn connect(stages: &mut [LoadedStage]) {
    let judged = stages.iter().filter_map(|stage| Some((stage.id.clone(), stage.stage.judge()?)));
    for (source, judge) in judged.collect::<Vec<_>>() {
        let judges = judges_of(&source, &judge.stage, stages);
        for stage in stages.iter_mut().filter(|stage| !judges.contains(&stage.id)) {
            let Some(input) = stage.inputs.iter().find(|input| input.stage == source) else {
                continue;
            };
            let (key, follows) = (input.name.clone(), stage.streams_from(&source));
            for judge in &judges {
                if stage.needs.iter().any(|(_, needed)| needed == judge) {
                    continue;
                }
                if !follows {
                    stage.needs.push((vec![key.clone()], judge.clone()));
                    continue;
                }
                let name = format!("{JUDGE_INPUT}{judge}");
                stage.needs.push((vec![name.clone()], judge.clone()));
                let (stage_id, counts) = (judge.clone(), DependencyMode::Streaming);
                stage.inputs.push(Input { name, stage: stage_id, counts, may_fail: false });
            }
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

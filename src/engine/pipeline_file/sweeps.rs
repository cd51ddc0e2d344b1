//! `--sweep KEY=VALUE,VALUE`: a stage becomes several, as with a matrix, and so does each that
//! refers to it alone, so that every value has a branch of its own. What gathers a whole matrix
//! gathers all of them.

use std::path::Path;

use pipe_core::error::{Gathered, SpecError};

use crate::pipeline_file::apply::ByStage;
use crate::pipeline_file::declared::{Declared, Kinds, Single};
use crate::pipeline_file::executor::ExecutorSettings;
use crate::pipeline_file::params::Used;
use crate::pipeline_file::pipeline::{PipelineFile, StageDeclaration, Swept};
use crate::pipeline_file::stage::Loading;
use crate::pipeline_file::time_limits::TimeLimits;

/// Sweeps each stage that refers to a swept one alone. What is wrong in stages is told when they are
/// read.
pub(super) fn inherit(
    root: &Path,
    file: &mut PipelineFile,
    kinds: &Kinds,
    overrides: &ByStage,
    errors: &mut Gathered,
) {
    // Each round goes one reference further.
    for _ in 0..file.stages.len() {
        let found = inherited(root, file, kinds, overrides, errors);
        if found.is_empty() || !errors.is_empty() {
            return;
        }
        for (index, swept) in found {
            file.stages[index].swept.push(swept);
        }
    }
}

/// What stages do not have yet of those that they refer to, by the index of the stage.
fn inherited(
    root: &Path,
    file: &PipelineFile,
    kinds: &Kinds,
    overrides: &ByStage,
    errors: &mut Gathered,
) -> Vec<(usize, Swept)> {
    let mut ignored = (Gathered::default(), Vec::new());
    let (used, executor) = (Used::default(), ExecutorSettings::default());
    let all = Declared::of(root, file, kinds, &used, (&mut ignored.0, &mut ignored.1));
    let time_limits = TimeLimits::default();
    let loading = Loading {
        root,
        file,
        kinds,
        used: &used,
        overrides,
        executor: &executor,
        time_limits: &time_limits,
    };
    let mut found: Vec<(usize, Swept)> = Vec::new();
    for (index, stage) in file.stages.iter().enumerate() {
        let is_of = |single: &&Single| single.declared.id == stage.id;
        let Some(first) = all.stages.iter().find(is_of) else { continue };
        let references = loading.references(first).into_iter();
        for reference in references.filter(|r| !r.many && all.is_swept(&r.stage)) {
            let target = reference.stage.split('@').next().unwrap_or_default();
            let Some(target) = file.stage(target).filter(|target| target.id != stage.id) else {
                continue;
            };
            for swept in &target.swept {
                let new = found.iter().filter(|(other, _)| *other == index).map(|(_, swept)| swept);
                match stage.swept.iter().chain(new).find(|own| own.key == swept.key) {
                    None => found.push((index, Swept { is_inherited: true, ..swept.clone() })),
                    Some(own) if own.by == swept.by => {}
                    Some(own) => errors.push(twice(stage, target, own, swept)),
                }
            }
        }
    }
    found
}

fn twice(
    stage: &StageDeclaration,
    target: &StageDeclaration,
    own: &Swept,
    other: &Swept,
) -> SpecError {
    let message = format!(
        "{}: stage `{}` refers to `{}`, which is swept over `{}` too",
        own.by.shown, stage.id, target.id, other.key
    );
    SpecError::plain(message).note(format!("leave out this or {}", other.by.shown))
}

//! What the classes of a model are called, before it is trained: its images tell, and a sample
//! stage that asks for another class is refused before hours of training.

use std::sync::Arc;

use pipe_engine::kind::{Artifact, InspectContext, Inspection, StageError, StageState};
use pipe_runs::Checkpoint;

use super::artifacts::{Checkpoints, dataset_summary};
use super::lint_sample::may_be_known;
use crate::checkpoint;
use crate::data::same_class_name;
use crate::sampling::unknown_class;

/// The names in the order of their labels; none for a model without classes. It is a stage's
/// prospect.
struct ClassNames(Vec<String>);

/// The prospect of a model whose classes are these.
fn prospect(names: Option<Vec<String>>) -> Option<Artifact> {
    names.map(|names| Artifact::new(Arc::new(ClassNames(names)), None))
}

/// The prospect of a model that is trained on a data set.
pub(super) fn of_training(o: &InspectContext, is_conditional: bool) -> Option<Artifact> {
    if !is_conditional {
        return prospect(Some(Vec::new()));
    }
    prospect(o.inputs.get("dataset").and_then(dataset_summary).map(|seen| seen.classes))
}

/// The prospect of LoRA on a base, which has the classes of its own images if the base has any.
pub(super) fn of_adapter(o: &InspectContext) -> Option<Artifact> {
    let base = known(o, "base");
    of_training(o, base.is_none_or(|names| !names.is_empty()))
}

/// The prospect of a stage that hands on what another one made.
pub(super) fn of_source(o: &InspectContext, input: &str) -> Option<Artifact> {
    prospect(known(o, input))
}

/// The prospect of a stage that hands on one of several models, where all have the same classes.
pub(super) fn of_any(o: &InspectContext, inputs: &str) -> Option<Artifact> {
    let all = o.prospects.keys().chain(o.inputs.keys()).filter(|name| name.starts_with(inputs));
    let mut all = all.filter_map(|input| known(o, input));
    let first = all.next()?;
    prospect(all.all(|names| names == first).then_some(first))
}

/// What the classes are called of what an input hands on, or will. Where a stage before has yet to
/// run, what stands there may be replaced by what that one makes.
fn known(o: &InspectContext, input: &str) -> Option<Vec<String>> {
    let names = o.prospects.get(input).and_then(|ahead| ahead.get::<Arc<ClassNames>>());
    let ahead = names.map(|names| names.0.clone());
    if o.pending && ahead.is_some() {
        return ahead;
    }
    let made = o.inputs.get(input).and_then(Checkpoints::best_of);
    if let Some(file) = made.and_then(|best| Checkpoint::open(&best.path).ok()) {
        return (!file.is_of_program()).then(|| checkpoint::class_names(&file));
    }
    ahead
}

/// Whether a stage is to look at the classes now: it will run, or it is up to date with a model in
/// whose place another one comes.
pub(super) fn is_open(found: &Inspection, o: &InspectContext) -> bool {
    o.pending || !matches!(found.state, StageState::Done { .. })
}

/// Refuses a data set with a class that the model does not have, or will not have. A model without
/// classes takes all images.
pub(super) fn check_labels(input: &str, o: &InspectContext) -> Result<(), StageError> {
    let known = known(o, "from").filter(|known| !known.is_empty());
    let data = o.inputs.get(input).and_then(dataset_summary);
    let (Some(known), Some(data)) = (known, data) else { return Ok(()) };
    let is_known = |class: &String| known.iter().any(|name| same_class_name(name, class));
    match data.classes.iter().find(|class| !is_known(class)) {
        Some(class) => Err(StageError::setting(unknown_class(class, &known)).at(input)),
        None => Ok(()),
    }
}

/// Refuses classes that the model does not have, or will not have.
pub(super) fn check(asked: Option<&[String]>, o: &InspectContext) -> Result<(), StageError> {
    let Some(asked) = asked else { return Ok(()) };
    let Some(known) = known(o, "from") else { return Ok(()) };
    match asked.iter().find(|class| !may_be_known(class, &known)) {
        Some(class) => Err(StageError::setting(unknown_class(class, &known)).at("classes")),
        None => Ok(()),
    }
}

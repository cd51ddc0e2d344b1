//! Which stages `--sweep KEY=VALUE,VALUE` reaches by itself.

use pipe_core::error::SpecError;
use pipe_core::ids::StageId;
use serde_json::Value;

use crate::pipeline_file::declared::Kinds;
use crate::pipeline_file::origin::Given;
use crate::pipeline_file::overrides::Override;
use crate::pipeline_file::pipeline::{PipelineFile, StageDeclaration, Swept};

/// Sweeps the stages that have the setting; and those whose matrix has such a key, where it is for
/// all. Returns the lists of matrices that took the values.
pub(super) fn over(
    file: &mut PipelineFile,
    kinds: &Kinds,
    given: &Override,
    (stages, path): (&[StageId], &[String]),
) -> Vec<Given> {
    let values = given.value.as_ref().ok().and_then(Value::as_array).cloned().unwrap_or_default();
    let mut replaced = Vec::new();
    let is_for_all = path.len() == given.path.len();
    for stage in &mut file.stages {
        let below = kinds.passed_on(stage, path.get(1).map_or("", String::as_str));
        let inner = match path {
            [first, inner @ ..] if below.is_some_and(|below| *below == *first) => inner,
            path => path,
        };
        let key = inner.join(".");
        let has_axis = || stage.body.get("matrix").is_some_and(|matrix| matrix.get(&key).is_some());
        if !(stages.contains(&stage.id) || is_for_all && has_axis()) {
            continue;
        }
        let (values, by) = (values.clone(), given.by.clone());
        let at = ["stages", stage.id.as_str(), "matrix", &key].map(str::to_owned).to_vec();
        if note(stage, Swept { key, values, by, is_inherited: false }) {
            replaced.push(Given { at, by: given.by.clone() });
        }
    }
    replaced
}

/// Notes what a stage is swept over. Says whether its matrix has a list of values for that, which
/// these are in the place of.
fn note(stage: &mut StageDeclaration, swept: Swept) -> bool {
    let matrix = stage.body.get_mut("matrix").and_then(Value::as_object_mut);
    if let Some(values @ Value::Array(_)) = matrix.and_then(|matrix| matrix.get_mut(&swept.key)) {
        *values = Value::Array(swept.values);
        return true;
    }
    stage.swept.retain(|other| other.key != swept.key);
    stage.swept.push(swept);
    false
}

/// A sweep of what no stage alone has.
pub(super) fn refused(given: &Override, what: &str) -> SpecError {
    let error = SpecError::plain(format!("{}: {what} cannot be swept", given.by.shown));
    error.note("settings of stages can: `--sweep STAGE.KEY=VALUE,VALUE`")
}

/// A sweep of a parameter, with the settings that take it.
pub(super) fn refused_parameter(
    file: &PipelineFile,
    given: &Override,
    path: &[String],
) -> SpecError {
    let error = refused(given, "a parameter");
    let path = path.join(".");
    let takers = file.stages.iter().flat_map(|stage| {
        let prefix = file.scope(stage.scope).map_or("", |scope| &scope.prefix);
        let reference = path.strip_prefix(prefix).map(|name| format!("${{params.{name}}}"));
        let takes = stage.body.iter().filter(|(_, value)| {
            value.as_str().is_some_and(|value| reference.as_deref() == Some(value))
        });
        let takes: Vec<String> = takes.map(|(key, _)| format!("`{}.{key}`", stage.id)).collect();
        takes
    });
    match takers.collect::<Vec<_>>().as_slice() {
        [] => error,
        takers => error.note(format!("the parameter is that of {}", takers.join(", "))),
    }
}

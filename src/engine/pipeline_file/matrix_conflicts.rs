//! Settings from outside against a matrix over the same setting: the matrix would win, and nobody
//! would hear of it.

use pipe_core::error::SpecError;
use pipe_core::ids::StageId;
use serde_json::{Map, Value};

use crate::pipeline_file::declared::Kinds;
use crate::pipeline_file::matrix;
use crate::pipeline_file::overrides::{Override, Precedence};
use crate::pipeline_file::params::{Names, Used, filled_value};
use crate::pipeline_file::pipeline::{PipelineFile, StageDeclaration};

/// An error for each stage whose matrix decides what `given` is to set.
pub(super) fn against(
    file: &PipelineFile,
    kinds: &Kinds,
    used: &Used,
    given: &Override,
    stages: &[StageId],
    path: &[String],
) -> Vec<SpecError> {
    let swept = |id: &StageId| {
        let declared = file.stage(id.as_str())?;
        let axes = declared.body.get("matrix")?.as_object()?;
        let decides = |axis: &&String| {
            let whole = kinds.passed_on(declared, axis).map(|below| format!("{below}.{axis}"));
            let axis = whole.as_ref().unwrap_or(axis);
            decides(kinds, &declared.kind, axis, path, &given.value)
        };
        let axis = axes.keys().find(decides)?;
        Some((declared, axis.as_str()))
    };
    let found: Vec<_> = stages.iter().filter_map(swept).collect();
    let free: Vec<&StageId> =
        stages.iter().filter(|id| found.iter().all(|(s, _)| s.id != **id)).collect();
    let told = |(declared, axis): &(&StageDeclaration, &str)| {
        let id = &declared.id;
        let message = format!(
            "{}: stage `{id}` has a matrix over `{axis}`, which decides it",
            given.by.shown
        );
        let hidden = given.strength == Precedence::Environment;
        let value = given.value.as_ref().ok().filter(|value| !hidden && is_plain(value));
        let value = value.map_or("VALUES".to_owned(), Value::to_string);
        let mut error = SpecError::plain(message)
            .note(format!("for other values in the matrix: --set '{id}.matrix.{axis}=[{value}]'"));
        if let Some(member) = member(file, used, declared, axis, given) {
            error = error.note(format!("for one stage of it name that one: `{member}`"));
        }
        match free.first() {
            Some(free) => error.note(format!(
                "for the other stages alone: --set {free}.{}={value}",
                path.join(".")
            )),
            None => error,
        }
    };
    found.iter().map(told).collect()
}

/// Whether an axis of a matrix is what is to be set at `path`, inside it, or in its place.
fn decides(
    kinds: &Kinds,
    kind: &str,
    axis: &str,
    path: &[String],
    value: &Result<Value, String>,
) -> bool {
    let keys: Vec<&str> = axis.split('.').collect();
    let is_setting = kinds.keys(kind).any(|key| key == keys[0]);
    let instead = kinds.alternatives(kind).any(|(one, other)| {
        let pair = [one, other];
        path.len() == 1
            && keys.len() == 1
            && pair.contains(&keys[0])
            && pair.contains(&path[0].as_str())
    });
    let inside = keys.len() >= path.len() && keys.iter().zip(path).all(|(a, b)| a == b) && {
        let rest = &keys[path.len()..];
        let found = rest.iter().try_fold(value.as_ref().ok(), |v, key| Some(v?.get(key)));
        rest.is_empty() || found.flatten().is_some()
    };
    is_setting && (inside || instead)
}

/// The first stage of the matrix that has the value which was given.
fn member(
    file: &PipelineFile,
    used: &Used,
    declared: &StageDeclaration,
    axis: &str,
    given: &Override,
) -> Option<StageId> {
    let names = Names { params: &file.params, matrix: &Map::new(), used };
    let at = ["stages", declared.id.as_str(), "matrix"].map(str::to_owned);
    let filled = filled_value(&file.source, &at, declared.body.get("matrix")?, names).ok()?;
    let value = given.value.as_ref().ok()?;
    let same =
        |other: &Value| other == value || (other.is_number() && other.as_f64() == value.as_f64());
    let members = matrix::members(&file.source, &declared.id, &filled).ok()?;
    members.into_iter().find(|m| m.values.get(axis).is_some_and(same)).map(|m| m.id)
}

fn is_plain(value: &Value) -> bool {
    value.is_number()
        || value.as_str().is_some_and(|text| {
            text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.:".contains(c))
        })
}

//! Settings from outside against a matrix over the same setting: the matrix would win, and nobody
//! would hear of it.

use std::collections::BTreeSet;

use pipe_core::error::SpecError;
use pipe_core::ids::StageId;
use serde_json::Value;

use crate::pipeline_file::declared::{Kinds, unfolded};
use crate::pipeline_file::matrix::{self, Form, Member};
use crate::pipeline_file::overrides::{Override, Precedence};
use crate::pipeline_file::params::Used;
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
        let members = members(file, used, declared);
        let keys: BTreeSet<&String> = members.iter().flat_map(|m| m.values.keys()).collect();
        let decides = |axis: &&String| {
            let whole = kinds.passed_on(declared, axis).map(|below| format!("{below}.{axis}"));
            let axis = whole.as_ref().unwrap_or(axis);
            decides(kinds, &declared.kind, axis, path, &given.value)
        };
        let axis = keys.into_iter().find(decides)?.clone();
        Some((declared, axis, members))
    };
    let found: Vec<_> = stages.iter().filter_map(swept).collect();
    let free: Vec<&StageId> =
        stages.iter().filter(|id| found.iter().all(|(s, ..)| s.id != **id)).collect();
    let told = |(declared, axis, members): &(&StageDeclaration, String, Vec<Member>)| {
        let id = &declared.id;
        let message = format!(
            "{}: stage `{id}` has a matrix over `{axis}`, which decides it",
            given.by.shown
        );
        let hidden = given.strength == Precedence::Environment;
        let value = given.value.as_ref().ok().filter(|value| !hidden && is_plain(value));
        let value = value.map_or("VALUES".to_owned(), Value::to_string);
        let form = matrix::form(declared.body.get("matrix").unwrap_or(&Value::Null));
        let swept = declared.swept.iter().find(|swept| swept.key == *axis);
        let note = match swept {
            Some(swept) => format!("leave out this or {}", swept.by.shown),
            None => other_values(&form, id, axis, &value),
        };
        let mut error = SpecError::plain(message).note(note);
        let seeds = matches!(&form, Form::Mapping(parts) if parts.seeds.is_some());
        if let Some(member) = member(members, axis, given).filter(|_| !seeds) {
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

/// What to do for other values.
fn other_values(form: &Form, id: &StageId, axis: &str, value: &str) -> String {
    match form {
        Form::Mapping(parts) if parts.seeds.is_some() && axis == "seed" => {
            format!("without `seeds` of it: --set {id}.matrix.seeds=null")
        }
        Form::Mapping(parts) if parts.axes.iter().any(|(key, _)| *key == axis) => {
            format!("for other values in the matrix: --set '{id}.matrix.{axis}=[{value}]'")
        }
        _ => format!("for other values change what stands under `stages.{id}.matrix`"),
    }
}

/// What the matrix of a stage makes; nothing if something is wrong with it.
fn members(file: &PipelineFile, used: &Used, declared: &StageDeclaration) -> Vec<Member> {
    if !declared.is_several() {
        return Vec::new();
    }
    let unfolded = unfolded(file, declared, used, || matrix::DEFAULT_SEED);
    unfolded.map(|unfolded| unfolded.members).unwrap_or_default()
}

/// The first stage of the matrix that has the value which was given.
fn member(members: &[Member], axis: &str, given: &Override) -> Option<StageId> {
    let value = given.value.as_ref().ok()?;
    let has = |m: &&Member| m.values.get(axis).is_some_and(|other| matrix::same(other, value));
    members.iter().find(has).map(|m| m.id.clone())
}

fn is_plain(value: &Value) -> bool {
    value.is_number()
        || value.as_str().is_some_and(|text| {
            text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.:".contains(c))
        })
}

//! What a stage is made of, changed from outside: its matrix, its config file, what it needs.

use pipe_core::error::SpecError;
use pipe_core::ids::StageId;
use serde_json::{Map, Value};

use crate::pipeline_file::matrix::SEEDS;
use crate::pipeline_file::overrides::Override;
use crate::pipeline_file::pipeline::StageDeclaration;

/// Keys of a stage that are no settings of its kind and may be set from outside all the same.
pub(super) const KEYS: [&str; 3] = ["config", "needs", "matrix"];

/// Readies a matrix for what is given for the keys `inside` it: a list takes `seeds` alone, and a
/// way to draw takes the place of another one.
fn make_place(
    stage: &StageId,
    matrix: &mut Value,
    inside: &[String],
    given: &Override,
) -> Result<(), SpecError> {
    match (&mut *matrix, inside) {
        (Value::Array(list), [key]) if key == SEEDS => {
            let list = Value::Array(std::mem::take(list));
            *matrix = Value::Object(Map::from_iter([("include".to_owned(), list)]));
        }
        (Value::Array(_), [_, ..]) => {
            let message = format!("{}: the matrix of stage `{stage}` is a list", given.by.shown);
            let note = format!("a whole list in its place: --set '{stage}.matrix=[{{…}}, {{…}}]'");
            return Err(SpecError::plain(message).note(note));
        }
        (Value::Object(map), [random, key]) => {
            if let Some(random) = map.get_mut(random).and_then(Value::as_object_mut) {
                random.remove(key);
            }
        }
        _ => {}
    }
    Ok(())
}

/// Changes one of [`KEYS`]; nothing in its place takes it away, a key of a matrix too.
pub(super) fn change(
    stage: &mut StageDeclaration,
    path: &[String],
    given: &Override,
) -> Result<(), SpecError> {
    if let [matrix, inside @ ..] = path
        && let Some(matrix) = stage.body.get_mut(matrix)
    {
        make_place(&stage.id, matrix, inside, given)?;
    }
    merge(&mut stage.body, given.nested(path));
    if let ([matrix, key], Value::Null) = (path, given.value.as_ref().unwrap_or(&Value::Null))
        && let Some(Value::Object(map)) = stage.body.get_mut(matrix)
    {
        map.remove(key);
        if map.is_empty() {
            stage.body.remove(matrix);
        }
    }
    stage.body.retain(|key, value| !(value.is_null() && KEYS.contains(&key.as_str())));
    Ok(())
}

/// Lays `over` on `base`, mapping by mapping.
pub(super) fn merge(base: &mut Map<String, Value>, over: Map<String, Value>) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Object(below)), Value::Object(above)) => merge(below, above),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

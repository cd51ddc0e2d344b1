//! Keys of a matrix that are set from outside.

use pipe_core::error::SpecError;
use pipe_core::ids::StageId;
use serde_json::{Map, Value};

use crate::pipeline_file::matrix::SEEDS;
use crate::pipeline_file::overrides::Override;

/// Readies a matrix for what is given for the keys `inside` it: a list takes `seeds` alone, and a
/// way to draw takes the place of another one.
pub(super) fn make_place(
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

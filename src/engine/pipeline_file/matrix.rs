//! `matrix:` makes several stages of one declaration, one for each combination of values.

use std::collections::HashMap;

use pipe_core::error::SpecError;
use pipe_core::ids::StageId;
use serde_json::{Map, Value};

use crate::pipeline_file::pipeline::{error_at, mapping};
use crate::source::{Part, Source};

/// More stages than this are a slip of the fingers.
const MOST: usize = 100_000;

/// One stage of a matrix: its name, such as `base@learning_rate=0.001,seed=1`, and its values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Member {
    pub id: StageId,
    pub values: Map<String, Value>,
}

/// All combinations, keys by name, the last key changing fastest.
pub(crate) fn members(
    source: &Source,
    stage: &StageId,
    matrix: &Value,
) -> Result<Vec<Member>, SpecError> {
    let whole = ["stages", stage.as_str(), "matrix"];
    let axes = mapping(source, &whole, matrix.clone())?;
    if axes.is_empty() {
        return Err(error_at(
            source,
            &whole,
            Part::Value,
            "expected at least one key with a list of values",
        ));
    }
    let mut all = vec![Map::new()];
    for (key, value) in &axes {
        let wrong = |message: &str| {
            Err(error_at(source, &[whole.as_slice(), &[key]].concat(), Part::Value, message))
        };
        let Value::Array(values) = value else { return wrong("expected a list of values") };
        if values.is_empty() {
            return wrong("expected at least one value");
        }
        if values.iter().any(|v| v.is_object() || v.is_array() || v.is_null()) {
            return wrong("expected numbers, words, true or false");
        }
        if all.len().saturating_mul(values.len()) > MOST {
            return wrong("too many combinations");
        }
        let with = |base: &Map<String, Value>, value: &Value| {
            let mut one = base.clone();
            one.insert(key.clone(), value.clone());
            one
        };
        all = all.iter().flat_map(|base| values.iter().map(|value| with(base, value))).collect();
    }
    let mut members: Vec<Member> = Vec::with_capacity(all.len());
    let mut seen: HashMap<StageId, String> = HashMap::new();
    for values in all {
        let named: Vec<String> =
            values.iter().map(|(key, value)| format!("{key}={}", word(value))).collect();
        let named = named.join(",");
        let mut id = stage.member(&named);
        // Values that a name can hold only in part may leave the same of two.
        if seen.get(&id).is_some_and(|other| *other != named) {
            id = stage.disambiguated(&named);
        }
        if seen.insert(id.clone(), named).is_some() {
            return Err(error_at(
                source,
                &whole,
                Part::Value,
                format!("`{id}` comes out more than once"),
            ));
        }
        members.push(Member { id, values });
    }
    Ok(members)
}

/// A value as a piece of a stage's name.
fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// `{a.b: 1}` as `{a: {b: 1}}`: a key of a matrix may name a setting inside another one.
pub(crate) fn nested(values: Map<String, Value>) -> Map<String, Value> {
    let mut out = Map::new();
    for (key, value) in values {
        let mut path: Vec<&str> = key.split('.').collect();
        let last = path.pop().unwrap_or_default().to_owned();
        let inner = path.into_iter().try_fold(&mut out, |map: &mut Map<String, Value>, key| {
            map.entry(key).or_insert_with(|| Value::Object(Map::new())).as_object_mut()
        });
        if let Some(inner) = inner {
            inner.insert(last, value);
        }
    }
    out
}

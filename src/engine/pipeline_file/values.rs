//! YAML files as values, and errors at their keys.

use pipe_core::error::{SpecError, SpecErrors};
use serde_json::{Map, Value};

use crate::pipeline_file::document::{self, Level, Order};
use crate::pipeline_file::merge_keys;
use crate::pipeline_file::words::describe;
use crate::source::{Part, Position, Source};

/// A YAML file as a mapping, with merge keys in their effect and without what may stand at its top
/// for itself (`x-…`).
pub(crate) struct Document {
    pub values: Value,
    pub order: Order,
    /// Which knows where merged keys stand.
    pub source: Source,
}

/// Reads a pipeline file, an included one or a config file.
pub(crate) fn read_document(source: &Source) -> Result<Document, SpecErrors> {
    let (values, order) = match document::read(source.text()) {
        Some(read) => read,
        None => {
            let document = source.parse()?;
            let order = order_of(&document);
            (to_json(source, document, &mut Vec::new())?, order)
        }
    };
    let (values, source) = merge_keys::merged(source, values)?;
    Ok(Document { values, order, source })
}

/// The order of what stands in a document.
pub(super) fn order_of(document: &serde_yaml::Value) -> Order {
    fn walk(level: Level, node: &serde_yaml::Value, order: &mut Order) {
        if let Some(items) = node.as_sequence() {
            items.iter().for_each(|item| walk(level, item, order));
        }
        for (key, value) in node.as_mapping().into_iter().flatten() {
            let Some(key) = key.as_str() else { continue };
            order.note(level, key);
            if let Some(below) = level.below(key) {
                walk(below, value, order);
            }
        }
    }
    let mut order = Order::default();
    walk(Level::Root, document, &mut order);
    order
}

/// YAML to JSON: the settings model. Refuses what JSON cannot say (tags, keys that are not text,
/// infinities).
pub(crate) fn to_json(
    source: &Source,
    value: serde_yaml::Value,
    path: &mut Vec<String>,
) -> Result<Value, SpecError> {
    use serde_yaml::Value as Yaml;
    let refuse = |path: &[String], message: &str| {
        Err(SpecError::on(source, path.to_vec(), Part::Value, message))
    };
    Ok(match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(b) => Value::Bool(b),
        Yaml::String(s) => Value::String(s),
        Yaml::Number(n) => {
            match (n.as_u64(), n.as_i64(), n.as_f64().and_then(serde_json::Number::from_f64)) {
                (Some(u), _, _) => Value::from(u),
                (_, Some(i), _) => Value::from(i),
                (_, _, Some(f)) => Value::Number(f),
                _ => return refuse(path, "expected a finite number"),
            }
        }
        Yaml::Sequence(items) => {
            let mut list = Vec::with_capacity(items.len());
            for (index, item) in items.into_iter().enumerate() {
                path.push(index.to_string());
                list.push(to_json(source, item, path)?);
                path.pop();
            }
            Value::Array(list)
        }
        Yaml::Mapping(mapping) => {
            let mut object = Map::new();
            for (key, item) in mapping {
                let Yaml::String(key) = key else {
                    return refuse(
                        path,
                        "expected keys that are text; put quotes around numbers and words like `yes`",
                    );
                };
                // What is free is not looked at, unless an alias of it stands elsewhere.
                if path.is_empty() && merge_keys::is_free(&key) {
                    continue;
                }
                path.push(key.clone());
                let item = to_json(source, item, path)?;
                path.pop();
                object.insert(key, item);
            }
            Value::Object(object)
        }
        Yaml::Tagged(_) => return refuse(path, "YAML tags (`!name`) have no meaning here"),
    })
}

/// The value as a mapping, or an error that says what stands there instead.
pub(crate) fn mapping(
    source: &Source,
    path: &[&str],
    value: Value,
) -> Result<Map<String, Value>, SpecError> {
    match value {
        Value::Object(map) => Ok(map),
        // The whole file as one text is not to be repeated.
        Value::String(_) if path.is_empty() => Err(error_at(
            source,
            path,
            Part::Value,
            "expected a mapping (`key: value` lines), found text",
        )),
        other => {
            let message =
                format!("expected a mapping (`key: value` lines), found {}", describe(&other));
            Err(error_at(source, path, Part::Value, message))
        }
    }
}

pub(crate) fn error_at(
    source: &Source,
    path: &[&str],
    part: Part,
    message: impl Into<String>,
) -> SpecError {
    let path: Vec<String> = path.iter().map(|s| s.to_string()).collect();
    let start = || (source.clone(), Position { line: 1, column: 1 });
    let (source, at) = source.find(&path, part).unwrap_or_else(start);
    SpecError::at(&source, Some(at), path, message)
}

//! The layers of a stage as they are read: its config file, parameters filled in, policies in the
//! place of their names.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use pipe_core::error::{Gathered, SpecError, SpecErrors};
use serde_json::{Map, Value};

use crate::pipeline_file::COMMON_KEYS;
use crate::pipeline_file::layers::{Layer, Origin};
use crate::pipeline_file::params::{Names, filled_value};
use crate::pipeline_file::pipeline::{PipelineFile, StageDeclaration};
use crate::pipeline_file::values::{Document, error_at, mapping, read_document};
use crate::source::{self, Part, Source};

/// What was wrong and is left out. A key that is missing for that reason is no error of its own.
#[derive(Default)]
pub(super) struct LeftOut {
    /// Outermost keys.
    pub keys: BTreeSet<String>,
    /// Or any key at all: the config file could not be read.
    pub config: bool,
}

impl LeftOut {
    pub fn explains(&self, key: &str) -> bool {
        self.config || self.keys.contains(key)
    }

    pub fn is_empty(&self) -> bool {
        !self.config && self.keys.is_empty()
    }
}

/// The layers of the files named by `config:`, in their order.
pub(super) fn config_layers(
    (root, file): (&Path, &PipelineFile),
    stage: &str,
    config: Option<Value>,
    names: Names,
    left_out: &mut LeftOut,
    errors: &mut Gathered,
) -> Vec<Layer> {
    let at = ["stages", stage, "config"];
    let files = match config {
        None => return Vec::new(),
        Some(Value::Array(files)) => files,
        Some(one) => {
            let read = config_layer((root, file), &at, &one, names, left_out, errors);
            left_out.config |= read.is_none();
            return read.into_iter().collect();
        }
    };
    let mut layers = Vec::new();
    for (index, one) in files.iter().enumerate() {
        let index = index.to_string();
        let at = [&at[..], &[&index]].concat();
        let read = config_layer((root, file), &at, one, names, left_out, errors);
        left_out.config |= read.is_none();
        layers.extend(read);
    }
    layers
}

fn config_layer(
    (root, file): (&Path, &PipelineFile),
    at: &[&str],
    config: &Value,
    names: Names,
    left_out: &mut LeftOut,
    errors: &mut Gathered,
) -> Option<Layer> {
    let Value::String(config) = config else {
        let message = "expected the path of a config file, or a list of such paths";
        errors.push(error_at(&file.source, at, Part::Value, message));
        return None;
    };
    let layer = read_config((root, file), at, config, names, left_out, errors);
    errors.take(layer)
}

/// Reads one file named by `config:`. A single outer key `training:` is taken off.
fn read_config(
    (root, file): (&Path, &PipelineFile),
    at: &[&str],
    config: &str,
    names: Names,
    left_out: &mut LeftOut,
    errors: &mut Gathered,
) -> Result<Layer, SpecErrors> {
    let shown = PathBuf::from(config);
    let source = source::read(&root.join(&shown), &shown).map_err(|error| {
        let (message, help) = error.into_parts();
        let message = format!("failed to read the config file: {message}");
        let error = error_at(&file.source, at, Part::Value, message);
        help.into_iter()
            .fold(error, SpecError::note)
            .note("the path is relative to the project's folder")
    })?;
    let Document { values, source, .. } = read_document(&source)?;
    let mut values = match values {
        Value::Null => Map::new(),
        other => mapping(&source, &[], other)?,
    };
    let mut base = Vec::new();
    if values.len() == 1
        && let Some(inner) = values.remove("training")
    {
        values = mapping(&source, &["training"], inner)?;
        base.push("training".to_owned());
    }
    for key in COMMON_KEYS {
        if values.contains_key(key) {
            let path: Vec<&str> = base.iter().map(String::as_str).chain([key]).collect();
            errors.push(error_at(
                &source,
                &path,
                Part::Key,
                format!("`{key}` belongs into the pipeline file"),
            ));
            values.remove(key);
        }
    }
    let values = filled(&source, &base, &values, names, left_out, errors);
    Ok(Layer { origin: Origin::File { source, base, moved: Vec::new() }, values })
}

/// The values with parameters in the place of references to them, without those that refer to
/// nothing.
pub(super) fn filled<'a>(
    source: &Source,
    base: &[String],
    values: impl IntoIterator<Item = (&'a String, &'a Value)>,
    names: Names,
    left_out: &mut LeftOut,
    errors: &mut Gathered,
) -> Map<String, Value> {
    let mut all = Map::new();
    for (key, value) in values {
        let at = [base, std::slice::from_ref(key)].concat();
        match errors.take(filled_value(source, &at, value, names)) {
            Some(value) => drop(all.insert(key.clone(), value)),
            None => drop(left_out.keys.insert(key.clone())),
        }
    }
    all
}

/// Puts a policy where its name stands.
pub(super) fn name_policies(
    (file, declared): (&PipelineFile, &StageDeclaration),
    keys: &[&'static str],
    names: Names,
    layer: &mut Layer,
    left_out: &mut LeftOut,
    errors: &mut Gathered,
) {
    for &key in keys {
        let Some(Value::String(name)) = layer.values.get(key) else { continue };
        let named = file.policies.get(key).and_then(Value::as_object);
        let scope = match &layer.origin {
            Origin::Outside(_) => None,
            Origin::File { .. } => file.written_in(declared, key, name),
        };
        let exists = |name: &str| named.is_some_and(|named| named.contains_key(name));
        let full = file.full_name(scope, name, exists);
        let found = full.and_then(|full| Some((named?.get(&full)?, full)));
        let Some((policy, full)) = found else {
            if is_a_value_by_itself(key, name) {
                continue;
            }
            let message = format!("no policy `{name}` under `policies.{key}`");
            let error = match &layer.origin {
                Origin::Outside(by) => {
                    SpecError::plain(format!("{}: {message}", by.shown)).hiding(&by.hidden)
                }
                Origin::File { source, base, .. } => {
                    let path: Vec<&str> = base.iter().map(String::as_str).chain([key]).collect();
                    error_at(source, &path, Part::Value, message)
                }
            };
            let known: Vec<&str> =
                named.into_iter().flat_map(|n| n.keys()).map(String::as_str).collect();
            errors.push(if known.is_empty() {
                error.note(format!("settings stand in braces: `{key}: {{ KEY: VALUE }}`"))
            } else {
                error.candidates(name, known)
            });
            layer.values.remove(key);
            left_out.keys.insert(key.to_owned());
            continue;
        };
        names.used.note(key, &full);
        let scope = file.scope_of_policy.get(&(key.to_owned(), full.clone())).copied();
        let names = file.names(scope, names.matrix, names.used);
        let path = vec!["policies".to_owned(), key.to_owned(), full];
        match errors.take(filled_value(&file.source, &path, policy, names)) {
            Some(policy) => drop(layer.values.insert(key.to_owned(), policy)),
            None => {
                layer.values.remove(key);
                left_out.keys.insert(key.to_owned());
            }
        }
        if let Origin::File { moved, .. } = &mut layer.origin {
            moved.push((key.to_owned(), file.source.clone(), path));
        }
    }
}

/// A time limit begins with a digit, and resuming has its own words; other names are those of
/// policies.
fn is_a_value_by_itself(key: &str, text: &str) -> bool {
    match key {
        "timeout" => text.trim_start().starts_with(|c: char| c.is_ascii_digit()),
        "resume" => ["auto", "never", "must"].contains(&text),
        _ => false,
    }
}

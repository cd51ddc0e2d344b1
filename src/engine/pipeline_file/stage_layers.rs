//! The layers of a stage as they are read: its config file, parameters filled in, policies in the
//! place of their names.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use pipe_core::error::{Gathered, SpecError};
use serde_json::{Map, Value};

use crate::pipeline_file::COMMON_KEYS;
use crate::pipeline_file::layers::{Layer, Origin};
use crate::pipeline_file::params::{Names, filled_value};
use crate::pipeline_file::pipeline::{PipelineFile, error_at, mapping, read_document};
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

/// Reads the file named by `config:`. A single outer key `training:` is taken off.
pub(super) fn config_layer(
    root: &Path,
    file: &PipelineFile,
    stage: &str,
    config: &str,
    names: Names,
    left_out: &mut LeftOut,
    errors: &mut Gathered,
) -> Result<Layer, SpecError> {
    let shown = PathBuf::from(config);
    let source = source::read(&root.join(&shown), &shown).map_err(|error| {
        let (message, help) = error.into_parts();
        let message = format!("failed to read the config file: {message}");
        let error = error_at(&file.source, &["stages", stage, "config"], Part::Value, message);
        help.into_iter()
            .fold(error, SpecError::note)
            .note("the path is relative to the project's folder")
    })?;
    let (document, _) = read_document(&source)?;
    let mut values = match document {
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
    file: &PipelineFile,
    keys: &[&'static str],
    names: Names,
    layer: &mut Layer,
    left_out: &mut LeftOut,
    errors: &mut Gathered,
) {
    for &key in keys {
        let Some(Value::String(name)) = layer.values.get(key) else { continue };
        let named = file.policies.get(key).and_then(Value::as_object);
        let Some(policy) = named.and_then(|n| n.get(name)) else {
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
            let known = named.into_iter().flat_map(|n| n.keys()).map(String::as_str);
            errors.push(error.candidates(name, known));
            layer.values.remove(key);
            left_out.keys.insert(key.to_owned());
            continue;
        };
        names.used.note(key, name);
        let path = vec!["policies".to_owned(), key.to_owned(), name.clone()];
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

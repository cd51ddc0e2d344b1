//! Which value from outside is behind an error at a place in a file: that of a parameter that the
//! value there refers to, or one that stands in the place of what the file says.

use std::collections::BTreeSet;
use std::path::Path;

use pipe_core::error::{Gathered, SpecError, SpecErrors};
use serde_json::Value;

use crate::pipeline_file::overrides::{OverrideSource, overrides_for_others};
use crate::pipeline_file::params;
use crate::pipeline_file::pipeline::{PipelineFile, StageDeclaration};
use crate::pipeline_file::values::read_document;
use crate::source;

/// A value that is in the place of what stands in the pipeline file.
#[derive(Debug, Clone)]
pub(super) struct Given {
    /// Where: `params`, or a stage.
    pub at: Vec<String>,
    pub by: OverrideSource,
}

/// Says in each error which variable or argument its value comes from.
pub(super) fn explain(errors: &mut Gathered, file: &PipelineFile, root: &Path, given: &[Given]) {
    if !given.is_empty() {
        errors.map(|error| explained(error, file, root, given));
    }
}

pub(super) fn explained(
    error: SpecError,
    file: &PipelineFile,
    root: &Path,
    given: &[Given],
) -> SpecError {
    let Some(path) = error.file() else { return error };
    let key = error.path().to_vec();
    let own = file.source.holds(path);
    let names = if own {
        referred(file, &key)
    } else {
        // A config file; only what is wrong is read twice.
        let read = source::read(&root.join(path), path).map_err(SpecErrors::from);
        let read = read.and_then(|source| read_document(&source));
        let names = read.map(|document| names_in(nearest(&document.values, &key)));
        in_pipeline(file, config_scope(file, path), names.unwrap_or_default())
    };
    let names = with_those_inside(names, file);
    let in_place = |g: &&Given| own && key.starts_with(&g.at) && g.at.len() > 1;
    let behind = |g: &&Given| {
        g.at.first().is_some_and(|first| first == "params") && names.contains(&g.at[1])
    };
    let mut error = error;
    for one in given.iter().filter(|g| in_place(g) || behind(g)) {
        if in_place(&one) {
            error = error.without_excerpt();
        }
        error = error.hiding(&one.by.hidden).note(format!("the value comes from {}", one.by.shown));
        if !one.by.hidden.is_empty() {
            error = error.note(overrides_for_others(&one.by));
        }
    }
    error
}

/// The parameters that the value at a key of the pipeline file refers to.
fn referred(file: &PipelineFile, key: &[String]) -> BTreeSet<String> {
    let Some((section, rest)) = key.split_first() else { return BTreeSet::new() };
    match (section.as_str(), rest) {
        ("stages", [stage, rest @ ..]) => {
            let declared = file.stage(stage.split('@').next().unwrap_or(stage));
            let Some(StageDeclaration { body, scope, .. }) = declared else {
                return BTreeSet::new();
            };
            let names = rest.split_first().and_then(|(first, rest)| {
                body.get(first).map(|value| names_in(nearest(value, rest)))
            });
            in_pipeline(file, *scope, names.unwrap_or_default())
        }
        ("policies", [first, rest @ ..]) => {
            let names = file.policies.get(first).map(|value| names_in(nearest(value, rest)));
            let policy = rest.first().map(|name| (first.clone(), name.clone()));
            let scope = policy.and_then(|policy| file.scope_of_policy.get(&policy).copied());
            in_pipeline(file, scope, names.unwrap_or_default())
        }
        ("executor", rest) => {
            file.executor.as_ref().map(|v| names_in(nearest(v, rest))).unwrap_or_default()
        }
        ("store", _) => file.store.as_ref().map(names_in).unwrap_or_default(),
        (key @ ("budget" | "until"), _) => {
            file.time_limits.get(key).map(names_in).unwrap_or_default()
        }
        ("fsync", _) => file.fsync.as_ref().map(names_in).unwrap_or_default(),
        ("params", [first, ..]) => BTreeSet::from([first.clone()]),
        _ => BTreeSet::new(),
    }
}

/// Names of parameters in a scope, as they are called in the pipeline.
fn in_pipeline(
    file: &PipelineFile,
    scope: Option<usize>,
    names: BTreeSet<String>,
) -> BTreeSet<String> {
    match file.scope(scope) {
        Some(scope) => names.iter().map(|name| format!("{}{name}", scope.prefix)).collect(),
        None => names,
    }
}

/// The scope of the stage that has a config file.
fn config_scope(file: &PipelineFile, config: &Path) -> Option<usize> {
    let is_it = |value: &Value| value.as_str().is_some_and(|text| Path::new(text) == config);
    let has = |value: &Value| is_it(value) || value.as_array().is_some_and(|v| v.iter().any(is_it));
    file.stages.iter().find(|stage| stage.body.get("config").is_some_and(has))?.scope
}

/// The value at a path, or the innermost one around it.
fn nearest<'a>(value: &'a Value, path: &[String]) -> &'a Value {
    let Some((first, rest)) = path.split_first() else { return value };
    let inner = match value {
        Value::Object(map) => map.get(first),
        Value::Array(items) => first.parse::<usize>().ok().and_then(|index| items.get(index)),
        _ => None,
    };
    inner.map_or(value, |inner| nearest(inner, rest))
}

fn names_in(value: &Value) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    params::names_in(value, &mut names);
    names
}

/// The parameters, and those that they refer to.
pub(super) fn with_those_inside(names: BTreeSet<String>, file: &PipelineFile) -> BTreeSet<String> {
    let (mut all, mut open) = (BTreeSet::new(), Vec::from_iter(names));
    while let Some(name) = open.pop() {
        if let Some(written) = file.written_params.get(&name) {
            open.extend(names_in(written).into_iter().filter(|inner| !all.contains(inner)));
        }
        all.insert(name);
    }
    all
}

//! Names that are written in an included file, as they are in the pipeline.

use serde_json::{Map, Value};

use crate::kind::Stage;
use crate::pipeline_file::layers::{Origin, StageLayers};
use crate::pipeline_file::params::{Names, Used};
use crate::pipeline_file::pipeline::{PipelineFile, StageDeclaration};
use crate::pipeline_file::scope::Scope;

/// A stage's name as a setting has it, and what it is called in the pipeline.
pub(super) struct Renamed {
    /// The setting.
    key: String,
    short: String,
    pub full: String,
}

impl PipelineFile {
    /// The scope of an included file.
    pub(super) fn scope(&self, index: Option<usize>) -> Option<&Scope> {
        self.scopes.get(index?)
    }

    /// The values that references in a scope mean.
    pub(super) fn names<'a>(
        &'a self,
        scope: Option<usize>,
        matrix: &'a Map<String, Value>,
        used: &'a Used,
    ) -> Names<'a> {
        match self.scope(scope) {
            Some(scope) => Names { params: &scope.values, prefix: &scope.prefix, matrix, used },
            None => Names { params: &self.params, prefix: "", matrix, used },
        }
    }

    /// What a parameter of the pipeline is called in the file that declares it.
    pub(super) fn written_name<'n>(&self, parameter: &'n str) -> &'n str {
        let short = |scope: &Scope| {
            let name = parameter.strip_prefix(scope.prefix.as_str())?;
            scope.parameters.contains(name).then_some(name)
        };
        self.scopes.iter().filter_map(short).min_by_key(|name| name.len()).unwrap_or(parameter)
    }

    /// What a name written in a scope is called in the pipeline, if `exists` knows such a name.
    pub(super) fn full_name(
        &self,
        scope: Option<usize>,
        name: &str,
        exists: impl Fn(&str) -> bool,
    ) -> Option<String> {
        let mut at = self.scope(scope);
        while let Some(scope) = at {
            let full = format!("{}{name}", scope.prefix);
            if exists(&full) {
                return Some(full);
            }
            at = self.scope(scope.outer);
        }
        exists(name).then(|| name.to_owned())
    }

    /// The scope in which a name was written that the value at a key of a stage comes to.
    pub(super) fn written_in(
        &self,
        declared: &StageDeclaration,
        key: &str,
        name: &str,
    ) -> Option<usize> {
        let here = declared.scope;
        let (Some(scope), Some(value)) = (self.scope(here), declared.body.get(key)) else {
            return here;
        };
        let mut parameters = Vec::new();
        leading_parameters(value, &mut parameters);
        let full = |parameter: &&str| format!("{}{parameter}", scope.prefix);
        let gives = |full: &String| self.params.get(full).is_some_and(|value| has(value, name));
        let Some(mut parameter) = parameters.iter().map(full).find(gives) else { return here };
        // One that has its value from another one.
        for _ in 0..self.written_params.len() {
            let mut next = Vec::new();
            let written = self.written_params.get(&parameter);
            written.into_iter().for_each(|written| leading_parameters(written, &mut next));
            match next.into_iter().find(|next| gives(&(*next).to_owned())) {
                Some(next) => parameter = next.to_owned(),
                None => break,
            }
        }
        self.scope_of_parameter.get(&parameter).copied().flatten()
    }

    /// The stages that the settings of a stage name by other names than they have in the pipeline.
    pub(super) fn renamed(
        &self,
        declared: &StageDeclaration,
        stage: &dyn Stage,
        layers: &StageLayers,
    ) -> Vec<Renamed> {
        if declared.scope.is_none() {
            return Vec::new();
        }
        let references = stage.references().into_iter();
        let references = references.map(|reference| (reference.key.to_owned(), reference.stage));
        let judge = stage.judge().map(|judge| (judge.key.to_owned(), judge.stage));
        let renamed = |(key, name): (String, String)| {
            let (short, values) = name.split_at(name.find('@').unwrap_or(name.len()));
            let first = key.split('.').next().unwrap_or_default();
            if layers.is_from_outside(first) {
                return None;
            }
            let scope = self.written_in(declared, first, short);
            let full = self.full_name(scope, short, |name| self.stage(name).is_some())?;
            let full = format!("{full}{values}");
            (full != name).then_some(Renamed { key, short: name, full })
        };
        references.chain(judge).filter_map(renamed).collect()
    }
}

impl Renamed {
    /// Whether it is this name in this setting.
    pub fn is_of(&self, key: &str, name: &str) -> bool {
        self.key == key && self.short == name
    }

    /// Writes the name of the pipeline where the files have the short one.
    pub fn write(&self, layers: &mut StageLayers) {
        let (first, inner) = self.key.split_once('.').unwrap_or((&self.key, ""));
        for layer in &mut layers.layers {
            if matches!(layer.origin, Origin::Outside(_)) {
                continue;
            }
            let mut keys = inner.split('.').filter(|key| !key.is_empty());
            let below = layer.values.get_mut(first);
            let value =
                below.and_then(|value| keys.try_fold(value, |value, key| value.get_mut(key)));
            if let Some(value) = value
                && !replace(value, &self.short, &self.full)
            {
                // A metric has the stage's name before a dot.
                replace_start(value, &format!("{}.", self.short), &format!("{}.", self.full));
            }
        }
    }
}

/// The parameters with which texts in a value begin.
fn leading_parameters<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
    match value {
        Value::String(text) => {
            let name =
                text.strip_prefix("${params.").and_then(|text| text.split(['}', '.']).next());
            found.extend(name.map(str::trim));
        }
        Value::Array(items) => items.iter().for_each(|item| leading_parameters(item, found)),
        Value::Object(map) => map.values().for_each(|item| leading_parameters(item, found)),
        _ => {}
    }
}

/// Whether a text in a value is that name, with what may stand behind it.
fn has(value: &Value, name: &str) -> bool {
    match value {
        Value::String(text) => text.split(['.', '@']).next() == Some(name),
        Value::Array(items) => items.iter().any(|item| has(item, name)),
        Value::Object(map) => map.values().any(|item| has(item, name)),
        _ => false,
    }
}

/// Writes one text in the place of another, wherever it is all of a value. Says whether it did.
fn replace(value: &mut Value, old: &str, new: &str) -> bool {
    match value {
        Value::String(text) if text == old => {
            *text = new.to_owned();
            true
        }
        Value::Object(map) => {
            map.values_mut().filter_map(|v| replace(v, old, new).then_some(())).count() > 0
        }
        Value::Array(list) => {
            list.iter_mut().filter_map(|v| replace(v, old, new).then_some(())).count() > 0
        }
        _ => false,
    }
}

/// The same for texts that begin so.
fn replace_start(value: &mut Value, old: &str, new: &str) {
    match value {
        Value::String(text) => {
            if let Some(rest) = text.strip_prefix(old) {
                *text = format!("{new}{rest}");
            }
        }
        Value::Object(map) => map.values_mut().for_each(|value| replace_start(value, old, new)),
        Value::Array(list) => list.iter_mut().for_each(|value| replace_start(value, old, new)),
        _ => {}
    }
}

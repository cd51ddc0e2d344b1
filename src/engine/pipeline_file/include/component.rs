//! An included file on its way into the one that includes it.

use std::collections::BTreeSet;

use pipe_core::error::Gathered;
use serde_json::{Map, Value};

use super::{Entry, Included};
use crate::pipeline_file::params;
use crate::pipeline_file::scope::Scope;
use crate::pipeline_file::values::error_at;
use crate::source::{Part, Source};

/// An included file: its own names, and those of the files that it includes.
pub(super) struct Component {
    pub source: Source,
    pub params: Map<String, Value>,
    /// By kind
    pub policies: Vec<(String, Map<String, Value>)>,
    /// In order
    pub stages: Vec<(String, Value)>,
    pub inner: Included,
}

impl Component {
    /// Adds it under longer names.
    pub fn add_to(
        self,
        including: &Source,
        entry: Entry,
        all: &mut Included,
        errors: &mut Gathered,
    ) {
        let prefix = format!("{}_", entry.name);
        let own = all.scopes.len();
        let below = |index: usize| own + 1 + index;
        let Self { source, params, policies, stages, inner } = self;
        let parameters: BTreeSet<String> =
            params.keys().chain(inner.params.keys()).cloned().collect();
        all.scopes.push(Scope {
            prefix: prefix.clone(),
            parameters: parameters.clone(),
            values: Map::new(),
            outer: None,
        });
        all.scopes.extend(inner.scopes.into_iter().map(|scope| Scope {
            prefix: format!("{prefix}{}", scope.prefix),
            outer: Some(scope.outer.map_or(own, below)),
            ..scope
        }));
        let name = entry.name.clone();
        let mut adding = Adding {
            source: &source,
            including,
            prefix: &prefix,
            name: &name,
            scope: own,
            all,
            errors,
        };
        let written = |name: &str| {
            inner.scope_of_parameter.get(name).map_or(own, |scope| scope.map_or(own, below))
        };
        adding.params(params, (&inner.params, written), entry.params, &parameters);
        let inner_scope = |kind: &str, name: &str| {
            inner.scope_of_policy.get(&(kind.to_owned(), name.to_owned())).map(|i| below(*i))
        };
        for (kind, named) in policies.into_iter().chain(inner.policies) {
            for (name, block) in named {
                let scope = inner_scope(&kind, &name).unwrap_or(own);
                adding.policy(&kind, name, block, scope);
            }
        }
        let mut group = Vec::new();
        for (name, body) in inner.stages.into_iter().chain(stages) {
            let scope = inner.scope_of_stage.get(&name).map_or(own, |index| below(*index));
            group.push(adding.stage(name, body, scope));
        }
        for (name, stages) in inner.groups {
            let stages = stages.into_iter().map(|stage| format!("{prefix}{stage}")).collect();
            adding.group(format!("{prefix}{name}"), stages);
        }
        adding.group(name.clone(), group);
    }
}

/// Adds what a file declares to the file that includes it.
struct Adding<'a> {
    source: &'a Source,
    including: &'a Source,
    prefix: &'a str,
    /// That of the inclusion
    name: &'a str,
    scope: usize,
    all: &'a mut Included,
    errors: &'a mut Gathered,
}

impl Adding<'_> {
    /// Parameters: given ones in the place of those in the file.
    fn params(
        &mut self,
        own: Map<String, Value>,
        (inner, written): (&Map<String, Value>, impl Fn(&str) -> usize),
        mut params: Map<String, Value>,
        known: &BTreeSet<String>,
    ) {
        let name = self.name;
        let own_names: Vec<String> = own.keys().cloned().collect();
        for (key, default) in own {
            let full = format!("{}{key}", self.prefix);
            let at = vec!["params".to_owned(), full.clone()];
            if let Some(given) = params.remove(&key) {
                let stands = ["include", name, "params", &key].map(str::to_owned).to_vec();
                self.place(at, (self.including.clone(), stands));
                self.all.scope_of_parameter.insert(full.clone(), None);
                self.all.params.insert(full, given);
            } else if default.is_null() {
                let message =
                    format!("missing parameter `{key}` of {}", self.source.path().display());
                let error = error_at(self.including, &["include", name], Part::Key, message);
                self.errors.push(error.note(format!("add `params: {{ {key}: … }}`")));
            } else {
                self.param(key, default, known, self.scope);
            }
        }
        for (key, value) in inner {
            self.param(key.clone(), value.clone(), known, written(key));
        }
        for key in params.keys() {
            let message = format!("{} has no parameter `{key}`", self.source.path().display());
            let error =
                error_at(self.including, &["include", name, "params", key], Part::Key, message);
            self.errors.push(error.candidates(key, own_names.iter().map(String::as_str)));
        }
    }

    /// Notes where something stands. Another file may have brought the same name.
    fn place(&mut self, at: Vec<String>, stands: (Source, Vec<String>)) {
        let (full, clash) =
            (at.last().cloned().unwrap_or_default(), self.all.pieces.insert(at, stands));
        if clash.is_some() {
            self.clash(&full);
        }
    }

    fn clash(&mut self, full: &str) {
        let message =
            format!("what comes in as `{full}` has a name that another included file brings");
        self.errors.push(error_at(self.including, &["include", self.name], Part::Key, message));
    }

    /// The stages of an inclusion, by its name.
    fn group(&mut self, name: String, stages: Vec<String>) {
        let is_stage = self.all.scope_of_stage.contains_key(&name);
        if self.all.groups.insert(name.clone(), stages).is_some() || is_stage {
            self.clash(&name);
        }
    }

    /// One whose value stands in the file, with the parameters that it refers to.
    fn param(&mut self, key: String, mut value: Value, known: &BTreeSet<String>, scope: usize) {
        let full = format!("{}{key}", self.prefix);
        let mut referred = BTreeSet::new();
        params::names_in(&value, &mut referred);
        for name in referred.iter().filter(|name| !known.contains(*name)) {
            let message = format!("no parameter `{name}` under `params:`");
            let error = error_at(self.source, &["params", &key], Part::Value, message);
            self.errors.push(error.candidates(name, known.iter().map(String::as_str)));
        }
        prefix_parameters(&mut value, self.prefix);
        let at = vec!["params".to_owned(), full.clone()];
        self.place(at, (self.source.clone(), vec!["params".to_owned(), key]));
        self.all.scope_of_parameter.insert(full.clone(), Some(scope));
        self.all.params.insert(full, value);
    }

    fn policy(&mut self, kind: &str, name: String, block: Value, scope: usize) {
        let full = format!("{}{name}", self.prefix);
        let at = |name: &str| ["policies", kind, name].map(str::to_owned).to_vec();
        self.place(at(&full), (self.source.clone(), at(&name)));
        self.all.scope_of_policy.insert((kind.to_owned(), full.clone()), scope);
        self.all.policies.entry(kind.to_owned()).or_default().insert(full, block);
    }

    /// Returns the name in the file that includes it.
    fn stage(&mut self, name: String, body: Value, scope: usize) -> String {
        let full = format!("{}{name}", self.prefix);
        let at = |name: &str| ["stages", name].map(str::to_owned).to_vec();
        self.place(at(&full), (self.source.clone(), at(&name)));
        self.all.scope_of_stage.insert(full.clone(), scope);
        if self.all.groups.contains_key(&full) {
            self.clash(&full);
        }
        self.all.stages.push((full.clone(), body));
        full
    }
}

/// Writes the longer names of parameters into references to them.
fn prefix_parameters(value: &mut Value, prefix: &str) {
    const START: &str = "${params.";
    match value {
        Value::String(text) if text.contains(START) => {
            let mut pieces = text.split(START);
            let mut new = pieces.next().unwrap_or_default().to_owned();
            for piece in pieces {
                // `$${` is a plain `${`.
                let is_plain = new.ends_with('$');
                new.push_str(START);
                if !is_plain {
                    new.push_str(prefix);
                }
                new.push_str(piece);
            }
            *text = new;
        }
        Value::Array(items) => items.iter_mut().for_each(|item| prefix_parameters(item, prefix)),
        Value::Object(map) => map.values_mut().for_each(|item| prefix_parameters(item, prefix)),
        _ => {}
    }
}

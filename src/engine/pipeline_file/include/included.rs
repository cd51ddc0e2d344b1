//! What included files bring.

use std::collections::BTreeMap;

use pipe_core::error::Gathered;
use serde_json::{Map, Value};

use crate::pipeline_file::scope::Scope;
use crate::pipeline_file::values::error_at;
use crate::source::{Part, Pieces, Source};

/// What included files bring, under the names that it has in the file that includes them.
#[derive(Debug, Default)]
pub(crate) struct Included {
    pub params: Map<String, Value>,
    /// By kind
    pub policies: BTreeMap<String, Map<String, Value>>,
    /// In order
    pub stages: Vec<(String, Value)>,
    /// The names of the inclusions, and the stages of each.
    pub groups: BTreeMap<String, Vec<String>>,
    pub scopes: Vec<Scope>,
    pub scope_of_stage: BTreeMap<String, usize>,
    /// By kind and name
    pub scope_of_policy: BTreeMap<(String, String), usize>,
    /// Where the value of each parameter was written; none is the file that includes.
    pub scope_of_parameter: BTreeMap<String, Option<usize>>,
    pub pieces: Pieces,
}

impl Included {
    /// Refuses names that the file itself has too.
    pub fn check_names(&self, root: &Map<String, Value>, source: &Source, errors: &mut Gathered) {
        let own = |path: &[&str]| {
            let (first, rest) = path.split_first()?;
            rest.iter().try_fold(root.get(*first)?, |value, key| value.get(key))
        };
        let mut check = |path: &[&str], what: &str, advice: &str| {
            if own(path).is_some() {
                let message = format!("{what} has this name too");
                errors.push(error_at(source, path, Part::Key, message).note(advice));
            }
        };
        let advice = "a value for it stands under `include`";
        let parameter = |name| check(&["params", name], "a parameter of an included file", advice);
        self.params.keys().map(String::as_str).for_each(parameter);
        for (kind, named) in &self.policies {
            for name in named.keys() {
                let what = "a policy of an included file";
                check(&["policies", kind, name], what, "give this one another name");
            }
        }
        let advice = "settings of an included stage come from its parameters, a profile or `--set`";
        for (name, _) in &self.stages {
            check(&["stages", name], "a stage of an included file", advice);
        }
        for name in self.groups.keys() {
            check(&["stages", name], "an included file", "its name means all its stages");
        }
    }

    /// Puts all into the document of the pipeline. Returns its source with what stands elsewhere.
    pub fn add_to_document(
        &mut self,
        root: &mut Map<String, Value>,
        order: &mut Vec<String>,
        source: &Source,
    ) -> Source {
        let mut policies = Map::new();
        for (kind, named) in std::mem::take(&mut self.policies) {
            policies.insert(kind, Value::Object(named));
        }
        add(root, "params", std::mem::take(&mut self.params));
        add(root, "policies", policies);
        let stages = std::mem::take(&mut self.stages);
        order.splice(0..0, stages.iter().map(|(name, _)| name.clone()));
        add(root, "stages", stages.into_iter().collect());
        source.with_pieces(std::mem::take(&mut self.pieces))
    }
}

/// Adds entries to a mapping in a document, and to the mappings in it that are there. What is no
/// mapping is told later.
fn add(root: &mut Map<String, Value>, key: &str, entries: Map<String, Value>) {
    if entries.is_empty() {
        return;
    }
    match root.get_mut(key) {
        None | Some(Value::Null) => {
            root.insert(key.to_owned(), Value::Object(entries));
        }
        Some(Value::Object(map)) => {
            for (key, value) in entries {
                match (map.get_mut(&key), value) {
                    (Some(Value::Object(own)), Value::Object(value)) => own.extend(value),
                    (_, value) => {
                        map.insert(key, value);
                    }
                }
            }
        }
        Some(_) => {}
    }
}

//! `profiles:`: named layers over the file itself, such as for a cluster. One that is chosen is put on
//! what the file says, mapping by mapping; of several the later ones win, and all that is set outside
//! of the file wins over them.

use std::collections::BTreeSet;

use pipe_core::error::{Gathered, SpecError};
use serde_json::{Map, Value, json};

use crate::pipeline_file::overrides::{Override, Precedence, overrides_for_others};
use crate::pipeline_file::sections::OF_PROFILES;
use crate::pipeline_file::values::{error_at, mapping};
use crate::source::{Part, Pieces, Source};

/// What profiles come to.
pub(super) struct Applied {
    /// The names of all that the file has.
    pub names: Vec<String>,
    /// That of the whole document.
    pub source: Source,
    /// The parameters that the chosen ones set.
    pub params: BTreeSet<String>,
}

/// Puts the chosen profiles on the document. What is wrong with the form of any profile is an error.
pub(super) fn apply(
    root: &mut Map<String, Value>,
    mut source: Source,
    overrides: &[Override],
    errors: &mut Gathered,
) -> Applied {
    let mut params = BTreeSet::new();
    let profiles = match root.remove("profiles") {
        None | Some(Value::Null) => Map::new(),
        Some(value) => errors.take(mapping(&source, &["profiles"], value)).unwrap_or_default(),
    };
    let mut all = Map::new();
    for (name, body) in profiles {
        let body = match body {
            Value::Null => Some(Map::new()),
            body => errors.take(mapping(&source, &["profiles", &name], body)),
        };
        let body = body.map(|body| checked(root, &source, &name, body, errors));
        all.insert(name, Value::Object(body.unwrap_or_default()));
    }
    let names: Vec<String> = all.keys().cloned().collect();
    for (name, given) in chosen(overrides, !names.is_empty()) {
        match all.get(&name).and_then(Value::as_object) {
            Some(profile) => {
                let set = profile.get("params").and_then(Value::as_object);
                params.extend(set.into_iter().flat_map(Map::keys).cloned());
                let stands = vec!["profiles".to_owned(), name.clone()];
                let mut laying = Laying { source: &source, pieces: Pieces::new() };
                laying.executor(root, profile.get("executor"), &stands);
                let others = profile.iter().filter(|(key, _)| *key != "executor");
                laying.mapping(root, others, &[], &stands);
                let pieces = laying.pieces;
                source = source.with_pieces(pieces);
            }
            None => errors.push(unknown(&name, given, &names, &source)),
        }
    }
    Applied { names, source, params }
}

/// The profiles that are asked for, each with who asks: the command line, or else the environment.
fn chosen(overrides: &[Override], declared: bool) -> Vec<(String, &Override)> {
    let by = |strength: Precedence| -> Vec<(String, &Override)> {
        let given = overrides.iter().filter(|o| o.strength == strength);
        given
            .flat_map(|given| given.profiles(declared).into_iter().map(move |n| (n, given)))
            .collect()
    };
    let typed = by(Precedence::CommandLine);
    if typed.is_empty() { by(Precedence::Environment) } else { typed }
}

fn unknown(name: &str, given: &Override, names: &[String], source: &Source) -> SpecError {
    let shown = &given.by.shown;
    let error = match given.strength {
        Precedence::CommandLine => {
            SpecError::plain(format!("{shown}: no profile is called `{name}`"))
        }
        Precedence::Environment => SpecError::plain(format!("{shown}: no profile has that name"))
            .note(overrides_for_others(&given.by)),
    };
    if names.is_empty() {
        let file = source.path().display();
        return error.note(format!("{file} has no `profiles:`"));
    }
    match given.strength {
        Precedence::CommandLine => error.candidates(name, names.iter().map(String::as_str)),
        // What is near tells what was given.
        Precedence::Environment => error.note(format!("expected one of: {}", names.join(", "))),
    }
}

/// A profile without what it cannot change, each with an error: other keys, and parameters and
/// stages that the file does not have.
fn checked(
    root: &Map<String, Value>,
    source: &Source,
    name: &str,
    mut body: Map<String, Value>,
    errors: &mut Gathered,
) -> Map<String, Value> {
    body.retain(|key, _| {
        let known = OF_PROFILES.contains(&key.as_str());
        if !known {
            let error = error_at(source, &["profiles", name, key], Part::Key, "unknown key");
            errors.push(error.candidates(key, OF_PROFILES));
        }
        known
    });
    for (section, what) in [("params", "parameter"), ("stages", "stage")] {
        let Some(value) = body.get_mut(section).filter(|value| !value.is_null()) else { continue };
        let path = ["profiles", name, section];
        let taken = mapping(source, &path, value.take());
        let Some(mut entries) = errors.take(taken) else { continue };
        let declared = root.get(section).and_then(Value::as_object);
        entries.retain(|key, _| {
            let known = declared.is_some_and(|declared| declared.contains_key(key));
            if !known {
                let message =
                    format!("no {what} is called `{key}`: a profile changes what the file has");
                let error = error_at(source, &[&path[..], &[key]].concat(), Part::Key, message);
                let names = declared.into_iter().flat_map(Map::keys).map(String::as_str);
                errors.push(error.candidates(key, names));
            }
            known
        });
        *value = Value::Object(entries);
    }
    body
}

/// One profile on its way onto the document.
struct Laying<'a> {
    source: &'a Source,
    /// What stands in the profile now.
    pieces: Pieces,
}

impl Laying<'_> {
    fn mapping<'v>(
        &mut self,
        below: &mut Map<String, Value>,
        above: impl IntoIterator<Item = (&'v String, &'v Value)>,
        at: &[String],
        stands: &[String],
    ) {
        for (key, value) in above {
            let path = |base: &[String]| [base, std::slice::from_ref(key)].concat();
            match (below.get_mut(key), value) {
                (Some(Value::Object(below)), Value::Object(above)) => {
                    self.mapping(below, above, &path(at), &path(stands));
                }
                // A section with nothing in it changes nothing.
                (_, Value::Null)
                    if at.is_empty()
                        && ["params", "policies", "stages"].contains(&key.as_str()) => {}
                _ => {
                    below.insert(key.clone(), value.clone());
                    self.pieces.insert(path(at), (self.source.clone(), path(stands)));
                }
            }
        }
    }

    /// `executor: slurm` is `{kind: slurm}` where the other one is a mapping.
    fn executor(&mut self, root: &mut Map<String, Value>, over: Option<&Value>, stands: &[String]) {
        let Some(over) = over else { return };
        let key = "executor".to_owned();
        let stands = [stands, std::slice::from_ref(&key)].concat();
        let kind = vec![key.clone(), "kind".to_owned()];
        match (root.get_mut(&key), over) {
            (Some(Value::Object(below)), Value::String(word)) => {
                below.insert("kind".into(), Value::String(word.clone()));
                self.pieces.insert(kind, (self.source.clone(), stands));
            }
            (Some(below), Value::Object(above)) => {
                if below.is_string() {
                    *below = json!({ "kind": below.take() });
                    self.pieces.insert(kind, (self.source.clone(), vec![key.clone()]));
                }
                if let Value::Object(below) = below {
                    return self.mapping(below, above, &[key], &stands);
                }
                *below = Value::Object(above.clone());
                self.pieces.insert(vec![key], (self.source.clone(), stands));
            }
            _ => {
                root.insert(key.clone(), over.clone());
                self.pieces.insert(vec![key], (self.source.clone(), stands));
            }
        }
    }
}

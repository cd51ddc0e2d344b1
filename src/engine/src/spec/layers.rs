//! The layers of one stage's settings, weakest first, merged by figment. Keeps where each layer came from, so that
//! an error in the merged settings is reported at the line that caused it.

use figment::Figment;
use figment::error::{Actual, Kind};
use figment::providers::Serialized;
use serde_json::{Map, Value};

use crate::error::SpecError;
use crate::kind::{Rejection, StageId};
use crate::source::{Part, Source};

/// Settings from one origin.
#[derive(Debug, Clone)]
pub struct Layer {
    pub origin: Origin,
    pub values: Map<String, Value>,
}

/// Where a layer was written.
#[derive(Debug, Clone)]
pub enum Origin {
    /// In a file, under the key path `base`. Values under a key in `moved` stand elsewhere: policies by name.
    File { source: Source, base: Vec<String>, moved: Vec<(String, Source, Vec<String>)> },
    /// On the command line or in the environment, shown as written.
    Outside { shown: String },
}

/// All layers of one stage.
#[derive(Debug, Clone)]
pub struct StageLayers {
    pub stage: StageId,
    /// The pipeline file, for errors that belong to no layer.
    pub pipeline: Source,
    pub layers: Vec<Layer>,
}

impl StageLayers {
    /// The merged settings, as far as their outermost keys are wanted.
    pub fn figment(&self, wanted: impl Fn(&str) -> bool) -> Figment {
        self.layers.iter().fold(Figment::new(), |merged, layer| {
            let values: Map<String, Value> =
                layer.values.iter().filter(|(k, _)| wanted(k)).map(|(k, v)| (k.clone(), v.clone())).collect();
            match values.is_empty() {
                true => merged,
                false => merged.merge(Serialized::defaults(Value::Object(values))),
            }
        })
    }

    /// The value of a key after merging, without types.
    pub fn merged(&self, key: &str) -> Option<Value> {
        self.figment(|_| true).extract_inner::<Value>(key).ok()
    }

    /// Whether one of the layers has a value at `path`.
    pub(super) fn has(&self, path: &[String]) -> bool {
        self.layers.iter().any(|layer| holds(&layer.values, path))
    }

    /// Of two settings that stand for each other keeps the one in the stronger layer, so that a flag can replace what a
    /// file says in the other way. In one layer both stay, for the stage to judge.
    pub(super) fn choose_between(&mut self, one: &str, other: &str) {
        let given = |layer: &Layer, key: &str| layer.values.get(key).is_some_and(|value| !value.is_null());
        let strongest = |key: &str| self.layers.iter().rposition(|layer| given(layer, key));
        let weaker = match (strongest(one), strongest(other)) {
            (Some(a), Some(b)) if a > b => other,
            (Some(a), Some(b)) if a < b => one,
            _ => return,
        };
        self.layers.iter_mut().for_each(|layer| {
            layer.values.remove(weaker);
        });
    }

    /// Takes away the value at `path` in the strongest layer that has it; of a list the whole list, since places in the
    /// file count its items. Says whether there was one.
    pub(super) fn leave_out(&mut self, path: &[String]) -> bool {
        let holder = self.layers.iter_mut().rev().find(|layer| holds(&layer.values, path));
        holder.is_some_and(|layer| remove(&mut layer.values, path))
    }

    /// Turns what a stage kind refused into an error at the place that caused it.
    pub fn explain(&self, rejection: Rejection) -> SpecError {
        match rejection {
            Rejection::Form(ref error) => self.explain_form(error, rejection.path()),
            Rejection::Value { ref message, .. } => self.error_at(&rejection.path(), message),
        }
    }

    fn explain_form(&self, error: &figment::Error, path: Vec<String>) -> SpecError {
        match &error.kind {
            Kind::UnknownField(name, expected) => self
                .error_on(&path, Part::Key, "unknown key".into())
                .candidates(name, expected.iter().copied()),
            Kind::MissingField(name) => {
                let message = format!("missing key `{name}`");
                match &path[..path.len() - 1] {
                    [] => self.whole_stage(message),
                    parent => self.error_on(parent, Part::Key, message),
                }
            }
            Kind::UnknownVariant(name, expected) => self
                .error_at(&path, format!("unknown value `{name}`"))
                .candidates(name, expected.iter().copied()),
            Kind::InvalidType(actual, expected) | Kind::InvalidValue(actual, expected) => {
                self.error_at(&path, format!("expected {}, found {}", in_words(expected), what_is(actual)))
            }
            Kind::DuplicateField(name) => self.error_at(&path, format!("key `{name}` stands twice")),
            Kind::Message(message) => self.error_at(&path, message),
            other => self.error_at(&path, other.to_string()),
        }
    }

    /// An error about the stage as a whole.
    pub fn whole_stage(&self, message: impl Into<String>) -> SpecError {
        let key = vec!["stages".to_owned(), self.stage.to_string()];
        SpecError::at(&self.pipeline, self.pipeline.locate(&key, Part::Key), key, message)
    }

    /// An error about the value at `path`, which is relative to the stage.
    pub fn error_at(&self, path: &[String], message: impl Into<String>) -> SpecError {
        self.error_on(path, Part::Value, message.into())
    }

    pub(super) fn error_on(&self, path: &[String], part: Part, message: String) -> SpecError {
        // The strongest layer that has the value is the one to blame.
        let holder = self.layers.iter().rev().find(|layer| holds(&layer.values, path));
        match holder {
            Some(Layer { origin: Origin::Outside { shown }, .. }) => {
                SpecError::plain(format!("{shown}: {message}"))
                    .note(format!("setting: {}", self.shown_key(path)))
            }
            Some(Layer { origin: Origin::File { source, base, moved }, .. }) => {
                let moved = moved.iter().find(|(key, ..)| path.first() == Some(key));
                let (source, full) = match moved {
                    Some((_, source, to)) => (source, [to.as_slice(), &path[1..]].concat()),
                    None => (source, [base.as_slice(), path].concat()),
                };
                let at = source.locate(&full, part).or_else(|| source.locate_nearest(&full));
                SpecError::at(source, at, full, message)
            }
            None => {
                let key = [&["stages".to_owned(), self.stage.to_string()], path].concat();
                SpecError::at(&self.pipeline, self.pipeline.locate_nearest(&key), key, message)
            }
        }
    }

    fn shown_key(&self, path: &[String]) -> String {
        format!("{}.{}", self.stage, path.join("."))
    }
}

fn holds(values: &Map<String, Value>, path: &[String]) -> bool {
    let Some((first, rest)) = path.split_first() else { return false };
    let Some(mut value) = values.get(first) else { return false };
    for key in rest {
        let next = match value {
            Value::Object(map) => map.get(key),
            Value::Array(items) => key.parse::<usize>().ok().and_then(|i| items.get(i)),
            _ => None,
        };
        match next {
            Some(next) => value = next,
            None => return false,
        }
    }
    true
}

fn remove(values: &mut Map<String, Value>, path: &[String]) -> bool {
    let Some((first, rest)) = path.split_first() else { return false };
    match values.get_mut(first) {
        Some(Value::Object(inner)) if !rest.is_empty() => remove(inner, rest),
        _ => values.remove(first).is_some(),
    }
}

/// A value that was found, as it is written in YAML.
fn what_is(found: &Actual) -> String {
    match found {
        Actual::Bool(value) => format!("`{value}`"),
        Actual::Unsigned(value) => format!("the number {value}"),
        Actual::Signed(value) => format!("the number {value}"),
        Actual::Float(value) => format!("the number {value}"),
        Actual::Str(text) => format!("text {text:?}"),
        Actual::Seq => "a list".into(),
        Actual::Map => "a mapping".into(),
        Actual::Unit | Actual::Option => "nothing".into(),
        other => other.to_string(),
    }
}

/// Rust's names for types are not the user's.
fn in_words(expected: &str) -> String {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" | "u128" => "a whole number, 0 or more".into(),
        "i8" | "i16" | "i32" | "i64" | "isize" | "i128" => "a whole number".into(),
        "f32" | "f64" => "a number".into(),
        "a boolean" | "bool" => "true or false".into(),
        "a string" | "str" | "string" => "text".into(),
        "a sequence" => "a list".into(),
        other => match other.strip_prefix("struct ") {
            Some(_) => "a mapping (`key: value` lines)".into(),
            None => other.to_owned(),
        },
    }
}

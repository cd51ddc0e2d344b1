//! The layers of one stage's settings, weakest first, merged by figment. Keeps where each layer
//! came from, so that an error in the merged settings is reported at the line that caused it.

use figment::Figment;
use figment::error::{Actual, Kind};
use figment::providers::Serialized;
use pipe_core::error::SpecError;
use pipe_core::ids::StageId;
use serde_json::{Map, Value};

use crate::pipeline_file::common_keys::nearest_key;
use crate::pipeline_file::overrides::{OverrideSource, overrides_for_others};
use crate::pipeline_file::paths::Place;
use crate::pipeline_file::words::{describe, in_words, what_is};
use crate::rejection::Rejection;
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
    /// In a file, under the key path `base`. Values under a key in `moved` stand elsewhere:
    /// policies by name.
    File { source: Source, base: Vec<String>, moved: Vec<(String, Source, Vec<String>)> },
    /// On the command line or in the environment.
    Outside(OverrideSource),
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
            let values: Map<String, Value> = layer
                .values
                .iter()
                .filter(|(k, _)| wanted(k))
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect();
            if values.is_empty() {
                merged
            } else {
                merged.merge(Serialized::defaults(Value::Object(values)))
            }
        })
    }

    /// What `read` makes of the wanted keys. A number such as `5.0` where a whole one belongs is a
    /// whole one.
    pub(super) fn typed<T>(
        &mut self,
        wanted: impl Fn(&str) -> bool,
        read: impl Fn(&Figment) -> Result<T, Rejection>,
    ) -> Result<T, Rejection> {
        loop {
            match read(&self.figment(&wanted)) {
                Err(rejection) if wants_whole(&rejection) && self.make_whole(&rejection.path()) => {
                }
                Err(Rejection::Unused { key, .. }) if self.leave_out_for_all(&key) => {}
                other => return other,
            }
        }
    }

    /// Takes away the value of a key where it is set for all stages and in no stronger layer. Says
    /// whether there was one.
    fn leave_out_for_all(&mut self, key: &str) -> bool {
        let holder = self.layers.iter_mut().rev().find(|layer| layer.values.contains_key(key));
        let is_for_all =
            |layer: &Layer| matches!(&layer.origin, Origin::Outside(by) if by.is_for_all);
        holder.is_some_and(|layer| is_for_all(layer) && layer.values.remove(key).is_some())
    }

    /// Writes the number at `path` without its `.0`, if that is all that it has. Says whether it
    /// did.
    fn make_whole(&mut self, path: &[String]) -> bool {
        let holder = self.layers.iter_mut().rev().find(|layer| holds(&layer.values, path));
        let Some(value) = holder.and_then(|layer| value_in_mut(&mut layer.values, path)) else {
            return false;
        };
        let Some(number) = value.as_f64().filter(|number| value.is_f64() && number.fract() == 0.0)
        else {
            return false;
        };
        // Beyond 2^53 two neighbouring whole numbers may be the same float.
        const EXACT: f64 = (1_u64 << 53) as f64;
        if number.abs() > EXACT {
            return false;
        }
        *value = if number < 0.0 { Value::from(number as i64) } else { Value::from(number as u64) };
        true
    }

    /// The layers, unless all of it stands at the stage in the pipeline file: of many stages they are
    /// a quarter of the memory.
    pub(super) fn beyond_the_file(self) -> Option<Box<Self>> {
        let is_file =
            |origin: &Origin| matches!(origin, Origin::File { moved, .. } if moved.is_empty());
        let alone = matches!(&self.layers[..], [Layer { origin, .. }] if is_file(origin));
        (!alone).then(|| Box::new(self))
    }

    /// The value of a key after merging, without types.
    pub fn merged(&self, key: &str) -> Option<Value> {
        self.figment(|_| true).extract_inner::<Value>(key).ok()
    }

    /// Whether the value of a key was given outside of the files.
    pub(super) fn is_from_outside(&self, key: &str) -> bool {
        let holder = self.layers.iter().rev().find(|layer| layer.values.contains_key(key));
        holder.is_some_and(|layer| matches!(layer.origin, Origin::Outside(_)))
    }

    /// Whether one of the layers has a value at `path`.
    pub(super) fn has(&self, path: &[String]) -> bool {
        self.layers.iter().any(|layer| holds(&layer.values, path))
    }

    /// Of two settings that stand for each other keeps the one in the stronger layer, so that a
    /// flag can replace what a file says in the other way. In one layer both stay, for the stage to
    /// judge.
    pub(super) fn choose_between(&mut self, one: &str, other: &str) {
        let given =
            |layer: &Layer, key: &str| layer.values.get(key).is_some_and(|value| !value.is_null());
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

    /// Takes away the value at `path` in the strongest layer that has it; of a list the whole list,
    /// since places in the file count its items. Says whether there was one.
    pub(super) fn leave_out(&mut self, path: &[String]) -> bool {
        let holder = self.layers.iter_mut().rev().find(|layer| holds(&layer.values, path));
        holder.is_some_and(|layer| remove(&mut layer.values, path))
    }

    /// Turns what a stage kind refused into an error at the place that caused it.
    pub fn explain(&self, rejection: Rejection) -> SpecError {
        match rejection {
            Rejection::Form(ref error) => self.explain_form(error, rejection.path(), 0),
            Rejection::Value { ref message, .. } | Rejection::Unused { ref message, .. } => {
                self.error_at(&rejection.path(), message)
            }
        }
    }

    /// The same with what the schema of the settings tells of the place.
    pub(super) fn explain_with(
        &self,
        rejection: Rejection,
        kind: &str,
        place: &Place,
    ) -> SpecError {
        let path = rejection.path();
        let Rejection::Form(form) = &rejection else { return self.explain(rejection) };
        let Some((_, outer)) = path.split_last() else { return self.explain(rejection) };
        match &form.kind {
            Kind::UnknownField(name, known) => {
                let of_kind = place.suggestion(name).map(|meant| match meant.split_last() {
                    Some((last, same)) if same == outer => format!("`{last}`"),
                    Some((last, [])) => format!("`{last}`, a key of the stage itself"),
                    // A block may be called as its stage is.
                    _ if *meant[0] == *self.stage.declared() => {
                        format!("`{}.{}`", self.stage, meant.join("."))
                    }
                    _ => format!("`{}`", meant.join(".")),
                });
                let of_all = || nearest_key(name).filter(|_| outer.is_empty());
                let error = match of_kind.or_else(|| of_all().map(|key| format!("`{key}`"))) {
                    Some(meant) => self
                        .error_on(&path, Part::Key, "unknown key".into())
                        .note(format!("did you mean {meant}?"))
                        .nearest_of(name, known.iter().copied()),
                    None => self.explain(rejection),
                };
                if error.is_shortened() {
                    error.note(format!("`pipe schema {kind}` describes all keys"))
                } else {
                    error
                }
            }
            Kind::UnknownVariant(..) => self.explain(rejection),
            _ => {
                let there = path.iter().try_fold(Place::clone(place), |place, key| place.at(key));
                let words = there.as_ref().map(Place::words).unwrap_or_default();
                let least = there.as_ref().map_or(0, Place::least);
                // A type that takes more than words says so itself.
                let names_them = match &form.kind {
                    Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) => {
                        words.iter().any(|word| expected.contains(word))
                    }
                    _ => false,
                };
                match self.value_of(&path) {
                    Some(value) if !words.is_empty() && !names_them && !value.is_string() => {
                        let message =
                            format!("expected one of a few words, found {}", describe(value));
                        self.error_at(&path, message).candidates(&value.to_string(), words)
                    }
                    _ => {
                        let error = self.explain_form(form, path, least);
                        let keys = there.iter().flat_map(Place::keys);
                        if is_block(&form.kind) { error.note(its_keys(keys)) } else { error }
                    }
                }
            }
        }
    }

    /// The value at `path` in the strongest layer that has one.
    fn value_of(&self, path: &[String]) -> Option<&Value> {
        self.layers.iter().rev().find_map(|layer| value_in(&layer.values, path))
    }

    /// `least`: the smallest number that may stand there.
    fn explain_form(&self, error: &figment::Error, path: Vec<String>, least: u64) -> SpecError {
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
                let expected = match (&error.kind, is_large(actual), most(expected)) {
                    (Kind::InvalidValue(..), true, Some(most))
                    | (_, true, Some(most @ u64::MAX)) => {
                        format!("a whole number up to {most}")
                    }
                    _ => in_words(expected, least),
                };
                self.error_at(&path, format!("expected {expected}, found {}", what_is(actual)))
            }
            Kind::InvalidLength(found, expected) => {
                let length =
                    expected.split_whitespace().last().and_then(|word| word.parse::<usize>().ok());
                let expected =
                    length.map_or_else(|| expected.clone(), |n| format!("a list of {n} values"));
                self.error_at(&path, format!("expected {expected}, found {found}"))
            }
            Kind::Unsupported(actual) | Kind::UnsupportedKey(actual, _) => {
                self.error_at(&path, format!("{} has no meaning here", what_is(actual)))
            }
            Kind::DuplicateField(name) => {
                self.error_at(&path, format!("key `{name}` stands twice"))
            }
            Kind::Message(message) => self.error_at(&path, message),
            other => self.error_at(&path, other.to_string()),
        }
    }

    /// An error about the stage as a whole.
    pub fn whole_stage(&self, message: impl Into<String>) -> SpecError {
        let key = vec!["stages".to_owned(), self.stage.to_string()];
        SpecError::on(&self.pipeline, key, Part::Key, message)
    }

    /// An error about the value at `path`, which is relative to the stage.
    pub fn error_at(&self, path: &[String], message: impl Into<String>) -> SpecError {
        self.error_on(path, Part::Value, message.into())
    }

    pub(super) fn error_on(&self, path: &[String], part: Part, message: String) -> SpecError {
        // The strongest layer that has the value is the one to blame.
        let holder = self.layers.iter().rev().find(|layer| holds(&layer.values, path));
        match holder {
            Some(Layer { origin: Origin::Outside(by), .. }) => {
                let error = SpecError::plain(format!("{}: {message}", by.shown)).hiding(&by.hidden);
                let error = error.note(format!("setting: {}", self.shown_key(path)));
                if by.hidden.is_empty() { error } else { error.note(overrides_for_others(by)) }
            }
            Some(Layer { origin: Origin::File { source, base, moved }, .. }) => {
                let moved = moved.iter().find(|(key, ..)| path.first() == Some(key));
                let (source, full) = match moved {
                    Some((_, source, to)) => (source, [to.as_slice(), &path[1..]].concat()),
                    None => (source, [base.as_slice(), path].concat()),
                };
                SpecError::on(source, full, part, message)
            }
            None => {
                let key = [&["stages".to_owned(), self.stage.to_string()], path].concat();
                SpecError::on(&self.pipeline, key, Part::Key, message)
            }
        }
    }

    fn shown_key(&self, path: &[String]) -> String {
        format!("{}.{}", self.stage, path.join("."))
    }
}

fn holds(values: &Map<String, Value>, path: &[String]) -> bool {
    value_in(values, path).is_some()
}

fn value_in<'a>(values: &'a Map<String, Value>, path: &[String]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(values.get(first)?, |value, key| match value {
        Value::Object(map) => map.get(key),
        Value::Array(items) => items.get(key.parse::<usize>().ok()?),
        _ => None,
    })
}

fn value_in_mut<'a>(values: &'a mut Map<String, Value>, path: &[String]) -> Option<&'a mut Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(values.get_mut(first)?, |value, key| match value {
        Value::Object(map) => map.get_mut(key),
        Value::Array(items) => items.get_mut(key.parse::<usize>().ok()?),
        _ => None,
    })
}

/// Whether one value stands where a block of settings is expected.
fn is_block(kind: &Kind) -> bool {
    matches!(kind, Kind::InvalidType(_, expected) if expected.starts_with("struct "))
}

/// The keys of a block, as a note says them.
fn its_keys<'a>(keys: impl Iterator<Item = &'a str>) -> String {
    const MOST: usize = 8;
    let mut keys: Vec<&str> = keys.collect();
    let more = keys.len().saturating_sub(MOST);
    keys.truncate(MOST);
    let more = if more == 0 { String::new() } else { format!(", and {more} more") };
    format!("its keys: {}{more}", keys.join(", "))
}

/// Whether a number with a point was refused where a whole one is expected.
fn wants_whole(rejection: &Rejection) -> bool {
    let Rejection::Form(error) = rejection else { return false };
    matches!(&error.kind, Kind::InvalidType(Actual::Float(_), expected) if in_words(expected, 0).starts_with("a whole number"))
}

/// Whether a number may be too large for what is expected.
fn is_large(found: &Actual) -> bool {
    match found {
        Actual::Unsigned(number) => *number > u128::from(u8::MAX),
        Actual::Signed(number) => *number > i128::from(i8::MAX),
        Actual::Float(number) => *number > u64::MAX as f64 / 2.0,
        _ => false,
    }
}

/// The largest number of one of Rust's types.
fn most(expected: &str) -> Option<u64> {
    Some(match expected {
        "u8" => u8::MAX.into(),
        "u16" => u16::MAX.into(),
        "u32" => u32::MAX.into(),
        "u64" | "usize" => u64::MAX,
        _ => return None,
    })
}

fn remove(values: &mut Map<String, Value>, path: &[String]) -> bool {
    let Some((first, rest)) = path.split_first() else { return false };
    match values.get_mut(first) {
        Some(Value::Object(inner)) if !rest.is_empty() => remove(inner, rest),
        _ => values.remove(first).is_some(),
    }
}

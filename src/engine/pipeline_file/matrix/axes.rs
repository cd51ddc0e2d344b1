//! What a matrix is written as: axes, which are keys with lists of values, and the words beside them
//! that mean something else. A word with a list of plain values is an axis as any other key.

use pipe_core::error::SpecError;
use serde_json::{Map, Value};

use super::names::{self, Words};
use super::reading::{MOST, Reading};
use crate::pipeline_file::overrides::OverrideSource;
use crate::pipeline_file::pipeline::Swept;
use crate::source::Part;

/// The key for so many seeds of each member.
pub(crate) const SEEDS: &str = "seeds";
const RANDOM: &str = "random";
const INCLUDE: &str = "include";
const EXCLUDE: &str = "exclude";

/// A matrix, as it is written.
pub(crate) enum Form<'a> {
    /// Each mapping is a member.
    List(&'a [Value]),
    Mapping(Parts<'a>),
}

/// A matrix that is a mapping.
#[derive(Default)]
pub(crate) struct Parts<'a> {
    /// Anything that is not a mapping, a list or nothing is wrong, and told when it is read.
    pub axes: Vec<(&'a String, &'a Value)>,
    pub random: Option<&'a Value>,
    pub include: Option<&'a [Value]>,
    pub exclude: Option<&'a [Value]>,
    pub seeds: Option<&'a Value>,
    /// It is no mapping at all.
    pub wrong: Option<&'a Value>,
}

/// How the value under `matrix` is to be read.
pub(crate) fn form(matrix: &Value) -> Form<'_> {
    let map = match matrix {
        Value::Array(list) => return Form::List(list),
        Value::Object(map) => map,
        other => return Form::Mapping(Parts { wrong: Some(other), ..Parts::default() }),
    };
    let mut parts = Parts::default();
    for (key, value) in map {
        match (key.as_str(), value) {
            (RANDOM, value) if !value.is_array() => parts.random = Some(value),
            (SEEDS, value) if !value.is_array() => parts.seeds = Some(value),
            (INCLUDE, Value::Array(list)) if of_mappings(list) => parts.include = Some(list),
            (EXCLUDE, Value::Array(list)) if of_mappings(list) => parts.exclude = Some(list),
            _ => parts.axes.push((key, value)),
        }
    }
    Form::Mapping(parts)
}

fn of_mappings(list: &[Value]) -> bool {
    list.iter().any(Value::is_object)
}

/// One key and its values.
pub(super) struct Axis {
    pub key: String,
    pub values: Vec<Value>,
    /// What a name says of each value.
    pub words: Vec<Words>,
    /// Where the values stand, below `matrix`, when they do not stand under their key there.
    pub at: Vec<String>,
    /// Where the axis stands, below `matrix`.
    place: Vec<String>,
    /// What gave it, if it does not stand in the file.
    pub by: Option<OverrideSource>,
    /// Whether it is nothing but a name and what stands as `${matrix.KEY}`.
    pub is_inherited: bool,
}

impl Axis {
    /// The key under which it is written.
    pub fn written(&self) -> &str {
        self.place.first().map_or(self.key.as_str(), String::as_str)
    }

    /// Where a value stands that does not stand under its key.
    pub fn moved(&self, index: usize) -> Option<(String, Vec<String>)> {
        if self.by.is_some() {
            return None;
        }
        let is_seed = self.place.first() != Some(&self.key);
        let of_list = self.values[index].is_object();
        let place = match (is_seed, of_list) {
            (false, false) => return None,
            (false, true) => [self.place.as_slice(), &[index.to_string()]].concat(),
            (true, _) => self.place.clone(),
        };
        Some((self.key.clone(), place))
    }
}

/// The keys with lists of values.
pub(super) fn read(reading: Reading, parts: &Parts) -> Result<Vec<Axis>, SpecError> {
    if let Some(wrong) = parts.wrong {
        return Err(reading.mapping(&[], wrong).err().unwrap_or_else(|| {
            reading.wrong(&[], Part::Value, "expected a mapping or a list of mappings")
        }));
    }
    parts.axes.iter().map(|(key, value)| axis(reading, key, value)).collect()
}

fn axis(reading: Reading, key: &str, value: &Value) -> Result<Axis, SpecError> {
    let wrong = |message: &str| Err(reading.wrong(&[key], Part::Value, message));
    let Value::Array(values) = value else {
        return match key {
            INCLUDE | EXCLUDE => wrong("expected a list of mappings"),
            _ => wrong("expected a list of values"),
        };
    };
    if values.is_empty() {
        return wrong("expected at least one value");
    }
    for (index, value) in values.iter().enumerate() {
        check(reading, &[key, &index.to_string()], value)?;
    }
    let words = names::of_alternatives(key, values);
    let place = vec![key.to_owned()];
    Ok(Axis {
        key: key.to_owned(),
        values: values.clone(),
        words,
        at: Vec::new(),
        place,
        by: None,
        is_inherited: false,
    })
}

/// What is swept over from outside.
pub(super) fn swept(swept: &Swept) -> Axis {
    let words = names::of_alternatives(&swept.key, &swept.values);
    Axis {
        key: swept.key.clone(),
        values: swept.values.clone(),
        words,
        at: Vec::new(),
        place: vec![swept.key.clone()],
        by: Some(swept.by.clone()),
        is_inherited: swept.is_inherited,
    }
}

/// Refuses nothing where a value belongs.
pub(super) fn check(reading: Reading, at: &[&str], value: &Value) -> Result<(), SpecError> {
    if value.is_null() {
        return Err(reading.wrong(at, Part::Value, "expected a value, found nothing"));
    }
    Ok(())
}

/// So many seeds, one after the other.
pub(super) fn seeds(reading: Reading, value: &Value) -> Result<Axis, SpecError> {
    let most = MOST as u64;
    let Some(n) = value.as_u64().filter(|n| (1..=most).contains(n)) else {
        let message = format!("expected a whole number between 1 and {most}: how many seeds");
        let error = reading.wrong(&[SEEDS], Part::Value, message);
        return Err(error.note("seeds of your choice: `seed: [1, 2, 3]` in the matrix"));
    };
    let key = "seed".to_owned();
    let values: Vec<Value> =
        (0..n).map(|i| Value::from(reading.first_seed.wrapping_add(i))).collect();
    let words = names::of_alternatives(&key, &values);
    Ok(Axis {
        key,
        values,
        words,
        at: Vec::new(),
        place: vec![SEEDS.to_owned()],
        by: None,
        is_inherited: false,
    })
}

/// The mapping of a list's entry, each of whose values is one.
pub(super) fn entry(
    reading: Reading,
    at: &[&str],
    value: &Value,
) -> Result<Map<String, Value>, SpecError> {
    let entry = reading.mapping(at, value)?;
    if entry.is_empty() {
        return Err(reading.wrong(at, Part::Value, "expected at least one key with a value"));
    }
    for (key, value) in &entry {
        check(reading, &[at, &[key.as_str()]].concat(), value)?;
    }
    Ok(entry)
}

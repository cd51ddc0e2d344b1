//! Names of members: what differs among them, written as YAML writes it.

use std::collections::{BTreeMap, BTreeSet};

use pipe_core::digest::hex;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// The most bytes of a name of what is not a list of plain values; longer ones are a digest.
const LONGEST: usize = 80;

/// What a name says of one value: keys with words.
pub(super) type Words = Vec<(String, String)>;

/// What a name says.
#[derive(Debug, Clone, Default)]
pub(super) struct Name(pub BTreeMap<String, String>);

impl Name {
    pub fn extend(&mut self, words: &Words) {
        self.0.extend(words.iter().cloned());
    }

    pub fn text(&self) -> String {
        let pair = |(key, word): (&String, &String)| match word.as_str() {
            "" => key.clone(),
            word => format!("{key}={word}"),
        };
        self.0.iter().map(pair).collect::<Vec<_>>().join(",")
    }
}

/// What names say of each of the values that one key can have: a plain value itself; of a mapping
/// what not all of them have, or else a digest.
pub(super) fn of_alternatives(key: &str, values: &[Value]) -> Vec<Words> {
    let flat: Vec<BTreeMap<String, String>> = values.iter().map(|v| leaves(key, v)).collect();
    let differs = differing(&flat);
    let words = |(value, flat): (&Value, &BTreeMap<String, String>)| {
        if !value.is_object() {
            return vec![(key.to_owned(), flat.get(key).cloned().unwrap_or_default())];
        }
        let told: Words = pick(flat, &differs);
        if told.is_empty() || length(&told) > LONGEST {
            return vec![(key.to_owned(), digest(value))];
        }
        told
    };
    values.iter().zip(&flat).map(words).collect()
}

/// What names say of mappings beside each other and `others`: what not all of them have; where that
/// is nothing, all; where that is too much, a digest.
pub(super) fn of_mappings(
    entries: &[Map<String, Value>],
    others: &[&Map<String, Value>],
) -> Vec<Words> {
    let flatten = |map: &Map<String, Value>| -> BTreeMap<String, String> {
        map.iter().flat_map(|(key, value)| leaves(key, value)).collect()
    };
    let own: Vec<_> = entries.iter().map(flatten).collect();
    let all: Vec<_> = own.iter().cloned().chain(others.iter().map(|map| flatten(map))).collect();
    let differs = differing(&all);
    let words = |(entry, flat): (&Map<String, Value>, &BTreeMap<String, String>)| {
        let told = pick(flat, &differs);
        let told = if told.is_empty() {
            flat.iter().map(|(key, word)| (key.clone(), word.clone())).collect()
        } else {
            told
        };
        if length(&told) > LONGEST {
            return vec![(digest(&Value::Object(entry.clone())), String::new())];
        }
        told
    };
    entries.iter().zip(&own).map(words).collect()
}

/// The keys that not all have with the same word.
fn differing(all: &[BTreeMap<String, String>]) -> BTreeSet<String> {
    let keys: BTreeSet<&String> = all.iter().flat_map(BTreeMap::keys).collect();
    let first = |key: &String| all.first().and_then(|one| one.get(key));
    let differs = |key: &&&String| all.iter().any(|one| one.get(**key) != first(key));
    keys.iter().filter(differs).map(|key| (*key).clone()).collect()
}

fn pick(flat: &BTreeMap<String, String>, keys: &BTreeSet<String>) -> Words {
    let wanted = flat.iter().filter(|(key, _)| keys.contains(*key));
    wanted.map(|(key, word)| (key.clone(), word.clone())).collect()
}

fn length(words: &Words) -> usize {
    words.iter().map(|(key, word)| key.len() + word.len() + 2).sum()
}

/// The plain values in a value, by dotted key, as words.
fn leaves(key: &str, value: &Value) -> BTreeMap<String, String> {
    match value {
        Value::Object(map) if !map.is_empty() => {
            map.iter().flat_map(|(inner, value)| leaves(&format!("{key}.{inner}"), value)).collect()
        }
        value => BTreeMap::from([(key.to_owned(), word(value))]),
    }
}

/// A value as a piece of a stage's name.
fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(|item| !item.is_array() && !item.is_object()) => {
            let words: Vec<String> = items.iter().map(word).collect();
            let words = words.join("-");
            if words.len() > LONGEST { digest(value) } else { words }
        }
        Value::Array(_) | Value::Object(_) => digest(value),
        other => other.to_string(),
    }
}

fn digest(value: &Value) -> String {
    hex(&Sha256::digest(value.to_string().as_bytes()))[..8].to_owned()
}

//! Values drawn at random. Draw `i` of a key depends on the seed, the key and `i` alone: more draws
//! and more keys leave those that were there as they were, and two stages that draw the same key in
//! the same way get the same.

use std::collections::HashSet;

use pipe_core::error::SpecError;
use pipe_core::rng::{Purpose, unit};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::axes;
use super::draft::{Draft, Portion};
use super::names::{self, Words};
use super::reading::{MOST, Reading};
use crate::source::Part;

const KINDS: [&str; 4] = ["uniform", "log_uniform", "integers", "choice"];

/// What is under `random`.
pub(super) struct Random {
    n: usize,
    seed: u64,
    keys: Vec<(String, Distribution)>,
}

enum Distribution {
    Uniform(f64, f64),
    LogUniform(f64, f64),
    /// From the first to the last, both of them too.
    Integers(i64, i64),
    Choice(Vec<Value>, Vec<Words>),
}

/// Reads what is under `random`.
pub(super) fn read(reading: Reading, random: &Value) -> Result<Random, SpecError> {
    let map = reading.mapping(&["random"], random)?;
    let (mut n, mut seed, mut keys) = (None, reading.seed, Vec::new());
    for (key, value) in &map {
        let at = ["random", key.as_str()];
        match key.as_str() {
            "n" if !value.is_object() => {
                let count = value.as_u64().filter(|n| (1..=MOST as u64).contains(n));
                let message = format!("expected a whole number between 1 and {MOST}: how many");
                n = Some(count.ok_or_else(|| reading.wrong(&at, Part::Value, message))? as usize);
            }
            "seed" if !value.is_object() => {
                let message = "expected a whole number, 0 or more: what is drawn with";
                let wrong = || {
                    reading
                        .wrong(&at, Part::Value, message)
                        .note("for random seeds: `seed: { integers: [0, 1000000] }`")
                };
                seed = value.as_u64().ok_or_else(wrong)?;
            }
            _ => keys.push((key.clone(), distribution(reading, key, value)?)),
        }
    }
    let Some(n) = n else {
        let error = reading.wrong(&["random"], Part::Key, "missing key `n`");
        return Err(error.note("how many are drawn, such as `n: 16`"));
    };
    if keys.is_empty() {
        let error = reading.wrong(&["random"], Part::Value, "expected at least one key to draw");
        return Err(error.note("such as `learning_rate: { log_uniform: [1e-5, 1e-2] }`"));
    }
    Ok(Random { n, seed, keys })
}

fn distribution(reading: Reading, key: &str, value: &Value) -> Result<Distribution, SpecError> {
    let at = ["random", key];
    let example = "such as `{ log_uniform: [1e-5, 1e-2] }`";
    let map = match value {
        Value::Object(map) if map.len() == 1 => map,
        _ => {
            let message = format!("expected one of {}, with its values", KINDS.join(", "));
            return Err(reading.wrong(&at, Part::Value, message).note(example));
        }
    };
    let (kind, given) = map.iter().next().map_or(("", &Value::Null), |(k, v)| (k.as_str(), v));
    let at = [at.as_slice(), &[kind]].concat();
    let wrong = |message: &str| reading.wrong(&at, Part::Value, message);
    if !KINDS.contains(&kind) {
        let error = reading.wrong(&at, Part::Key, "unknown way to draw");
        return Err(error.candidates(kind, KINDS));
    }
    let Value::Array(list) = given else {
        return Err(wrong("expected a list of values").note(example));
    };
    if kind == "choice" {
        if list.is_empty() {
            return Err(wrong("expected at least one value"));
        }
        for (index, value) in list.iter().enumerate() {
            axes::check(reading, &[at.as_slice(), &[&index.to_string()]].concat(), value)?;
        }
        return Ok(Distribution::Choice(list.clone(), names::of_alternatives(key, list)));
    }
    let ends = || wrong("expected two numbers, the lower one first");
    let [low, high] = list.as_slice() else { return Err(ends()) };
    if kind == "integers" {
        let (Some(low), Some(high)) = (low.as_i64(), high.as_i64()) else {
            return Err(wrong("expected two whole numbers, the lower one first"));
        };
        // Beyond 2^53 not every number could come out.
        const MOST_APART: i64 = 1 << 53;
        if low > high {
            return Err(ends());
        }
        if high.checked_sub(low).is_none_or(|apart| apart >= MOST_APART) {
            return Err(wrong("the two are too far apart"));
        }
        return Ok(Distribution::Integers(low, high));
    }
    let (Some(low), Some(high)) = (low.as_f64(), high.as_f64()) else { return Err(ends()) };
    if low > high {
        return Err(ends());
    }
    if kind == "uniform" {
        return Ok(Distribution::Uniform(low, high));
    }
    if low <= 0.0 {
        return Err(wrong("expected two numbers above 0, of which there are logarithms"));
    }
    Ok(Distribution::LogUniform(low, high))
}

impl Distribution {
    /// The value, and what a name says of it.
    fn at(&self, key: &str, unit: f64) -> (Value, Words, Option<usize>) {
        let one = |value: Value| {
            let words = names::of_alternatives(key, std::slice::from_ref(&value));
            (value, words.into_iter().next().unwrap_or_default(), None)
        };
        match self {
            Self::Uniform(low, high) => one(rounded(low + unit * (high - low), *low, *high)),
            Self::LogUniform(low, high) => {
                let (from, to) = (low.ln(), high.ln());
                one(rounded((from + unit * (to - from)).exp(), *low, *high))
            }
            Self::Integers(low, high) => {
                let count = (high - low) as f64 + 1.0;
                one(Value::from(low + (unit * count) as i64))
            }
            Self::Choice(values, words) => {
                let index = ((unit * values.len() as f64) as usize).min(values.len() - 1);
                (values[index].clone(), words[index].clone(), Some(index))
            }
        }
    }
}

/// The number with four digits, so that a name holds all of it.
fn rounded(number: f64, low: f64, high: f64) -> Value {
    let short = format!("{number:.3e}").parse().unwrap_or(number);
    Value::from(f64::clamp(short, low, high))
}

impl Random {
    pub fn keys(&self) -> impl Iterator<Item = String> + '_ {
        self.keys_ref().cloned()
    }

    pub fn keys_ref(&self) -> impl Iterator<Item = &String> {
        self.keys.iter().map(|(key, _)| key)
    }

    /// Each of the drafts with each of the draws, of which no two are the same.
    pub fn combined(&self, reading: Reading, drafts: Vec<Draft>) -> Result<Vec<Draft>, SpecError> {
        if let Some((key, _)) =
            self.keys.iter().find(|(key, _)| drafts.iter().any(|d| d.values.contains_key(key)))
        {
            let message = format!("`{key}` has a list of values in the matrix already");
            return Err(reading.wrong(&["random", key], Part::Key, message));
        }
        if drafts.len().saturating_mul(self.n) > MOST {
            return Err(reading.wrong(&["random", "n"], Part::Value, "too many combinations"));
        }
        let draws = self.draws(reading)?;
        let with = |draft: &Draft| -> Vec<Draft> {
            let one = |draw: &Draft| {
                let mut one = draft.clone();
                one.values.extend(draw.values.clone());
                one.portions.extend(draw.portions.clone());
                one.name.0.extend(draw.name.0.clone());
                one
            };
            draws.iter().map(one).collect()
        };
        Ok(drafts.iter().flat_map(with).collect())
    }

    /// Draws that differ from all before are the members.
    fn draws(&self, reading: Reading) -> Result<Vec<Draft>, SpecError> {
        let tries = self.n.saturating_mul(100).saturating_add(10_000) as u64;
        let (mut found, mut seen) = (Vec::with_capacity(self.n), HashSet::new());
        for i in 0..tries {
            if found.len() == self.n {
                break;
            }
            let draft = self.draw(i);
            if seen.insert(Value::Object(draft.values.clone()).to_string()) {
                found.push(draft);
            }
        }
        if found.len() < self.n {
            let message = format!("only {} different ones came out", found.len());
            let error = reading.wrong(&["random", "n"], Part::Value, message);
            return Err(error.note("ask for fewer, or draw from more values"));
        }
        Ok(found)
    }

    fn draw(&self, i: u64) -> Draft {
        let mut draft = Draft::default();
        let mut portion = Portion { at: vec!["random".to_owned()], ..Portion::default() };
        for (key, distribution) in &self.keys {
            let (value, words, index) =
                distribution.at(key, unit(self.seed, Purpose::RandomMatrix, number_of(key), i));
            if let Some(index) = index {
                let place = ["random", key, "choice", &index.to_string()].map(str::to_owned);
                portion.moved.push((key.clone(), place.to_vec()));
            }
            draft.values.insert(key.clone(), value.clone());
            portion.values.insert(key.clone(), value);
            draft.name.extend(&words);
        }
        draft.portions.push(portion);
        draft
    }
}

/// The first 8 bytes of the SHA-256 of a key, little-endian.
fn number_of(key: &str) -> u64 {
    let digest = Sha256::digest(key.as_bytes());
    digest.iter().take(8).rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_stay_what_they_are() {
        // A change here would make other members of every random matrix that exists.
        let drawn = |distribution: &Distribution, key: &str, i| {
            distribution.at(key, unit(42, Purpose::RandomMatrix, number_of(key), i)).0
        };
        let log = Distribution::LogUniform(1e-5, 1e-2);
        let first: Vec<Value> = (0..3).map(|i| drawn(&log, "learning_rate", i)).collect();
        assert_eq!(first, [0.004052, 0.0004229, 0.0000982]);
    }

    #[test]
    fn all_that_is_drawn_lies_within_and_reaches_both_ends() {
        let units: Vec<f64> = (0..2000).map(|i| unit(7, Purpose::RandomMatrix, 1, i)).collect();
        let all = |d: &Distribution| -> Vec<f64> {
            units.iter().map(|u| d.at("x", *u).0.as_f64().unwrap()).collect()
        };
        let uniform = all(&Distribution::Uniform(-1.0, 3.0));
        assert!(uniform.iter().all(|x| (-1.0..=3.0).contains(x)));
        let mean = uniform.iter().sum::<f64>() / 2000.0;
        assert!((mean - 1.0).abs() < 0.1, "{mean}");
        let log = all(&Distribution::LogUniform(1e-5, 1e-1));
        assert!(log.iter().all(|x| (1e-5..=1e-1).contains(x)));
        let low = log.iter().filter(|x| **x < 1e-3).count();
        assert!((900..1100).contains(&low), "half of them below the geometric mean: {low}");
        let integers = all(&Distribution::Integers(-1, 2));
        for wanted in [-1.0, 0.0, 1.0, 2.0] {
            let count = integers.iter().filter(|x| **x == wanted).count();
            assert!((400..600).contains(&count), "{wanted}: {count}");
        }
    }
}

//! `matrix:` makes several stages of one declaration: one for each combination of values, for each
//! mapping of a list, or for each of some random draws; and `seeds` of each of them.
//!
//! Stages with the same `matrix` have members of the same names and values, whatever else they are,
//! so that they can be paired.

mod axes;
mod draft;
mod listed;
mod names;
mod random;
mod reading;
mod schema;
pub(super) mod seeds;

use std::collections::HashMap;

use pipe_core::error::SpecError;
use pipe_core::ids::StageId;
use serde_json::{Map, Value};

use crate::pipeline_file::matrix::axes::Axis;
use crate::pipeline_file::matrix::draft::Draft;
use crate::pipeline_file::matrix::reading::MOST;
use crate::pipeline_file::pipeline::Swept;
use crate::source::Part;

pub(super) use axes::{Form, SEEDS, form};
pub(crate) use draft::Portion;
pub(super) use reading::{DEFAULT_SEED, Reading, same};
pub(crate) use schema::schema;

/// One stage of a matrix: its name, such as `base@learning_rate=0.001,seed=1`, and its values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Member {
    pub id: StageId,
    /// By keys as written; a key may have dots in it.
    pub values: Map<String, Value>,
    /// The same by where they stand.
    pub portions: Vec<Portion>,
    /// The name without what is swept over from outside, if anything is.
    pub plain: Option<StageId>,
    /// What is swept over.
    pub swept: Map<String, Value>,
}

/// What a matrix comes to.
#[derive(Debug)]
pub(crate) struct Unfolded {
    pub members: Vec<Member>,
    pub warnings: Vec<SpecError>,
}

/// The stages that a matrix makes: all combinations, keys by name, the last key changing fastest;
/// then what is included. What is asked for so many times over stands side by side.
pub(super) fn unfold(
    reading: Reading,
    matrix: Option<&Value>,
    swept: &[Swept],
) -> Result<Unfolded, SpecError> {
    let mut warnings = Vec::new();
    let mut drafts = match matrix {
        Some(matrix) => drafts(reading, matrix, &mut warnings)?,
        None => vec![Draft::default()],
    };
    if !swept.is_empty() {
        let plain = match matrix {
            Some(_) => named(reading, drafts.clone())?.into_iter().map(|m| m.id).collect(),
            None => vec![reading.stage.clone()],
        };
        drafts.iter_mut().zip(plain).for_each(|(draft, plain)| draft.plain = Some(plain));
    }
    for swept in swept {
        if drafts.iter().any(|draft| draft.values.contains_key(&swept.key)) {
            let (stage, key) = (reading.stage, &swept.key);
            let message = format!("{}: stage `{stage}` has a matrix over `{key}`", swept.by.shown);
            return Err(SpecError::plain(message).note("change the matrix, or leave out the sweep"));
        }
        drafts = times(reading, drafts, &axes::swept(swept))?;
    }
    Ok(Unfolded { members: named(reading, drafts)?, warnings })
}

/// What stands under `matrix`.
fn drafts(
    reading: Reading,
    matrix: &Value,
    warnings: &mut Vec<SpecError>,
) -> Result<Vec<Draft>, SpecError> {
    let (mut drafts, seeds) = match form(matrix) {
        Form::List(list) => (listed::members(reading, &[], list)?, None),
        Form::Mapping(parts) => {
            let mut axes = axes::read(reading, &parts)?;
            let random = parts.random.map(|random| random::read(reading, random)).transpose()?;
            let with_seeds = parts.seeds.map(|seeds| axes::seeds(reading, seeds)).transpose()?;
            let is_product = !axes.is_empty() || random.is_some();
            if !is_product && parts.include.is_none() && with_seeds.is_none() {
                let message = "expected at least one key with a list of values";
                return Err(reading.wrong(&[], Part::Value, message));
            }
            let mut drafts = vec![Draft::default()];
            let mut keys: Vec<String> = axes.iter().map(|axis| axis.key.clone()).collect();
            for axis in std::mem::take(&mut axes) {
                drafts = times(reading, drafts, &axis)?;
            }
            if let Some(random) = &random {
                keys.extend(random.keys());
                drafts = random.combined(reading, drafts)?;
            }
            if let Some(exclude) = parts.exclude {
                let random: Vec<&String> = random.iter().flat_map(|r| r.keys_ref()).collect();
                listed::exclude(reading, &mut drafts, (&keys, &random), exclude, warnings)?;
            }
            if let Some(include) = parts.include {
                let base = if is_product { drafts } else { Vec::new() };
                drafts = listed::include(reading, base, &keys, include)?;
            }
            (drafts, with_seeds)
        }
    };
    if let Some(seeds) = seeds {
        if drafts.iter().any(|draft| draft.values.contains_key(&seeds.key)) {
            let message = "`seed` is in the matrix already";
            return Err(reading.wrong(&[SEEDS], Part::Key, message));
        }
        drafts = times(reading, drafts, &seeds)?;
    }
    if drafts.is_empty() {
        return Err(reading.wrong(&["exclude"], Part::Key, "nothing is left"));
    }
    Ok(drafts)
}

/// Each draft with each value of an axis.
fn times(reading: Reading, drafts: Vec<Draft>, axis: &Axis) -> Result<Vec<Draft>, SpecError> {
    if drafts.len().saturating_mul(axis.values.len()) > MOST {
        return Err(reading.wrong(&[axis.written()], Part::Value, "too many combinations"));
    }
    let with = |draft: &Draft| -> Vec<Draft> {
        (0..axis.values.len()).map(|index| draft.with(axis, index)).collect()
    };
    Ok(drafts.iter().flat_map(with).collect())
}

/// Gives each member its name.
fn named(reading: Reading, drafts: Vec<Draft>) -> Result<Vec<Member>, SpecError> {
    let stage = reading.stage;
    let mut members: Vec<Member> = Vec::with_capacity(drafts.len());
    let mut seen: HashMap<StageId, String> = HashMap::new();
    for Draft { values, portions, name, plain, swept } in drafts {
        let named = name.text();
        let mut id = stage.member(&named);
        // Values that a name can hold only in part may leave the same of two.
        if seen.get(&id).is_some_and(|other| *other != named) {
            id = stage.disambiguated(&named);
        }
        if seen.insert(id.clone(), named).is_some() {
            let message = format!("`{id}` comes out more than once");
            return Err(reading.wrong(&[], Part::Value, message));
        }
        members.push(Member { id, values, portions, plain, swept });
    }
    Ok(members)
}

/// `{a.b: 1}` as `{a: {b: 1}}`: a key of a matrix may name a setting inside another one.
pub(crate) fn nested(values: Map<String, Value>) -> Map<String, Value> {
    let mut out = Map::new();
    for (key, value) in values {
        let mut path: Vec<&str> = key.split('.').collect();
        let last = path.pop().unwrap_or_default().to_owned();
        let inner = path.into_iter().try_fold(&mut out, |map: &mut Map<String, Value>, key| {
            map.entry(key).or_insert_with(|| Value::Object(Map::new())).as_object_mut()
        });
        if let Some(inner) = inner {
            inner.insert(last, value);
        }
    }
    out
}

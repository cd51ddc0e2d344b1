//! Members that are written out: a list of mappings, and what is included beside a product or
//! excluded from it, with the meaning that GitHub Actions gives to `include` and `exclude`.

use pipe_core::error::SpecError;
use serde_json::{Map, Value};

use super::draft::{Draft, Portion};
use super::reading::{MOST, Reading, same};
use super::{axes, names};
use crate::source::Part;

/// Each mapping of a list as a member. `at`: where the list stands below `matrix`.
pub(super) fn members(
    reading: Reading,
    at: &[&str],
    list: &[Value],
) -> Result<Vec<Draft>, SpecError> {
    if list.is_empty() {
        return Err(reading.wrong(at, Part::Value, "expected at least one mapping"));
    }
    let entries = entries(reading, at, list)?;
    let drafts: Vec<Draft> = (0..entries.len()).map(|i| alone(at, i, &entries[i])).collect();
    Ok(told(drafts, &[]))
}

/// Adds the entries to combinations: an entry that contradicts no key of the product goes into each
/// combination that it fits; one that fits none is a member of its own.
pub(super) fn include(
    reading: Reading,
    mut drafts: Vec<Draft>,
    keys: &[String],
    list: &[Value],
) -> Result<Vec<Draft>, SpecError> {
    let mut more = Vec::new();
    for (index, entry) in entries(reading, &["include"], list)?.iter().enumerate() {
        let (original, added): (Vec<_>, Vec<_>) =
            entry.iter().partition(|(key, _)| keys.contains(key));
        let fits = |draft: &Draft| {
            original
                .iter()
                .all(|(key, value)| draft.values.get(*key).is_some_and(|v| same(v, value)))
        };
        let mut found = false;
        for draft in drafts.iter_mut().filter(|draft| fits(draft)) {
            found = true;
            let mut portion = Portion { at: place(&["include"], index), ..Portion::default() };
            for (key, value) in &added {
                draft.portions.iter_mut().for_each(|earlier| drop(earlier.values.remove(*key)));
                draft.values.insert((*key).clone(), (*value).clone());
                portion.values.insert((*key).clone(), (*value).clone());
            }
            draft.portions.push(portion);
        }
        if !found {
            more.push(alone(&["include"], index, entry));
        }
    }
    if drafts.len() + more.len() > MOST {
        return Err(reading.wrong(&["include"], Part::Value, "too many combinations"));
    }
    let others: Vec<Map<String, Value>> = drafts.iter().map(|draft| draft.values.clone()).collect();
    drafts.extend(told(more, &others.iter().collect::<Vec<_>>()));
    Ok(drafts)
}

/// Takes away the combinations that have all values of an entry. `random`: those of `keys` whose
/// values come by chance.
pub(super) fn exclude(
    reading: Reading,
    drafts: &mut Vec<Draft>,
    (keys, random): (&[String], &[&String]),
    list: &[Value],
    warnings: &mut Vec<SpecError>,
) -> Result<(), SpecError> {
    let entries = entries(reading, &["exclude"], list)?;
    let mut useless: Vec<bool> = vec![true; entries.len()];
    for (index, entry) in entries.iter().enumerate() {
        if let Some(key) = entry.keys().find(|key| !keys.contains(key)) {
            let at = ["exclude", &index.to_string(), key];
            let error = reading.wrong(&at, Part::Key, "the matrix has no such key");
            return Err(error.candidates(key, keys.iter().map(String::as_str)));
        }
    }
    drafts.retain(|draft| {
        let mut stays = true;
        for (entry, useless) in entries.iter().zip(&mut useless) {
            if entry.iter().all(|(k, v)| draft.values.get(k).is_some_and(|value| same(value, v))) {
                (stays, *useless) = (false, false);
            }
        }
        stays
    });
    for (index, entry) in entries.iter().enumerate().filter(|(index, _)| useless[*index]) {
        if !entry.keys().any(|key| random.contains(&key)) {
            let at = ["exclude", &index.to_string()];
            warnings.push(reading.wrong(&at, Part::Value, "no combination has these values"));
        }
    }
    Ok(())
}

fn entries(
    reading: Reading,
    at: &[&str],
    list: &[Value],
) -> Result<Vec<Map<String, Value>>, SpecError> {
    if list.len() > MOST {
        return Err(reading.wrong(at, Part::Value, "too many combinations"));
    }
    let entry = |(index, value): (usize, &Value)| {
        axes::entry(reading, &[at, &[index.to_string().as_str()]].concat(), value)
    };
    list.iter().enumerate().map(entry).collect()
}

fn place(at: &[&str], index: usize) -> Vec<String> {
    at.iter().map(|key| (*key).to_owned()).chain([index.to_string()]).collect()
}

/// A member of one entry.
fn alone(at: &[&str], index: usize, entry: &Map<String, Value>) -> Draft {
    let portion = Portion { at: place(at, index), values: entry.clone(), ..Portion::default() };
    Draft { values: entry.clone(), portions: vec![portion], ..Draft::default() }
}

/// The members with names by what differs among them and the others.
fn told(mut drafts: Vec<Draft>, others: &[&Map<String, Value>]) -> Vec<Draft> {
    let values: Vec<Map<String, Value>> = drafts.iter().map(|draft| draft.values.clone()).collect();
    for (draft, words) in drafts.iter_mut().zip(names::of_mappings(&values, others)) {
        draft.name.extend(&words);
    }
    drafts
}

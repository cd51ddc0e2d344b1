//! `pipe runs compare N M…`

use std::collections::{BTreeMap, BTreeSet};

use pipe_runs::{Run, Runs};
use serde_json::{Map, Value};

use super::form::Form;
use super::named::{self, Name, one};
use super::over_seeds::{self, Column, OverSeeds};
use super::summary::{best, done, monitor, seconds};
use crate::cli::CliError;
use crate::report::stdout::say;
use crate::report::table;

/// A row for each setting and result that is not the same in all; mean and spread of what differs in
/// the seed alone.
pub(super) fn compare(folders: &[Runs], names: &[Name], form: Form) -> Result<(), CliError> {
    let runs: Vec<Run> = names.iter().map(|name| one(folders, name)).collect::<Result<_, _>>()?;
    check_different(&runs, names)?;
    let mut columns: Vec<(String, BTreeMap<String, Value>)> = Vec::new();
    let mut parts = Vec::new();
    for (run, title) in runs.iter().zip(named::titles(folders, &runs)) {
        let m = run.current_metadata().map_err(CliError::failed)?;
        let mut results = BTreeMap::from([
            ("status".to_owned(), m.status.name().into()),
            ("epochs".to_owned(), done(&m).into()),
            (format!("best {}", monitor(&m)), best(&m).map(Value::from).unwrap_or_default()),
            (
                "best epoch".to_owned(),
                m.best_checkpoint.as_ref().map(|b| b.epoch.into()).unwrap_or_default(),
            ),
            ("seconds".to_owned(), (seconds(&m).round() as u64).into()),
        ]);
        let others = m.best_checkpoint.iter().flat_map(|best| &best.metrics);
        let others = others.filter(|(name, _)| **name != monitor(&m));
        results
            .extend(others.map(|(name, value)| (format!("{name} at best epoch"), (*value).into())));
        let mut values = m.manifest.clone();
        values.extend(results.clone());
        columns.push((title, values));
        parts.push((m.manifest, results));
    }
    let columns_of_seeds = columns.iter().zip(&parts).map(|((title, _), (manifest, results))| {
        let results = results.clone();
        Column { title, manifest, results }
    });
    let results: BTreeSet<String> =
        parts.iter().flat_map(|(_, results)| results.keys().cloned()).collect();
    let over_seeds = over_seeds::groups(&columns_of_seeds.collect::<Vec<_>>());
    let keys: BTreeSet<&String> = columns.iter().flat_map(|(_, values)| values.keys()).collect();
    let differ =
        |key: &&&String| columns.iter().any(|(_, v)| v.get(**key) != columns[0].1.get(**key));
    let keys: Vec<&String> = keys.iter().filter(differ).copied().collect();
    if form == Form::Json {
        let column = |(name, values): &(String, BTreeMap<String, Value>)| {
            let of =
                |key: &&String| ((*key).clone(), values.get(*key).cloned().unwrap_or_default());
            (name.clone(), Value::Object(keys.iter().map(of).collect()))
        };
        let mut all: Map<String, Value> = columns.iter().map(column).collect();
        if !over_seeds.is_empty() {
            let groups = over_seeds.iter().map(OverSeeds::to_json).collect();
            all.insert("over seeds".to_owned(), Value::Array(groups));
        }
        say!("{:#}", Value::Object(all));
        return Ok(());
    }
    let rows: Vec<Vec<String>> = keys
        .iter()
        .map(|key| {
            let cell = if results.contains(*key) { result } else { table::value };
            let cells = columns.iter().map(|(_, values)| cell(values.get(*key)));
            std::iter::once((*key).clone()).chain(cells).collect()
        })
        .collect();
    if rows.is_empty() {
        say!("they differ in nothing");
        return Ok(());
    }
    let first = if form == Form::Csv { "key" } else { "" };
    let headings: Vec<&str> =
        std::iter::once(first).chain(columns.iter().map(|(name, _)| name.as_str())).collect();
    match form {
        Form::Csv => say!("{}", table::csv(&headings, rows)),
        _ => {
            say!("{}", table::table(&headings, &rows));
            over_seeds.iter().for_each(|group| say!("\n{}", group.to_text()));
        }
    }
    Ok(())
}

/// Refuses names of one run.
fn check_different(runs: &[Run], names: &[Name]) -> Result<(), CliError> {
    for (i, run) in runs.iter().enumerate() {
        if let Some(earlier) = runs[..i].iter().position(|other| other.folder == run.folder) {
            let (one, other) = (&names[earlier], &names[i]);
            return Err(CliError::usage(format!("`{one}` and `{other}` are the same run")));
        }
    }
    Ok(())
}

/// A result in a cell: a metric with all of its decimals.
fn result(value: Option<&Value>) -> String {
    match value {
        Some(Value::Number(n)) if n.is_f64() => table::number(n.as_f64().unwrap_or_default()),
        value => table::value(value),
    }
}

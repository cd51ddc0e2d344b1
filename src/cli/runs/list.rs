//! `pipe runs [list]`

use std::cmp::Reverse;
use std::collections::BTreeSet;

use pipe_runs::{ChangeRecord, Labels, Metadata, Runs};
use serde_json::Value;

use super::entry::Entry;
use super::form::Form;
use super::named;
use super::select::{self, Filter, Sort};
use super::summary::{best, done, monitor};
use crate::cli::{CliError, pipeline_name};
use crate::report::stdout::say;
use crate::report::table;

/// Which runs are listed.
#[derive(clap::Args)]
pub(super) struct Which {
    /// Order by a column, setting or metric: `best`, or `-best` for the largest first
    #[arg(long, global = true, value_name = "KEY", allow_hyphen_values = true)]
    sort: Option<Sort>,
    /// Only runs for which it holds, such as `best<0.2` or `status=completed`; may be given several
    /// times
    #[arg(long, global = true, value_name = "CONDITION")]
    filter: Vec<Filter>,
}

impl Which {
    /// Refuses names that none of the runs knows. Without runs nothing is known.
    fn check<'a>(&self, runs: impl Iterator<Item = &'a Entry>) -> Result<(), CliError> {
        let mut runs = runs.filter_map(|entry| entry.known.as_ref().ok()).peekable();
        if runs.peek().is_none() {
            return Ok(());
        }
        let known = select::keys(runs);
        if let Some(Sort { key, .. }) = &self.sort {
            select::check_key(&format!("--sort {key}"), key, &known)?;
        }
        self.filter.iter().try_for_each(|filter| filter.check(&known))
    }
}

pub(super) fn list(folders: &[Runs], which: &Which, form: Form) -> Result<(), CliError> {
    let mut listed: Vec<(&Runs, Vec<Entry>)> = Vec::new();
    for folder in folders {
        let mut entries = Vec::new();
        for run in folder.list() {
            let known = run.current_metadata().map_err(|e| e.to_string());
            let labels = Labels::load(&run).map_err(CliError::failed)?;
            entries.push(Entry { run, name: String::new(), known, labels });
        }
        listed.push((folder, entries));
    }
    let none = listed.is_empty();
    name_each(&mut listed);
    which.check(listed.iter().flat_map(|(_, entries)| entries))?;
    for (_, entries) in &mut listed {
        // What cannot be read is shown unless something is asked of it.
        entries.retain(|entry| match &entry.known {
            Ok(m) => which.filter.iter().all(|filter| filter.holds(m, &entry.labels)),
            Err(_) => which.filter.is_empty(),
        });
        if let Some(sort) = &which.sort {
            entries.sort_by(|a, b| {
                let (a, b) = (a.value(&sort.key), b.value(&sort.key));
                if sort.descending && a.is_some() && b.is_some() {
                    select::order(&b, &a)
                } else {
                    select::order(&a, &b)
                }
            });
        }
    }
    match form {
        Form::Json => {
            let records = listed.iter().flat_map(|(_, entries)| entries.iter().map(Entry::to_json));
            say!("{:#}", Value::Array(records.collect()));
        }
        Form::Csv => {
            let rows = listed.iter().flat_map(|(_, entries)| entries);
            let row = |entry: &Entry| {
                let cell =
                    |key: &&str| entry.value(key).map(|v| select::plain(&v)).unwrap_or_default();
                let folder = entry.run.folder.display().to_string();
                COLUMNS.iter().map(cell).chain([folder, entry.name.clone()]).collect::<Vec<_>>()
            };
            let headings: Vec<&str> = COLUMNS.iter().copied().chain(["folder", "name"]).collect();
            say!("{}", table::csv(&headings, rows.map(row)));
        }
        Form::Table => {
            listed.retain(|(_, entries)| !entries.is_empty());
            if listed.is_empty() {
                if none {
                    say!("no runs yet; {}", pipeline_name::first_run_hint())
                } else {
                    say!("no run fulfils that")
                }
            }
            for (folder, entries) in &listed {
                say!("{}:", folder.folder().display());
                say!("{}", as_table(entries, which));
            }
        }
    }
    Ok(())
}

/// Gives each entry the shortest name that means its run alone.
fn name_each(listed: &mut [(&Runs, Vec<Entry>)]) {
    let all = listed.iter().flat_map(|(_, entries)| entries);
    let names = named::names(all.map(|entry| (&entry.run, entry.known.as_ref().ok())));
    let entries = listed.iter_mut().flat_map(|(_, entries)| entries);
    entries.zip(names).for_each(|(entry, name)| entry.name = name);
}

/// Columns of `--csv`.
const COLUMNS: [&str; 12] = [
    "run",
    "experiment",
    "pipeline",
    "stage",
    "created",
    "status",
    "epochs",
    "best",
    "best_epoch",
    "monitor",
    "note",
    "tags",
];

/// Settings that differ, shown as columns at most.
const DIFFERENT: usize = 4;
/// Further ones that are named below, at most.
const NAMED: usize = 8;

/// Settings that are not the same in all of these runs, those of the most values first.
fn different(entries: &[Entry]) -> Vec<String> {
    let known: Vec<&Metadata> = entries.iter().filter_map(|e| e.known.as_ref().ok()).collect();
    let keys: BTreeSet<&String> = known.iter().flat_map(|m| m.manifest.keys()).collect();
    let values = |key: &str| -> BTreeSet<Option<String>> {
        known.iter().map(|m| m.manifest.get(key).map(Value::to_string)).collect()
    };
    let mut found: Vec<(usize, &String)> = keys
        .into_iter()
        .map(|key| (values(key).len(), key))
        .filter(|(count, _)| *count > 1)
        .collect();
    found.sort_by_key(|(count, _)| Reverse(*count));
    found.into_iter().map(|(_, key)| key.clone()).collect()
}

/// The table of the reference workflow; besides, names where a number alone does not say which run
/// is meant, settings in which the runs differ, what it is sorted by, and changes inside runs, notes
/// and tags where there are any. Last, what has no column.
fn as_table(entries: &[Entry], which: &Which) -> String {
    let named = entries.iter().any(|entry| entry.name != entry.run.number.0.to_string());
    let mut headings = vec!["Run #"];
    headings.extend(named.then_some("Name"));
    headings.extend(["Experiment", "Created", "Status"]);
    let status = headings.len() - 1;
    headings.extend(["Epochs", "Checkpoints", "Best", "Monitor"]);
    let shown =
        ["run", "experiment", "created", "status", "epochs", "best", "monitor", "note", "tags"];
    let by = which.sort.as_ref().map(|s| s.key.as_str()).filter(|key| !shown.contains(key));
    headings.extend(by);
    let differ = different(entries);
    let (columns, rest) = differ.split_at(differ.len().min(DIFFERENT));
    let columns: Vec<&str> =
        columns.iter().map(String::as_str).filter(|key| Some(*key) != by).collect();
    headings.extend(&columns);
    let changed = |entry: &Entry| {
        let last = entry.known.as_ref().ok().and_then(|m| m.changes.last());
        last.map(ChangeRecord::in_words).unwrap_or_default()
    };
    let changes = entries.iter().any(|entry| !changed(entry).is_empty());
    let tags = entries.iter().any(|e| !e.labels.tags.is_empty());
    let notes = entries.iter().any(|e| e.labels.note.is_some());
    headings.extend(changes.then_some("Changed"));
    headings.extend(tags.then_some("Tags"));
    headings.extend(notes.then_some("Note"));
    let rows: Vec<Vec<String>> = entries
        .iter()
        .map(|entry| {
            let mut row = row(entry, named);
            row.extend(
                by.map(|key| entry.value(key).map_or_else(|| "-".into(), |v| select::plain(&v))),
            );
            row.extend(columns.iter().map(|key| {
                let known = entry.known.as_ref().ok();
                table::value(known.and_then(|m| m.manifest.get(*key)))
            }));
            row.extend(changes.then(|| changed(entry)));
            row.extend(tags.then(|| entry.labels.shown_tags()));
            row.extend(notes.then(|| entry.labels.note.clone().unwrap_or_default()));
            row
        })
        .collect();
    let mut text = table::with_status(&headings, &rows, status);
    if !rest.is_empty() {
        let (named, more) = rest.split_at(rest.len().min(NAMED));
        let more =
            if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
        text.push_str(&format!("\nThey also differ in {}{more}", named.join(", ")));
    }
    text
}

/// `named`: with its name behind its number.
fn row(entry: &Entry, named: bool) -> Vec<String> {
    let mut row = vec![entry.run.number.0.to_string()];
    row.extend(named.then(|| entry.name.clone()));
    match &entry.known {
        Err(error) => row.push(format!("unreadable: {error}")),
        Ok(m) => row.extend([
            m.experiment_name.clone(),
            table::time(&m.created_at),
            m.status.name().to_owned(),
            format!("{}/{}", done(m), m.epochs),
            m.checkpoints.len().to_string(),
            best(m).map_or_else(|| "-".into(), table::number),
            monitor(m),
        ]),
    }
    row
}

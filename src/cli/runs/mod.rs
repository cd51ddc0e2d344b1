//! `pipe runs [list]`, `show N`, `compare N M…`, `note N TEXT`, `tag N TAG…`, `prune --keep K`, `rm
//! N`

mod curve;
mod labels;
mod named;
mod select;
mod summary;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use named::{Name, one};
use pipe_engine::identity::short_digest;
use pipe_runs::{Metadata, Run, Runs};
use select::{Filter, Sort};
use serde_json::Value;
use summary::{best, done, monitor, seconds};

use super::run_folders::{folders, to_clean};
use super::{CliError, ExitCode, clean, project};
use crate::labels::Labels;
use crate::report::stdout::say;
use crate::report::table;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe runs --sort best --filter status=completed --filter 'best<0.2'\n  pipe runs compare 1 2 --csv\n  pipe runs note 3 'lower learning rate'\n  pipe runs show 3 --curve"
)]
pub struct RunsArguments {
    #[command(subcommand)]
    command: Option<RunsCommand>,
    /// Folder of numbered runs; all of the project if unset
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// As JSON
    #[arg(long, global = true)]
    json: bool,
    /// As comma-separated values (`list` and `compare`)
    #[arg(long, global = true, conflicts_with = "json")]
    csv: bool,
    #[command(flatten)]
    which: Which,
}

/// Which runs are listed.
#[derive(clap::Args)]
struct Which {
    /// Order by a column, setting or metric: `best`, or `-best` for the largest first
    #[arg(long, global = true, value_name = "KEY", allow_hyphen_values = true)]
    sort: Option<Sort>,
    /// Only runs for which it holds, such as `best<0.2` or `status=completed`; may be given several
    /// times
    #[arg(long, global = true, value_name = "CONDITION")]
    filter: Vec<Filter>,
}

#[derive(clap::Subcommand)]
enum RunsCommand {
    /// List the runs
    List,
    /// Show one run
    Show {
        /// Its number; `STAGE/N` or `FOLDER/N` where several have it
        #[arg(value_name = "RUN")]
        run: Name,
        /// Plot each metric over the epochs
        #[arg(long)]
        curve: bool,
    },
    /// Show where runs differ: settings and results, a column a run
    Compare {
        /// Their numbers; `STAGE/N` or `FOLDER/N` where several have one
        #[arg(required = true, num_args = 2.., value_name = "RUN")]
        runs: Vec<Name>,
    },
    /// Write a note beside a run; without a text, remove it
    Note {
        #[arg(value_name = "RUN")]
        run: Name,
        text: Option<String>,
    },
    /// Give a run tags
    Tag {
        #[arg(value_name = "RUN")]
        run: Name,
        #[arg(required = true, value_name = "TAG")]
        tags: Vec<String>,
        /// Take them off instead
        #[arg(long)]
        remove: bool,
    },
    /// Remove old runs that nothing needs
    Prune {
        /// How many of the newest runs of each stage stay
        #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
        keep: u32,
        /// Say what would go, and remove nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Remove one run
    Rm {
        #[arg(value_name = "RUN")]
        run: Name,
        /// Even if a stage's record refers to it
        #[arg(long)]
        force: bool,
    },
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

/// How a table is printed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Table,
    Json,
    Csv,
}

pub fn runs(arguments: RunsArguments) -> Result<ExitCode, CliError> {
    project::enter(None)?;
    let folders = folders(arguments.dir.as_deref())?;
    let form = match (arguments.json, arguments.csv) {
        (true, _) => Form::Json,
        (_, true) => Form::Csv,
        _ => Form::Table,
    };
    match arguments.command.unwrap_or(RunsCommand::List) {
        RunsCommand::List => list(&folders, &arguments.which, form)?,
        RunsCommand::Show { run, curve } => show(one(&folders, &run)?, curve, arguments.json)?,
        RunsCommand::Compare { runs } => compare(&folders, &runs, form)?,
        RunsCommand::Note { run, text } => return labels::note(&one(&folders, &run)?, text),
        RunsCommand::Tag { run, tags, remove } => {
            return labels::tag(&one(&folders, &run)?, tags, remove);
        }
        RunsCommand::Prune { keep, dry_run } => {
            return clean::prune(&to_clean(arguments.dir.as_deref())?, keep as usize, dry_run);
        }
        RunsCommand::Rm { run, force } => {
            return clean::remove(one(&folders, &run)?, &folders, force);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A run with what is known of it, or why nothing is.
struct Entry {
    run: Run,
    known: Result<Metadata, String>,
    labels: Labels,
}

impl Entry {
    fn value(&self, key: &str) -> Option<Value> {
        self.known.as_ref().ok().and_then(|m| select::value(key, m, &self.labels))
    }
}

fn list(folders: &[Runs], which: &Which, form: Form) -> Result<(), CliError> {
    let mut listed: Vec<(&Runs, Vec<Entry>)> = Vec::new();
    for folder in folders {
        let mut entries = Vec::new();
        for run in folder.list() {
            let known = run.current_metadata().map_err(|e| e.to_string());
            let labels = Labels::load(&run).map_err(CliError::failed)?;
            entries.push(Entry { run, known, labels });
        }
        listed.push((folder, entries));
    }
    let none = listed.is_empty();
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
            let records = listed.iter().flat_map(|(_, entries)| entries.iter().map(record));
            say!("{:#}", Value::Array(records.collect()));
        }
        Form::Csv => {
            let rows = listed.iter().flat_map(|(_, entries)| entries);
            let row = |entry: &Entry| {
                let cell =
                    |key: &&str| entry.value(key).map(|v| select::plain(&v)).unwrap_or_default();
                let folder = entry.run.folder.display().to_string();
                COLUMNS.iter().map(cell).chain([folder]).collect::<Vec<_>>()
            };
            let headings: Vec<&str> = COLUMNS.iter().copied().chain(["folder"]).collect();
            say!("{}", table::csv(&headings, rows.map(row)));
        }
        Form::Table => {
            listed.retain(|(_, entries)| !entries.is_empty());
            if listed.is_empty() {
                if none {
                    say!("no runs yet; {}", project::first_run_hint())
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

/// The table of the reference workflow; besides, what it is sorted by, notes and tags where there
/// are any.
fn as_table(entries: &[Entry], which: &Which) -> String {
    let mut headings = vec![
        "Run #",
        "Experiment",
        "Created",
        "Status",
        "Epochs",
        "Checkpoints",
        "Best",
        "Monitor",
    ];
    let shown =
        ["run", "experiment", "created", "status", "epochs", "best", "monitor", "note", "tags"];
    let by = which.sort.as_ref().map(|s| s.key.as_str()).filter(|key| !shown.contains(key));
    headings.extend(by);
    let tags = entries.iter().any(|e| !e.labels.tags.is_empty());
    let notes = entries.iter().any(|e| e.labels.note.is_some());
    headings.extend(tags.then_some("Tags"));
    headings.extend(notes.then_some("Note"));
    let rows: Vec<Vec<String>> = entries
        .iter()
        .map(|entry| {
            let mut row = row(entry);
            row.extend(
                by.map(|key| entry.value(key).map_or_else(|| "-".into(), |v| select::plain(&v))),
            );
            row.extend(tags.then(|| entry.labels.shown_tags()));
            row.extend(notes.then(|| entry.labels.note.clone().unwrap_or_default()));
            row
        })
        .collect();
    table::table(&headings, &rows)
}

fn row(entry: &Entry) -> Vec<String> {
    let number = entry.run.number.0.to_string();
    match &entry.known {
        Err(error) => vec![number, format!("unreadable: {error}")],
        Ok(m) => vec![
            number,
            m.experiment_name.clone(),
            table::time(&m.created_at),
            m.status.name().to_owned(),
            format!("{}/{}", done(m), m.epochs),
            m.checkpoints.len().to_string(),
            best(m).map_or_else(|| "-".into(), |b| format!("{b:.4}")),
            monitor(m),
        ],
    }
}

fn record(entry: &Entry) -> Value {
    match &entry.known {
        Ok(metadata) => {
            let mut record = serde_json::to_value(metadata).unwrap_or_default();
            if let Value::Object(object) = &mut record {
                object.insert(
                    "labels".into(),
                    serde_json::to_value(&entry.labels).unwrap_or_default(),
                );
            }
            record
        }
        Err(error) => serde_json::json!({"run_number": entry.run.number, "error": error}),
    }
}

/// A row for each setting and result that is not the same in all.
fn compare(folders: &[Runs], names: &[Name], form: Form) -> Result<(), CliError> {
    let runs: Vec<Run> = names.iter().map(|name| one(folders, name)).collect::<Result<_, _>>()?;
    let mut columns: Vec<(String, BTreeMap<String, Value>)> = Vec::new();
    for (run, title) in runs.iter().zip(named::titles(folders, &runs)) {
        let m = run.current_metadata().map_err(CliError::failed)?;
        let mut values = m.manifest.clone();
        let results = [
            ("status".to_owned(), m.status.name().into()),
            ("epochs".to_owned(), done(&m).into()),
            (format!("best {}", monitor(&m)), best(&m).map(Value::from).unwrap_or_default()),
            (
                "best epoch".to_owned(),
                m.best_checkpoint.as_ref().map(|b| b.epoch.into()).unwrap_or_default(),
            ),
            ("seconds".to_owned(), seconds(&m).round().into()),
        ];
        values.extend(results);
        columns.push((title, values));
    }
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
        say!("{:#}", Value::Object(columns.iter().map(column).collect()));
        return Ok(());
    }
    let cell = |value: Option<&Value>| match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => short_digest(text).chars().take(40).collect(),
        Some(Value::Number(n)) if n.is_f64() => format!("{:.4}", n.as_f64().unwrap_or_default())
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_owned(),
        Some(other) => other.to_string(),
    };
    let rows: Vec<Vec<String>> = keys
        .iter()
        .map(|key| {
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
        _ => say!("{}", table::table(&headings, &rows)),
    }
    Ok(())
}

fn show(run: Run, curve: bool, json: bool) -> Result<(), CliError> {
    let m = run.current_metadata().map_err(CliError::failed)?;
    let labels = Labels::load(&run).map_err(CliError::failed)?;
    if json {
        say!("{:#}", record(&Entry { run, known: Ok(m), labels }));
        return Ok(());
    }
    say!("Run {}: {}", run.number, m.experiment_name);
    say!("directory   {}", run.folder.display());
    say!(
        "status      {}{}",
        m.status.name(),
        m.message.as_ref().map(|t| format!(" ({t})")).unwrap_or_default()
    );
    say!("created     {}", table::time(&m.created_at));
    say!("updated     {}", table::time(&m.updated_at));
    say!("stage       {} of {}", m.stage, m.pipeline);
    say!("device      {}", m.device);
    let images = format!(
        "{} training and {} validation images",
        m.dataset.train_images, m.dataset.validation_images
    );
    say!("data        {}, {images}, {} classes", m.dataset.source, m.dataset.classes.len());
    if let Some(note) = &labels.note {
        say!("note        {note}");
    }
    if !labels.tags.is_empty() {
        say!("tags        {}", labels.shown_tags());
    }
    say!("seed        {}", m.seed);
    say!("identity    {}", m.identity);
    if let Some(commit) = &m.git_commit {
        say!("git commit  {commit}");
    }
    if let (Some(record), Some(value)) = (&m.best_checkpoint, best(&m)) {
        say!(
            "best        {} {value:.4} at epoch {}: {}",
            monitor(&m),
            record.epoch,
            run.best().display()
        );
    }
    let rows: Vec<Vec<String>> = m
        .history
        .iter()
        .map(|e| {
            let metrics: Vec<String> =
                e.metrics.iter().map(|(k, v)| format!("{k}={v:.4}")).collect();
            let saved =
                m.checkpoints.iter().find(|c| c.epoch == e.epoch).map(|c| table::bytes(c.bytes));
            vec![
                e.epoch.to_string(),
                metrics.join(" "),
                format!("{:.1}", e.seconds),
                format!("{:.0}", e.images_per_second),
                saved.unwrap_or_default(),
            ]
        })
        .collect();
    say!("\n{}", table::table(&["Epoch", "Metrics", "Seconds", "Images/s", "Checkpoint"], &rows));
    if curve {
        say!("\n{}", curve::plots(&m));
    }
    Ok(())
}

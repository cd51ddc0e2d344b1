//! `pipe runs [list]`, `show N`, `compare N M…`, `prune --keep K`, `rm N`

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pipe_engine::store::{Metadata, Run, Runs};
use serde_json::Value;

use super::{CliError, clean};
use crate::report::table;
use crate::say;

#[derive(clap::Args)]
pub struct RunsArguments {
    #[command(subcommand)]
    command: Option<RunsCommand>,
    /// Folder of numbered runs; every folder under `checkpoints/` that has some if unset
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// As JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(clap::Subcommand)]
enum RunsCommand {
    /// List the runs
    List,
    /// Show one run
    Show { number: u32 },
    /// Show where runs differ: settings and results, a column a run
    Compare {
        #[arg(required = true, num_args = 2..)]
        numbers: Vec<u32>,
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
        number: u32,
        /// Even if a stage's record refers to it
        #[arg(long)]
        force: bool,
    },
}

pub fn runs(arguments: RunsArguments) -> Result<ExitCode, CliError> {
    let folders = folders(arguments.dir.as_deref())?;
    match arguments.command.unwrap_or(RunsCommand::List) {
        RunsCommand::List => list(&folders, arguments.json),
        RunsCommand::Show { number } => show(&folders, number, arguments.json)?,
        RunsCommand::Compare { numbers } => compare(&folders, &numbers, arguments.json)?,
        RunsCommand::Prune { keep, dry_run } => return clean::prune(&folders, keep as usize, dry_run),
        RunsCommand::Rm { number, force } => return clean::remove(one(&folders, number)?, &folders, force),
    }
    Ok(ExitCode::SUCCESS)
}

/// The folder that was named, or those under `checkpoints/`.
pub fn folders(dir: Option<&Path>) -> Result<Vec<Runs>, CliError> {
    match dir {
        Some(dir) if !dir.is_dir() => Err(CliError::usage(format!("{}: no such folder", dir.display()))),
        Some(dir) => Ok(vec![Runs::at(dir)]),
        None => Ok(folders_under(Path::new("checkpoints"))),
    }
}

/// Every folder under `root` that holds numbered runs.
fn folders_under(root: &Path) -> Vec<Runs> {
    let Ok(entries) = std::fs::read_dir(root) else { return Vec::new() };
    let mut folders: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect();
    folders.sort();
    folders.into_iter().map(Runs::at).filter(|r| !r.list().is_empty()).collect()
}

fn list(folders: &[Runs], json: bool) {
    let all: Vec<(&Runs, Run)> =
        folders.iter().flat_map(|f| f.list().into_iter().map(move |run| (f, run))).collect();
    if json {
        let records: Vec<_> = all.iter().map(|(_, run)| record(run)).collect();
        say!("{:#}", serde_json::Value::Array(records));
        return;
    }
    if all.is_empty() {
        say!("no runs yet; `pipe run FILE` makes the first");
        return;
    }
    for folder in folders {
        let rows: Vec<Vec<String>> = folder.list().iter().map(row).collect();
        say!("{}:", folder.folder().display());
        let headings =
            ["Run #", "Experiment", "Created", "Status", "Epochs", "Checkpoints", "Best", "Monitor"];
        say!("{}", table::table(&headings, &rows));
    }
}

fn row(run: &Run) -> Vec<String> {
    let number = run.number.0.to_string();
    match run.metadata() {
        Err(error) => vec![number, format!("unreadable: {error}")],
        Ok(m) => {
            let monitor = monitor(&m);
            vec![
                number,
                m.experiment_name.clone(),
                table::time(&m.created_at),
                m.status.name().to_owned(),
                format!("{}/{}", done(&m), m.epochs),
                m.checkpoints.len().to_string(),
                best(&m).map_or_else(|| "-".into(), |b| format!("{b:.4}")),
                monitor,
            ]
        }
    }
}

fn monitor(metadata: &Metadata) -> String {
    metadata.settings["checkpoint"]["monitor"].as_str().unwrap_or("train_loss").to_owned()
}

fn best(metadata: &Metadata) -> Option<f64> {
    metadata.best_checkpoint.as_ref()?.metrics.get(&monitor(metadata)).copied()
}

fn done(metadata: &Metadata) -> u64 {
    metadata.history.last().map_or(0, |e| e.epoch)
}

fn record(run: &Run) -> serde_json::Value {
    match run.metadata() {
        Ok(metadata) => serde_json::to_value(metadata).unwrap_or_default(),
        Err(error) => serde_json::json!({"run_number": run.number, "error": error.to_string()}),
    }
}

/// The run of that number, which must be there once.
fn one(folders: &[Runs], number: u32) -> Result<Run, CliError> {
    let mut found: Vec<Run> = folders.iter().filter_map(|f| f.find(number)).collect();
    match (found.pop(), found.is_empty()) {
        (Some(run), true) => Ok(run),
        (None, _) => Err(CliError::usage(format!("there is no run {number}; `pipe runs` lists them"))),
        (Some(run), false) => {
            found.push(run);
            let places: Vec<String> = found.iter().map(|r| r.folder.display().to_string()).collect();
            let message =
                format!("run {number} is there more than once: {}; choose with --dir", places.join(", "));
            Err(CliError::usage(message))
        }
    }
}

/// A row for each setting and result that is not the same in all.
fn compare(folders: &[Runs], numbers: &[u32], json: bool) -> Result<(), CliError> {
    let mut columns: Vec<(String, BTreeMap<String, Value>)> = Vec::new();
    for &number in numbers {
        let run = one(folders, number)?;
        let m = run.metadata().map_err(CliError::failed)?;
        let mut values = m.manifest.clone();
        let results = [
            ("status".to_owned(), m.status.name().into()),
            ("epochs".to_owned(), done(&m).into()),
            (format!("best {}", monitor(&m)), best(&m).map(Value::from).unwrap_or_default()),
            ("best epoch".to_owned(), m.best_checkpoint.as_ref().map(|b| b.epoch.into()).unwrap_or_default()),
            ("seconds".to_owned(), m.history.iter().map(|e| e.seconds).sum::<f64>().round().into()),
        ];
        values.extend(results);
        columns.push((format!("run {}", run.number), values));
    }
    let keys: BTreeSet<&String> = columns.iter().flat_map(|(_, values)| values.keys()).collect();
    let differ = |key: &&&String| columns.iter().any(|(_, v)| v.get(**key) != columns[0].1.get(**key));
    let keys: Vec<&String> = keys.iter().filter(differ).copied().collect();
    if json {
        let column = |(name, values): &(String, BTreeMap<String, Value>)| {
            let of = |key: &&String| ((*key).clone(), values.get(*key).cloned().unwrap_or_default());
            (name.clone(), Value::Object(keys.iter().map(of).collect()))
        };
        say!("{:#}", Value::Object(columns.iter().map(column).collect()));
        return Ok(());
    }
    let cell = |value: Option<&Value>| match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.chars().take(40).collect(),
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
    let headings: Vec<&str> =
        std::iter::once("").chain(columns.iter().map(|(name, _)| name.as_str())).collect();
    say!("{}", table::table(&headings, &rows));
    Ok(())
}

fn show(folders: &[Runs], number: u32, json: bool) -> Result<(), CliError> {
    let run = one(folders, number)?;
    let m = run.metadata().map_err(CliError::failed)?;
    if json {
        say!("{:#}", record(&run));
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
    let images =
        format!("{} training and {} validation images", m.dataset.train_images, m.dataset.validation_images);
    say!("data        {}, {images}, {} classes", m.dataset.source, m.dataset.classes.len());
    say!("seed        {}", m.seed);
    say!("identity    {}", m.identity);
    if let Some(commit) = &m.git_commit {
        say!("git commit  {commit}");
    }
    if let (Some(record), Some(value)) = (&m.best_checkpoint, best(&m)) {
        say!("best        {} {value:.4} at epoch {}: {}", monitor(&m), record.epoch, run.best().display());
    }
    let rows: Vec<Vec<String>> = m
        .history
        .iter()
        .map(|e| {
            let metrics: Vec<String> = e.metrics.iter().map(|(k, v)| format!("{k}={v:.4}")).collect();
            let saved = m.checkpoints.iter().find(|c| c.epoch == e.epoch).map(|c| table::bytes(c.bytes));
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
    Ok(())
}

//! `pipe runs [list]`, `pipe runs show N`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pipe_engine::store::{Metadata, Run, Runs};

use super::CliError;
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
}

pub fn runs(arguments: RunsArguments) -> Result<ExitCode, CliError> {
    let folders = match &arguments.dir {
        Some(dir) if !dir.is_dir() => {
            return Err(CliError::usage(format!("{}: no such folder", dir.display())));
        }
        Some(dir) => vec![Runs::at(dir)],
        None => folders_under(Path::new("checkpoints")),
    };
    match arguments.command.unwrap_or(RunsCommand::List) {
        RunsCommand::List => list(&folders, arguments.json),
        RunsCommand::Show { number } => show(&folders, number, arguments.json)?,
    }
    Ok(ExitCode::SUCCESS)
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
                m.created_at.with_timezone(&chrono::Local).format("%Y-%m-%d %H:%M:%S").to_string(),
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

fn show(folders: &[Runs], number: u32, json: bool) -> Result<(), CliError> {
    let found: Vec<Run> = folders.iter().filter_map(|f| f.find(number)).collect();
    let run = match found.as_slice() {
        [run] => run,
        [] => return Err(CliError::usage(format!("there is no run {number}; `pipe runs` lists them"))),
        several => {
            let places: Vec<String> = several.iter().map(|r| r.folder.display().to_string()).collect();
            let message =
                format!("run {number} is there more than once: {}; choose with --dir", places.join(", "));
            return Err(CliError::usage(message));
        }
    };
    let m = run.metadata().map_err(CliError::failed)?;
    if json {
        say!("{:#}", record(run));
        return Ok(());
    }
    let time = |t: &chrono::DateTime<chrono::Utc>| {
        t.with_timezone(&chrono::Local).format("%Y-%m-%d %H:%M:%S").to_string()
    };
    say!("Run {}: {}", run.number, m.experiment_name);
    say!("directory   {}", run.folder.display());
    say!(
        "status      {}{}",
        m.status.name(),
        m.message.as_ref().map(|t| format!(" ({t})")).unwrap_or_default()
    );
    say!("created     {}", time(&m.created_at));
    say!("updated     {}", time(&m.updated_at));
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

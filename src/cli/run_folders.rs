//! Where a project keeps numbered runs: under `checkpoints/`, and wherever its stages were told to.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Component, Path, PathBuf};

use pipe_engine::state::Record;
use pipe_fs::{ProjectRoot, STATE_FOLDER, atomic, bounded_read, checksummed_json};
use pipe_runs::Runs;
use pipe_upkeep::clean;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cli::{CliError, project};
use crate::report::message;

/// The folder that was named, or all that the project has.
pub fn folders(dir: Option<&Path>) -> Result<Vec<Runs>, CliError> {
    let Some(dir) = dir else { return Ok(all(&project::root()?)) };
    let folder = project::path(dir);
    if folder.is_dir() {
        Ok(vec![Runs::at(project::root()?.disk(), folder)])
    } else {
        Err(CliError::usage(format!("{}: no such folder", dir.display())))
    }
}

/// The same for what removes. A folder outside of the project must have been named, or one that was
/// trained in from here: a record from elsewhere could name any.
pub fn to_clean(dir: Option<&Path>) -> Result<Vec<Runs>, CliError> {
    let root = project::root()?;
    let found = match dir {
        Some(_) => folders(dir)?,
        None => known(&root).into_iter().filter(|runs| !is_without_runs(runs)).collect(),
    };
    let own: BTreeSet<PathBuf> = opened(&root).into_iter().map(|path| tidy(&root, path)).collect();
    let is_own = |folder: &Path| dir.is_some() || lies_inside(folder) || own.contains(folder);
    let (own, others): (Vec<Runs>, Vec<Runs>) =
        found.into_iter().partition(|runs| is_own(runs.folder()));
    for runs in others {
        let folder = runs.folder().display();
        message::note(&format!(
            "{folder} lies outside of the project and is left alone; name it with --dir"
        ));
    }
    Ok(own)
}

/// Whether a folder has neither runs nor what a crash left of one.
fn is_without_runs(runs: &Runs) -> bool {
    runs.list().is_empty() && !clean::holds_half_a_run(runs.folder())
}

fn lies_inside(folder: &Path) -> bool {
    folder.components().all(|part| matches!(part, Component::Normal(_)))
}

fn tidy(root: &Path, path: PathBuf) -> PathBuf {
    let path = path.strip_prefix(root).map(Path::to_owned).unwrap_or(path);
    path.components().filter(|part| *part != Component::CurDir).collect()
}

/// Every folder with numbered runs that the project's files tell of, relative to the project where
/// it lies in it.
pub fn all(root: &ProjectRoot) -> Vec<Runs> {
    known(root).into_iter().filter(|runs| !runs.list().is_empty()).collect()
}

/// Every folder that may hold numbered runs.
fn known(root: &ProjectRoot) -> Vec<Runs> {
    let entries = std::fs::read_dir("checkpoints").into_iter().flatten().flatten();
    let mut found: BTreeSet<PathBuf> = entries.map(|entry| entry.path()).collect();
    found.extend(Record::all(root).into_iter().filter_map(|record| record.runs));
    found.extend(opened(root));
    found.extend(imported(root));
    let found: BTreeSet<PathBuf> = found.into_iter().map(|path| tidy(root, path)).collect();
    found.into_iter().map(|folder| Runs::at(root.disk(), folder)).collect()
}

/// The folders of the runs that were ever opened, as the log of events has them. A stage's record
/// knows only where its runs are now.
fn opened(root: &Path) -> BTreeSet<PathBuf> {
    let Ok(events) = File::open(root.join(STATE_FOLDER).join("events.jsonl")) else {
        return BTreeSet::new();
    };
    let folder = |line: &str| {
        let event: Value =
            line.contains("run_opened").then(|| serde_json::from_str(line).ok())??;
        Some(Path::new(event.get("directory")?.as_str()?).parent()?.to_owned())
    };
    let lines = BufReader::new(events).split(b'\n').map_while(Result::ok);
    lines.filter_map(|line| folder(&String::from_utf8_lossy(&line))).collect()
}

/// The folders that runs were imported to, and in which none has been trained from here.
const IMPORTED: &str = "imported.json";

fn imported(root: &Path) -> BTreeSet<PathBuf> {
    let read = bounded_read::read(&root.join(STATE_FOLDER).join(IMPORTED), bounded_read::RECORD);
    let parsed = read.ok().and_then(|bytes| checksummed_json::from_bytes::<Imported>(&bytes).ok());
    parsed.unwrap_or_default().folders
}

#[derive(Default, Serialize, Deserialize)]
struct Imported {
    folders: BTreeSet<PathBuf>,
}

/// Notes that runs were imported to a folder, so that it is looked into from now on.
///
/// # Errors
/// The project's state cannot be written.
pub fn note_imported(root: &ProjectRoot, folder: &Path) -> Result<(), CliError> {
    let folder = tidy(root, folder.to_owned());
    if known(root).iter().any(|runs| runs.folder() == folder) {
        return Ok(());
    }
    let mut folders = imported(root);
    folders.insert(folder);
    let state = root.join(STATE_FOLDER);
    atomic::create_folder(root.disk(), &state).map_err(CliError::failed)?;
    let text = checksummed_json::to_text(&Imported { folders });
    atomic::write(root.disk(), &state.join(IMPORTED), |out| out.write_all(text.as_bytes()))
        .map_err(CliError::failed)
}

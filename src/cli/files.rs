//! Files that people name by the folder they are in.

use std::path::{Path, PathBuf};

use pipe_core::shell::CommandLine;
use pipe_fs::Disk;
use pipe_runs::checkpoint::named;
use pipe_runs::{Checkpoint, Run, Runs};
use pipe_train::data::nearest_place;

use super::run_folders::folders;
use super::runs::named::{Name, one};
use super::{CliError, project};
use crate::report::message;

/// The file that names an adapter's folder as one.
const ADAPTER: &str = "adapter_config.json";
/// The most names in a message.
const SHOWN: usize = 5;

/// A checkpoint that was named: the file itself, the best one of the run whose folder it is, or the
/// one of a folder for a hub.
///
/// # Errors
/// A folder without one; the message says what there is instead.
pub fn checkpoint(path: &Path) -> Result<PathBuf, CliError> {
    let shown = path.display();
    if let Some(near) = nearest_place(path) {
        let error = CliError::failed(format!("{shown}: no such file"));
        return Err(error.note(format!("did you mean {}?", near.display())));
    }
    if let Some(found) = named(path) {
        return Ok(found);
    }
    if path.join(ADAPTER).is_file() {
        let base =
            path.parent().map(|run| run.join("base_model.ckpt")).filter(|base| base.is_file());
        let error =
            CliError::usage(format!("{shown} is an adapter, which belongs on a base model"));
        return Err(match base {
            Some(base) => {
                let line =
                    CommandLine::new(["pipe", "sample"]).path(&base).word("--lora").path(path);
                error.note(format!("sample from both with: {line}"))
            }
            None => error.note("name the base model's checkpoint, and the adapter with --lora"),
        });
    }
    let runs = Runs::at(&Disk::default(), path).list();
    let Some(newest) = runs.last() else {
        return Err(CliError::usage(format!("{shown} is a folder without a checkpoint")));
    };
    if runs.iter().all(|run| !run.best().exists()) {
        return Err(CliError::usage(format!("{shown}: none of its runs has a checkpoint yet")));
    }
    let mut names: Vec<String> =
        runs.iter().rev().take(SHOWN).map(|r| r.folder.display().to_string()).collect();
    if runs.len() > SHOWN {
        names.push(format!("{} more", runs.len() - SHOWN));
    }
    let (all, one) = (names.join(", "), newest.folder.display());
    Err(CliError::usage(format!("{shown} is a folder of runs"))
        .note(format!("name one, such as {one}; there are {all}")))
}

/// The same, and the best one of a run of the project that was named: `3`, `base/3`.
///
/// The project is entered for a run, so that paths which were typed beside it count from there.
///
/// # Errors
/// As above; there is no such run, or it has no checkpoint.
pub fn checkpoint_or_run(typed: &Path) -> Result<PathBuf, CliError> {
    let typed = project::path(typed);
    let Some(name) = Name::of_word(&typed) else { return checkpoint(&typed) };
    let run = named_run(&name)?;
    best_or_newest(&run)?
        .ok_or_else(|| CliError::usage(format!("run {} has no checkpoint", run.number)))
}

/// The best checkpoint of a run. One that has completed no epoch has none: then the newest, and that
/// is said.
pub fn best_or_newest(run: &Run) -> Result<Option<PathBuf>, CliError> {
    if run.best().exists() {
        return Ok(Some(run.best()));
    }
    if !run.last().exists() {
        return Ok(None);
    }
    let newest = Checkpoint::open(&run.last()).map_err(CliError::failed)?;
    message::note(&format!(
        "run {} has no best checkpoint; its newest is of step {}",
        run.number,
        newest.header().global_step
    ));
    Ok(Some(run.last()))
}

/// The folder of a run that was named, by itself or as the run's name.
///
/// # Errors
/// There is no run of that name.
pub fn run_folder(typed: &Path) -> Result<PathBuf, CliError> {
    let typed = project::path(typed);
    Name::of_word(&typed).map_or(Ok(typed), |name| Ok(named_run(&name)?.folder))
}

/// The run of the project that was named; enters the project.
///
/// # Errors
/// There is no run of that name, or several.
pub fn named_run(name: &Name) -> Result<Run, CliError> {
    project::enter(None)?;
    one(&folders(None)?, name)
}

/// An adapter that was named: its file or folder, or the run that trained it.
pub fn adapter(path: &Path) -> PathBuf {
    let inside = path.join("adapter");
    if !path.join(ADAPTER).is_file() && inside.join(ADAPTER).is_file() {
        inside
    } else {
        path.to_owned()
    }
}

/// Whether a path is the folder of an adapter in PEFT's format.
pub fn is_adapter(path: &Path) -> bool {
    path.join(ADAPTER).is_file()
}

/// What identifies a checkpoint's content.
pub fn digest(checkpoint: &Checkpoint) -> &str {
    checkpoint.digest().unwrap_or(checkpoint.head_digest())
}

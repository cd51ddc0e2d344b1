//! Which project a command is about.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use pipe_core::shell;
use pipe_engine::pipeline_file::PipelineFile;
use pipe_engine::source;
use pipe_engine::state::{former_records_folder, records_folder};
use pipe_fs::{ProjectRoot, STATE_FOLDER};

use super::CliError;
use crate::report::message;

/// Where the program was started. The current folder is the process's, so this is too.
static STARTED: OnceLock<PathBuf> = OnceLock::new();

/// Finds the project and goes there, so that relative paths mean files of the project from now on.
///
/// It is the nearest folder with a `.pipe`, from where the program was started upwards. A pipeline
/// file that lies in another project brings that one with it, unless the one here has run it
/// before. Where there is none, the project begins where the program was started.
pub fn enter(file: Option<&Path>) -> Result<(), CliError> {
    let failed =
        |e: std::io::Error| CliError::usage(format!("failed to find the current folder: {e}"));
    let here = std::env::current_dir().map_err(failed)?;
    let started = STARTED.get_or_init(|| here.clone());
    let root = choose(started, file);
    if root == here {
        return Ok(());
    }
    std::env::set_current_dir(&root).map_err(|e| {
        CliError::usage(format!("failed to enter the project {}: {e}", root.display()))
    })?;
    message::note(&format!("project: {}", root.display()));
    Ok(())
}

/// The project of a command that was started in `here` with a pipeline file.
fn choose(here: &Path, file: Option<&Path>) -> PathBuf {
    let own = nearest(here);
    let file = file.and_then(|file| absolute(here, file));
    let theirs = file.as_deref().and_then(Path::parent).and_then(nearest);
    match (own, theirs, file) {
        (None, None, _) => here.to_owned(),
        // Projects within each other, or beside each other.
        (Some(own), Some(theirs), Some(file)) if own != theirs => {
            if has_run(&own, &file) {
                own
            } else {
                theirs
            }
        }
        (Some(project), _, _) | (None, Some(project), _) => project,
    }
}

/// The nearest folder with a `.pipe`, from `folder` upwards. The search ends where a project cannot
/// reach further: at the top of a git repository, at the home folder, and at folders where
/// everybody may write. Such a folder is a project for what is started in itself.
pub fn nearest(folder: &Path) -> Option<PathBuf> {
    for (above, place) in folder.ancestors().enumerate() {
        if above > 0 && (is_home(place) || is_for_everybody(place)) {
            return None;
        }
        if place.join(STATE_FOLDER).is_dir() {
            return Some(place.to_owned());
        }
        if place.join(".git").exists() {
            return None;
        }
    }
    None
}

fn is_home(folder: &Path) -> bool {
    std::env::var_os("HOME").is_some_and(|home| !home.is_empty() && Path::new(&home) == folder)
}

#[cfg(unix)]
fn is_for_everybody(folder: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    folder.parent().is_none()
        || std::fs::metadata(folder)
            .is_ok_and(|metadata| metadata.permissions().mode() & 0o002 != 0)
}

#[cfg(not(unix))]
fn is_for_everybody(folder: &Path) -> bool {
    folder.parent().is_none()
}

/// A file's path without links in front of its name; `None` if its folder is not there.
fn absolute(here: &Path, file: &Path) -> Option<PathBuf> {
    let file = here.join(file);
    let folder = file.parent()?.canonicalize().ok()?;
    Some(folder.join(file.file_name()?))
}

/// Whether a project has records of the pipeline in a file.
fn has_run(root: &Path, file: &Path) -> bool {
    let read = source::read(file, file).ok().and_then(|source| PipelineFile::parse(source).ok());
    read.is_some_and(|pipeline| {
        [records_folder, former_records_folder]
            .iter()
            .any(|folder| folder(root, &pipeline.name).is_dir())
    })
}

/// The project's folder. Commands enter it first.
pub fn root() -> Result<ProjectRoot, CliError> {
    std::env::current_dir()
        .map(|folder| ProjectRoot::from(folder.as_path()))
        .map_err(|e| CliError::usage(format!("failed to find the current folder: {e}")))
}

/// A path as it was typed, seen from the project: relative to it if it lies in it.
pub fn path(typed: &Path) -> PathBuf {
    let (Some(started), Ok(root)) = (STARTED.get(), std::env::current_dir()) else {
        return typed.to_owned();
    };
    if *started == root {
        return typed.to_owned();
    }
    let Some(path) = absolute(started, typed) else { return started.join(typed) };
    path.strip_prefix(&root).map(Path::to_owned).unwrap_or(path)
}

/// A path of the project, as one types it where the program was started.
pub fn from_root(path: &Path) -> PathBuf {
    path_to_root().map_or_else(|| path.to_owned(), |root| root.join(path))
}

/// A command for the project's folder, as it is typed where the program was started.
pub fn from_start_folder(command: &str) -> String {
    match path_to_root() {
        Some(folder) => shell::inside(&folder, command),
        None => command.to_owned(),
    }
}

/// The project's folder as seen from where the program was started, if that is elsewhere.
fn path_to_root() -> Option<PathBuf> {
    let (started, root) = (STARTED.get()?, std::env::current_dir().ok()?);
    if *started == root {
        return None;
    }
    let above = started.strip_prefix(&root).map(|below| below.components().map(|_| "..").collect());
    Some(above.unwrap_or(root))
}

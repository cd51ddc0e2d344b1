//! Which files this program keeps in the folder of a numbered run. What comes from elsewhere may
//! name these and no others.

use std::fs;
use std::path::{Path, PathBuf};

use pipe_fs::aside::{is_set_aside, name_before};
use pipe_fs::atomic;

use super::checkpoint_path::Name;
use super::live_request::LiveRequest;
use super::{CHECKPOINTS, CheckpointPath, Run, results};

/// Bytes of the longest name of a file.
const LONGEST_NAME: usize = 255;

/// Folders in that of a numbered run; the first is that one itself.
const RUN_FOLDERS: [&str; 7] =
    ["", "checkpoints", "logs", "samples", "adapter", "ema", results::FOLDER];

/// Whether this program keeps a file of that name in the folder of a numbered run. Copies of
/// checkpoints that a person has put beside them are among these.
pub fn is_run_file(file: &str) -> bool {
    match file.split_once('/') {
        None => ["metadata.json", "config.yaml", "labels.json", "base_model.ckpt"].contains(&file),
        Some(("checkpoints", name)) => match name.split_once('/') {
            None => {
                is_plain_name(name) && (name.ends_with(".ckpt") || name.ends_with(".ckpt.json"))
            }
            // A program's checkpoint can be a folder.
            Some((folder, inner)) => is_checkpoint(folder) && inner.split('/').all(is_inner),
        },
        Some(("ema", name)) => is_plain_name(name) && name.ends_with(".ckpt"),
        Some((results::FOLDER, name)) => is_plain_name(name) && name.ends_with(".json"),
        Some(("samples", name)) => is_plain_name(name) && name.ends_with(".png"),
        Some(("logs", name)) => {
            name == "metrics.jsonl"
                || (is_plain_name(name) && name.starts_with("events.out.tfevents."))
        }
        Some(("adapter", name)) => {
            ["adapter_config.json", "adapter_model.safetensors"].contains(&name)
        }
        Some(_) => false,
    }
}

/// Whether a folder in that of a run holds only such files.
pub fn is_run_subfolder(folder: &str) -> bool {
    RUN_FOLDERS.contains(&folder) || is_run_file(&format!("{folder}/file"))
}

/// What stands in the folder of a run, each path with all that is below it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Belongings {
    /// What this program has written there.
    pub own: Vec<PathBuf>,
    /// What somebody else has put there: copies of checkpoints under other names are among these.
    pub foreign: Vec<PathBuf>,
}

impl Belongings {
    /// Looks into the folder of a run. One behind a link is all its own: what removes a link removes
    /// nothing that it leads to.
    pub fn of(run: &Run) -> Self {
        let mut found = Self::default();
        if !run.folder.is_symlink() {
            found.look(&run.folder, "");
        }
        found.foreign.sort();
        found
    }

    fn look(&mut self, folder: &Path, inside: &str) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_own(inside, &name) {
                self.own.push(path);
            } else if is_folder && inside.is_empty() && RUN_FOLDERS.contains(&name.as_str()) {
                let mut below = Self::default();
                below.look(&path, &name);
                if below.foreign.is_empty() {
                    below.own = vec![path];
                }
                self.own.extend(below.own);
                self.foreign.extend(below.foreign);
            } else if is_folder && !has_files(&path) {
                self.own.push(path);
            } else {
                self.foreign.push(path);
            }
        }
    }
}

/// Whether this program gives a file or folder that name in the folder `inside` of a run. What is not
/// finished or was set aside is known by the name that it was to have or had.
fn is_own(inside: &str, name: &str) -> bool {
    if atomic::is_temporary(name) {
        return true;
    }
    let name = name_before(name).unwrap_or(name);
    let counted = |stem: &str| Name::parse(&format!("{stem}.ckpt")).is_some();
    match inside {
        "" => {
            is_run_file(name)
                || ["run.lock", "metadata.json.previous", SCRATCH].contains(&name)
                || LiveRequest::ALL.iter().any(|request| request.file_name() == name)
        }
        CHECKPOINTS => {
            let checkpoint = name.strip_suffix(".json").unwrap_or(name);
            CheckpointPath::parse(&format!("{CHECKPOINTS}/{checkpoint}")).is_some()
        }
        "ema" => Name::parse(name).is_some(),
        "samples" => name.strip_suffix(".png").is_some_and(counted),
        _ => is_run_file(&format!("{inside}/{name}")),
    }
}

/// The folder in that of a run in which a program writes what it saves.
pub const SCRATCH: &str = "scratch";

/// Whether anything but folders is below a folder.
fn has_files(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_file = |entry: fs::DirEntry| {
        !entry.file_type().is_ok_and(|kind| kind.is_dir()) || has_files(&entry.path())
    };
    entries.into_iter().any(is_file)
}

/// Whether a name is that of a checkpoint that stands under its own name, not that of a link.
fn is_checkpoint(name: &str) -> bool {
    is_plain_name(name) && name.ends_with(".ckpt") && !["best.ckpt", "last.ckpt"].contains(&name)
}

/// Whether a name can be one inside a program's checkpoint: hidden files are some programs' habit.
fn is_inner(name: &str) -> bool {
    let seen = name.strip_prefix('.').unwrap_or(name);
    !seen.is_empty()
        && is_plain_name(seen)
        && !name.eq_ignore_ascii_case(".git")
        && !atomic::is_temporary(name)
}

/// Whether a name is one of a file that is seen and finished, on every file system.
pub fn is_plain_name(name: &str) -> bool {
    let dull = |c: char| !(c.is_control() || "/\\:*?\"<>|".contains(c));
    name.len() <= LONGEST_NAME
        && !name.starts_with(['.', ' '])
        && !name.ends_with(['.', ' '])
        && !atomic::is_temporary(name)
        && !is_set_aside(name)
        && name.chars().all(dull)
}

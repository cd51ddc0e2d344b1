//! Which files this program keeps in the folder of a numbered run. What comes from elsewhere may
//! name these and no others.

use pipe_fs::aside::is_set_aside;
use pipe_fs::atomic;

use super::results;

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

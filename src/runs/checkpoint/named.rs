//! Checkpoints that people name by the folder that they are in.

use std::path::{Path, PathBuf};

use super::header_beside;

/// The file of a model in a folder as model hubs take it.
pub const HUB_WEIGHTS: &str = "model.safetensors";

/// Where a folder has its checkpoint, the first of them that is there: that of a run, and that of a
/// folder for a hub.
const NAMES: [&str; 5] =
    ["checkpoints/best.ckpt", "best.ckpt", "checkpoints/last.ckpt", "last.ckpt", HUB_WEIGHTS];

/// The checkpoint that a path names: itself, or the best one of a run's folder, or the one of a
/// folder for a hub. `None` for a folder without any.
pub fn named(path: &Path) -> Option<PathBuf> {
    // A folder can be a checkpoint itself, of a program.
    if !path.is_dir() || header_beside(path).is_file() {
        return Some(path.to_owned());
    }
    NAMES.into_iter().map(|name| path.join(name)).find(|file| file.exists())
}

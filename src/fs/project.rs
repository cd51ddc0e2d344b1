//! The folder of the project that this process works in.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Folder of all that the engine keeps about a project.
pub const STATE_FOLDER: &str = ".pipe";

/// The project's folder. It is never made: one that is gone was moved.
static PROJECT: OnceLock<PathBuf> = OnceLock::new();

/// Says which folder is the project's, once a process.
pub fn stay_in(project: &Path) {
    let _ = PROJECT.set(project.to_owned());
}

/// Refuses to make the project's own folder, on the way to a path.
pub(crate) fn still_there(path: &Path) -> io::Result<()> {
    let text =
        "the project was moved or removed while this ran; the same command goes on where it is now";
    match PROJECT.get() {
        Some(project) if path.starts_with(project) && !project.is_dir() => {
            Err(io::Error::other(text))
        }
        _ => Ok(()),
    }
}

/// Whether the folder was there and is not any more.
pub(crate) fn is_gone() -> bool {
    PROJECT.get().is_some_and(|project| !project.is_dir())
}

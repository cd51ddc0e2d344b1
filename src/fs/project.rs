//! The folder of a project, which is never made on the way to a file.

use std::io;
use std::path::Path;

use crate::disk::Disk;

/// Folder of all that the engine keeps about a project.
pub const STATE_FOLDER: &str = ".pipe";

/// Refuses to make the project's own folder, on the way to a path.
pub(crate) fn still_there(disk: &Disk, path: &Path) -> io::Result<()> {
    let text =
        "the project was moved or removed while this ran; the same command goes on where it is now";
    match disk.project() {
        Some(project) if path.starts_with(project) && !project.is_dir() => {
            Err(io::Error::other(text))
        }
        _ => Ok(()),
    }
}

/// Whether the folder was there and is not any more.
pub(crate) fn is_gone(disk: &Disk) -> bool {
    disk.project().is_some_and(|project| !project.is_dir())
}

//! Files that a person named to be written.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use pipe_fs::{Disk, atomic};

use super::CliError;

/// Writes it: through a link, and into a pipe or a device, which stay what they are. Its folder is
/// made if there is none.
pub fn write(
    disk: &Disk,
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), CliError> {
    make_room(disk, path)?;
    atomic::write_named(disk, path, fill).map_err(CliError::failed)
}

/// Checks that a file can be put there, before anything is computed for it, and makes its folder.
pub fn make_room(disk: &Disk, path: &Path) -> Result<(), CliError> {
    if path.is_dir() {
        let text = format!("{} is a folder: name a file, in it or elsewhere", path.display());
        return Err(CliError::usage(text));
    }
    match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) if !folder.is_dir() => {
            atomic::create_folder(disk, folder).map_err(CliError::failed)
        }
        _ => Ok(()),
    }
}

/// Refuses to write over a file that is not `what` a command writes, which begins in one way.
pub fn check_replaces(path: &Path, begins: &str, what: &str) -> Result<(), CliError> {
    if atomic::is_stream(path) {
        return Ok(());
    }
    let Ok(mut file) = File::open(path) else { return Ok(()) };
    let mut start = vec![0; begins.len()];
    let is_alike = match file.read(&mut start) {
        Ok(read) => read == 0 || start[..read].eq_ignore_ascii_case(begins.as_bytes()),
        Err(_) => path.is_dir(),
    };
    if is_alike {
        return Ok(());
    }
    let text =
        format!("{} is there and is no {what}: name another file, or remove it", path.display());
    Err(CliError::usage(text))
}

/// The file that is to be put in place where a command writes it otherwise than from its beginning
/// to its end.
pub fn target(path: &Path) -> Result<PathBuf, CliError> {
    if atomic::is_stream(path) {
        let text = format!(
            "{} is a pipe or a device, and this needs a file: name another",
            path.display()
        );
        Err(CliError::usage(text))
    } else {
        Ok(atomic::behind_links(path))
    }
}

/// Whether what is written there is read by whoever reads the command's output: nothing else is
/// said then.
pub fn is_output(path: &Path) -> bool {
    ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"].iter().any(|own| path == Path::new(own))
}

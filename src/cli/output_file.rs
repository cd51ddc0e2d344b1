//! Files that a person named to be written.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use pipe_fs::{Disk, atomic};

use super::CliError;

/// Writes it: through a link, and into a pipe or a device, which stay what they are.
pub fn write(
    disk: &Disk,
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), CliError> {
    atomic::write_named(disk, path, fill).map_err(CliError::failed)
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

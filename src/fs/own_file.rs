//! Opening files of a folder that may come from elsewhere: a link in the place of one must not lead
//! out of it.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

/// Options that do not follow a link in the place of a file: what a run's folder from elsewhere
/// holds must not lead out of it.
fn own_file(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        options.custom_flags(flags.bits().cast_signed());
    }
    options
}

/// Opens a file that must be none but a plain one.
pub(crate) fn open_own(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    // Where the system cannot refuse links itself.
    let is_link = || path.is_symlink();
    let wrong = |what| io::Error::other(format!("{what} stands in its place: remove it"));
    if cfg!(not(unix)) && is_link() {
        return Err(wrong("a link"));
    }
    let opened = own_file(options).open(path);
    match opened {
        Ok(file) if !file.metadata()?.is_file() => Err(wrong("a pipe or a device")),
        Err(_) if is_link() => Err(wrong("a link")),
        opened => opened,
    }
}

//! Writing a whole file of the cache.

use std::fs;
use std::path::Path;

use pipe_fs::{Disk, atomic};

/// Puts `bytes` into the file `path`, all of them or none. A file that cannot be written is as good
/// as lost: the log says so, and nothing else happens.
pub(crate) fn write(disk: &Disk, path: &Path, bytes: &[u8]) {
    let temporary = path.with_added_extension(format!("tmp-{}", std::process::id()));
    let written = atomic::create_needless_folder(disk, path.parent().unwrap_or(path))
        .and_then(|()| fs::write(&temporary, bytes))
        .and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        let _ = fs::remove_file(&temporary);
        tracing::debug!("{} could not be written: {error}", path.display());
    }
}

//! One process at a time, by a lock that the operating system frees when its holder dies.

use std::fs::{File, TryLockError};
use std::path::Path;

use pipe_fs::{Disk, atomic, has_no_locks};

use crate::error::DataError;

/// Held until dropped.
pub(crate) struct Lock(#[allow(dead_code, reason = "the open file is the lock")] File);

/// Waits for the lock that belongs to `target`: the file `.NAME.lock` beside it, which stays there
/// (removing it would let two processes lock two different files of that name). Makes the folder if
/// there is none.
pub(crate) fn beside(disk: &Disk, target: &Path) -> Result<Lock, DataError> {
    let folder = target.parent().unwrap_or(Path::new("."));
    atomic::create_folder(disk, folder)?;
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let path = folder.join(format!(".{name}.lock"));
    let file = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(DataError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            tracing::info!("waiting for another process to finish {}", target.display());
            file.lock().map_err(DataError::io("lock", &path))?;
        }
        // Some network file systems have no locks: going on alone is better than not at all.
        Err(TryLockError::Error(e)) if has_no_locks(&e) => {
            tracing::warn!(
                "{} cannot be locked here; let no other process use this folder",
                path.display()
            );
        }
        Err(TryLockError::Error(e)) => return Err(DataError::io("lock", &path)(e)),
    }
    Ok(Lock(file))
}

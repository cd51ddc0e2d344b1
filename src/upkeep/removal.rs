//! Removes runs. What is somebody else's in the folder of one stays where it is.

use std::path::{Path, PathBuf};

use pipe_fs::{Disk, atomic};
use pipe_runs::{Belongings, Metadata, Run, StoreError};

/// Removes a run, and says what is left in its folder since it is no file of a run. Fails if a
/// process trains in it.
pub fn remove_run(run: &Run) -> Result<Vec<PathBuf>, StoreError> {
    let lock = run.lock()?;
    let left = remove_held(run)?;
    drop(lock);
    Ok(left)
}

/// Removes a run that was found to be needless, if it is still as it was then, and says the same:
/// `None` if somebody has gone on with it.
pub fn remove_needless(run: &Run, then: &Metadata) -> Result<Option<Vec<PathBuf>>, StoreError> {
    let lock = match run.lock() {
        Err(StoreError::Held { .. }) => return Ok(None),
        taken => taken?,
    };
    let is_same = run.metadata().is_ok_and(|now| now == *then);
    let left = is_same.then(|| remove_held(run)).transpose();
    drop(lock);
    left
}

/// Removes a run whose lock this process has. Its metadata go first: what a crash leaves after that
/// is gone on with by nobody, and can be removed once more.
fn remove_held(run: &Run) -> Result<Vec<PathBuf>, StoreError> {
    let Belongings { mut own, foreign } = Belongings::of(run);
    if foreign.is_empty() {
        atomic::remove_tree(run.disk(), &run.folder)?;
        return Ok(foreign);
    }
    let metadata = run.metadata_path();
    let first = [pipe_runs::metadata::previous(&metadata), metadata];
    own.sort_by_key(|path| !first.contains(path));
    for path in &own {
        remove_any(run.disk(), path)?;
    }
    Ok(foreign)
}

/// Removes a file, or a folder with all in it.
pub(crate) fn remove_any(disk: &Disk, path: &Path) -> Result<(), StoreError> {
    let is_folder = path.symlink_metadata().is_ok_and(|found| found.is_dir());
    let removed =
        if is_folder { atomic::remove_tree(disk, path) } else { atomic::remove(disk, path) };
    Ok(removed?)
}

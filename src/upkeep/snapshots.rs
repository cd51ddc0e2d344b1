//! Snapshots of averages in a run's folder, `ema/epoch_012.ckpt`. No list of the run has them: each
//! has a digest of its own content, and which ones there were follows from the run's settings and
//! from those that stand.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use pipe_fs::aside::is_set_aside;
use pipe_runs::{Checkpoint, Metadata, Run, Status};

/// Their folder, in that of a run.
const FOLDER: &str = "ema";

/// Those that stand, in order.
pub(crate) fn found(run: &Run) -> Vec<PathBuf> {
    let entries = fs::read_dir(run.folder.join(FOLDER)).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.retain(|path| path.extension() == Some(OsStr::new("ckpt")));
    files.sort();
    files
}

/// What is wrong with one that stands.
pub(crate) fn wrong(path: &Path) -> Option<String> {
    match Checkpoint::open(path).and_then(|file| file.verify().map(|()| file)) {
        Err(error) => Some(error.message),
        Ok(file) => epoch_of(path)
            .filter(|epoch| *epoch != file.header().epoch)
            .map(|_| format!("it is a good snapshot, and that of epoch {}", file.header().epoch)),
    }
}

/// Those that are not there and were. How often a snapshot is made can be another number each time
/// that a training goes on, and the run has the first one. So a gap counts where those stand that
/// would be the neighbours of a snapshot, and the end of a completed run always has one.
pub(crate) fn missing(run: &Run, metadata: &Metadata) -> Vec<PathBuf> {
    let ema = &metadata.settings["ema"];
    let has_lengths = ema["lengths"].as_array().is_some_and(|lengths| !lengths.is_empty());
    let Some(last) = metadata.history.last().map(|epoch| epoch.epoch) else { return Vec::new() };
    if !has_lengths || !metadata.changes.is_empty() {
        return Vec::new();
    }
    let every = ema["snapshot_every_n_epochs"].as_u64().unwrap_or(1).max(1);
    let there: BTreeSet<u64> = found(run).iter().filter_map(|path| epoch_of(path)).collect();
    if there.is_empty() {
        // Somebody needed the room.
        return Vec::new();
    }
    let is_begun_here = metadata.resumed_from.is_none();
    let is_gap = |epoch: u64| {
        let before = there.contains(&(epoch - every)) || (epoch == every && is_begun_here);
        let mut after = [epoch + every, epoch + 2 * every].into_iter().filter(|e| *e <= last);
        before && there.range(epoch..).next().is_some() && after.all(|e| there.contains(&e))
    };
    let is_end = |epoch: u64| epoch == last && metadata.status == Status::Completed;
    let due = (1..=last).filter(|epoch| !there.contains(epoch));
    let due = due.filter(|epoch| is_end(*epoch) || (epoch % every == 0 && is_gap(*epoch)));
    let folder = run.folder.join(FOLDER);
    let due = due.map(|epoch| folder.join(format!("epoch_{epoch:03}.ckpt")));
    due.filter(|path| !was_set_aside(path)).collect()
}

/// Whether a path is that of a snapshot of the run.
pub(crate) fn is_one(run: &Run, path: &Path) -> bool {
    path.parent().is_some_and(|folder| folder == run.folder.join(FOLDER))
}

/// The epoch of its name.
fn epoch_of(path: &Path) -> Option<u64> {
    path.file_stem()?.to_str()?.strip_prefix("epoch_")?.parse().ok()
}

/// Whether a repair has given what stood there another name.
fn was_set_aside(path: &Path) -> bool {
    let of = |name: &str| {
        let stem = Path::new(name).file_stem();
        is_set_aside(name) && stem.is_some() && stem == path.file_name()
    };
    let entries = path.parent().and_then(|folder| fs::read_dir(folder).ok());
    entries.into_iter().flatten().flatten().any(|entry| of(&entry.file_name().to_string_lossy()))
}

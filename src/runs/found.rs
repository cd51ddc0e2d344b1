//! The checkpoint files in a run's folder as they are found there: which of them are the run's own,
//! and the newest good one. Changes nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;

use pipe_fs::is_same_file;

use super::checkpoint::{Checkpoint, CheckpointError, Loaded};
use super::checkpoint_path::Name;
use super::{CheckpointPath, Metadata, Run};

/// The newest good checkpoint of a run, and the files that were passed over for it.
#[derive(Debug, Default)]
pub struct CheckpointScan {
    pub checkpoint: Option<Loaded>,
    /// Those that are damaged, each with what is wrong with it.
    pub passed_over: Vec<String>,
    /// Good ones of other runs.
    pub foreign: Vec<PathBuf>,
}

/// The checkpoint files under names of their own, in the order of their names. `best.ckpt` and
/// `last.ckpt` are further names of some of them.
pub fn checkpoint_files(run: &Run) -> Vec<(Name, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(run.checkpoints()) else { return Vec::new() };
    let named = |path: PathBuf| Some((Name::of_file(&path)?, path));
    let mut files: Vec<(Name, PathBuf)> =
        entries.flatten().filter_map(|e| named(e.path())).collect();
    files.sort();
    files
}

/// The newest checkpoint of a run whose content has its digest, under whichever name it stands.
pub(crate) fn newest_good(run: &Run, identity: &str) -> CheckpointScan {
    let mut found = CheckpointScan::default();
    let mut damaged: Vec<PathBuf> = Vec::new();
    let mut pass_over = |found: &mut CheckpointScan, path: PathBuf, error: CheckpointError| {
        // Another name of one that was told is no news.
        if !damaged.iter().any(|other| is_same_file(other, &path)) {
            found.passed_over.push(error.to_string());
        }
        damaged.push(path);
    };
    let mut opened: BTreeMap<(u64, u8, PathBuf), Checkpoint> = BTreeMap::new();
    let rank = |name: Name| if name.is_epoch() { 3 } else { 2 };
    let named =
        checkpoint_files(run).into_iter().map(|(name, path)| (Some(name), rank(name), path));
    for (name, rank, path) in named.chain([(None, 1, run.last()), (None, 0, run.best())]) {
        match Checkpoint::open(&path) {
            Ok(checkpoint) => {
                let header = checkpoint.header();
                if header.identity == identity && name.is_none_or(|name| name.fits(header)) {
                    opened.insert((header.global_step, rank, path), checkpoint);
                    continue;
                }
                // A flipped bit of a header makes no foreign checkpoint.
                match checkpoint.verify() {
                    Ok(()) => found.foreign.push(path),
                    Err(error) => pass_over(&mut found, path, error),
                }
            }
            Err(_) if !path.exists() => {}
            Err(error) => pass_over(&mut found, path, error),
        }
    }
    for ((.., path), checkpoint) in opened.into_iter().rev() {
        match checkpoint.load() {
            Ok(loaded) => {
                found.checkpoint = Some(loaded);
                break;
            }
            Err(error) => pass_over(&mut found, path, error),
        }
    }
    found
}

/// The most epochs that a checkpoint of the run has behind it which stands on disk, as far as its
/// size and its header tell; 0 if there is none.
pub(crate) fn epochs_on_disk(run: &Run, metadata: &Metadata) -> u64 {
    let stands = |path: &CheckpointPath, bytes: u64| {
        let path = run.folder.join(path);
        let length = |m: std::fs::Metadata| {
            if m.is_dir() { Checkpoint::open(&path).map_or(0, |c| c.bytes()) } else { m.len() }
        };
        std::fs::metadata(&path).is_ok_and(|m| length(m) == bytes)
    };
    let epochs = metadata.checkpoints.iter().map(|c| (c.epoch, &c.path, c.bytes));
    let partial = metadata.partial_checkpoint.iter().map(|p| (p.epoch, &p.path, p.bytes));
    let listed: Vec<_> = epochs.chain(partial).collect();
    let standing =
        listed.iter().filter(|(_, path, bytes)| stands(path, *bytes)).map(|(epoch, ..)| *epoch);
    let standing = standing.max().unwrap_or(0);
    if listed.iter().all(|(epoch, ..)| *epoch <= standing) {
        return standing;
    }
    // The file of the newest is gone: it can still stand under its other names.
    let linked = [run.last(), run.best()].into_iter().filter_map(|path| {
        let header = Checkpoint::open(&path).ok()?.header().clone();
        (header.identity == metadata.identity).then_some(header.epoch)
    });
    linked.chain([standing]).max().unwrap_or(0)
}

/// The epochs that a run has begun, the last one in part where a checkpoint inside it stands, as far
/// as names, sizes and headers tell. Files count that a crash kept out of the metadata.
pub(crate) fn begun_epochs(run: &Run, metadata: &Metadata) -> u64 {
    let begun = |(name, path): (Name, PathBuf)| match name {
        Name::Epoch(epoch) => Some(epoch),
        Name::Step(_) => {
            let file = Checkpoint::open(&path).ok()?;
            Some(file.header().epoch + u64::from(file.header().step_in_epoch > 0))
        }
    };
    let found = checkpoint_files(run).into_iter().filter_map(begun).max();
    let partial = metadata.partial_checkpoint.as_ref();
    let noted = partial.map(|p| p.epoch + u64::from(p.step_in_epoch > 0));
    epochs_on_disk(run, metadata).max(found.unwrap_or(0)).max(noted.unwrap_or(0))
}

//! The files that a stage makes of each checkpoint of a training: where they are, whose they are, and
//! which checkpoint they were made of.
//!
//! The places of a stage's files are the same for every run of the training, so what stands there may
//! have been made for another one. Two things tell: with what was found out about a checkpoint stands
//! the digest of the files that were made of it ([`CheckpointResult::files`]), and the stage's record
//! has the places that it writes to, from before the first byte ([`RunContext::note_place`]).
//!
//! [`CheckpointResult::files`]: pipe_runs::CheckpointResult::files

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use pipe_core::digest::hex;
use pipe_core::progress::Event;
use pipe_engine::kind::{RunContext, StageError};
use pipe_fs::{ProjectRoot, atomic, sha256_of};
use pipe_runs::{CheckpointRecord, CheckpointResults, Metadata};
use sha2::{Digest, Sha256};

/// Where a stage puts what it makes of each checkpoint. All paths are relative to the project.
pub trait EpochPlaces {
    /// The file or the folder for what is made of an epoch's checkpoint.
    fn place(&self, epoch: u64) -> PathBuf;

    /// The epoch that a file is of, by its path.
    fn epoch_of(&self, file: &Path) -> Option<u64>;

    /// The files of an epoch that are there, in order; none where one is missing.
    fn there(&self, root: &Path, epoch: u64) -> Vec<PathBuf>;

    /// All that the stage may have left in an epoch's place.
    fn left(&self, root: &Path, epoch: u64) -> Vec<PathBuf> {
        self.there(root, epoch)
    }
}

/// What the names of an epoch's files and folders have: `epoch_012`.
pub fn epoch_name(epoch: u64) -> String {
    format!("epoch_{epoch:03}")
}

/// The epoch of such a name.
pub fn epoch_in_name(name: &str) -> Option<u64> {
    let epoch = name.strip_prefix("epoch_")?.parse().ok()?;
    (epoch_name(epoch) == name).then_some(epoch)
}

/// The epoch of a file in a folder that has a folder of such a name for each.
pub fn epoch_below(folder: &Path, file: &Path) -> Option<u64> {
    epoch_in_name(file.strip_prefix(folder).ok()?.components().next()?.as_os_str().to_str()?)
}

/// Digest of files of an epoch: of their paths and contents. `files`: path and digest of each.
pub(crate) fn digest_of<'a>(files: impl IntoIterator<Item = (&'a Path, &'a str)>) -> String {
    let lines: BTreeSet<String> =
        files.into_iter().map(|(path, digest)| format!("{}={digest}\n", path.display())).collect();
    let mut hash = Sha256::new();
    for line in lines {
        hash.update(line);
    }
    format!("sha256:{}", hex(&hash.finalize()))
}

/// The same of files as they are on the disk. `None`: there are none, or one cannot be read.
pub(crate) fn digest_on_disk(root: &Path, files: &[PathBuf]) -> Option<String> {
    let digests = files.iter().map(|file| sha256_of(&root.join(file)).ok());
    let digests: Vec<String> = digests.collect::<Option<_>>()?;
    let all = files.iter().map(PathBuf::as_path).zip(digests.iter().map(String::as_str));
    (!files.is_empty()).then(|| digest_of(all))
}

/// Removes a file of a stage that is not its result any more, if it `is_own`: see
/// [`RunContext::is_own`]. One that is not as the stage left it stays, with a word.
///
/// # Errors
/// The disk's.
pub fn remove_if(is_own: bool, context: &RunContext, file: &Path) -> Result<(), StageError> {
    let path = context.root.join(file);
    if is_own {
        atomic::remove(context.root.disk(), &path)?;
    } else if path.exists() {
        let text = format!("{} is not as this stage left it, so it stays", file.display());
        context.event(Event::Warning { text });
    }
    Ok(())
}

/// The places that a stage writes to, and which files there are of the run at hand.
pub(crate) struct EpochFiles<'a> {
    root: ProjectRoot,
    pub places: &'a dyn EpochPlaces,
    /// The files of the run at hand, by epoch.
    pub files: BTreeMap<u64, Vec<PathBuf>>,
}

impl<'a> EpochFiles<'a> {
    pub fn of(context: &RunContext, places: &'a dyn EpochPlaces) -> Self {
        Self { root: context.root.clone(), places, files: BTreeMap::new() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Finds the files of a run, and forgets what was found out about checkpoints that stand and whose
    /// files are not there.
    pub fn compare(&mut self, results: &mut CheckpointResults, training: Option<&Metadata>) {
        let standing: &[CheckpointRecord] = training.map_or(&[], |m| m.checkpoints.as_slice());
        self.files.clear();
        results.checkpoints.retain(|seen| {
            let there = self.places.there(&self.root, seen.epoch);
            let digest = digest_on_disk(&self.root, &there);
            let is_its_own = digest.is_some() && digest == seen.files;
            let is_gone = standing.iter().all(|c| c.epoch != seen.epoch);
            // Nothing tells of what earlier versions made, and what is gone is not made again.
            if is_its_own || is_gone && seen.files.is_none() && digest.is_some() {
                self.files.insert(seen.epoch, there);
            }
            is_its_own || is_gone
        });
    }

    /// Removes what was made of other runs' checkpoints.
    pub fn remove_others(&self, context: &RunContext) -> Result<(), StageError> {
        let own = context.own_places();
        let epochs: BTreeSet<u64> = own.iter().filter_map(|p| self.places.epoch_of(p)).collect();
        for epoch in epochs {
            let kept: BTreeSet<&PathBuf> = self.files.get(&epoch).into_iter().flatten().collect();
            let left = self.places.left(&self.root, epoch);
            for file in left.iter().filter(|file| !kept.contains(file)) {
                remove_if(context.is_own(file), context, file)?;
            }
            self.remove_empty(&self.places.place(epoch))?;
        }
        Ok(())
    }

    /// Removes what was never finished in a place, and the folder if there is no other file in it.
    fn remove_empty(&self, place: &Path) -> Result<(), StageError> {
        let folder = self.root.join(place);
        atomic::remove_temporary_files_for(self.root.disk(), &folder);
        atomic::remove_temporary_files(self.root.disk(), &folder);
        if folder.is_dir() && !has_files(&folder) {
            atomic::remove_tree(self.root.disk(), &folder)?;
        }
        Ok(())
    }
}

/// Whether there is anything but folders in a folder, or what cannot be looked at.
fn has_files(folder: &Path) -> bool {
    let Ok(mut entries) = std::fs::read_dir(folder) else { return true };
    entries.any(|entry| match entry.and_then(|e| Ok((e.path(), e.file_type()?))) {
        Ok((path, of)) => !of.is_dir() || has_files(&path),
        Err(_) => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_read_from_the_names_that_are_given_to_it_alone() {
        for epoch in [0, 1, 12, 999, 1000, 123_456] {
            assert_eq!(epoch_in_name(&epoch_name(epoch)), Some(epoch));
        }
        for other in
            ["epoch_1", "epoch_0001", "epoch_", "epoch_+01", "epoch_001.png", "x_epoch_001"]
        {
            assert_eq!(epoch_in_name(other), None, "{other}");
        }
        let below = |file: &str| epoch_below(Path::new("a/b"), Path::new(file));
        assert_eq!(below("a/b/epoch_003/x/y.png"), Some(3));
        assert_eq!(below("a/b/metrics.json"), None);
        assert_eq!(below("a/epoch_003/y.png"), None);
    }

    #[test]
    fn files_count_by_what_they_are_and_not_by_their_order() {
        let (a, b) = ((Path::new("a"), "sha256:1"), (Path::new("b"), "sha256:2"));
        assert_eq!(digest_of([a, b]), digest_of([b, a]));
        let changed = [(a.0, b.1), (b.0, a.1)];
        assert_ne!(digest_of([a, b]), digest_of(changed), "their contents are exchanged");
        assert_ne!(digest_of([a, b]), digest_of([a]));
    }
}

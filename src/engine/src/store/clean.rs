//! What can go: runs that nothing needs, and what crashes left behind. Decides first and removes then, so that a person
//! can look at the decision.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::record::{Record, STATE_FOLDER};
use super::{Checkpoint, Metadata, Run, Runs, Status, StoreError, atomic, found};

/// Something on disk that can go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Garbage {
    pub path: PathBuf,
    pub why: String,
    /// Room that its removal frees: files with another name elsewhere do not count.
    pub bytes: u64,
}

/// What becomes of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    Goes { bytes: u64 },
    Stays { why: String },
}

/// Decides for every run whether it is among the `keep` newest of its stage, or needed: to be gone on with, or because
/// what came after it was made from one of its checkpoints.
pub fn fates(folders: &[Runs], records: &[Record], keep: usize) -> Vec<(Run, Fate)> {
    let runs: Vec<Run> = folders.iter().flat_map(|f| f.list().into_iter().rev()).collect();
    let known: Vec<Option<Metadata>> = runs.iter().map(|run| run.metadata().ok()).collect();
    let mut newest: BTreeMap<(PathBuf, &str, &str), usize> = BTreeMap::new();
    let mut fates = Vec::new();
    for (run, metadata) in runs.iter().zip(&known) {
        let stays = |why: String| Fate::Stays { why };
        let fate = match metadata {
            None => stays("its metadata cannot be read".into()),
            Some(m) => {
                let folder = run.folder.parent().unwrap_or(&run.folder).to_owned();
                let newer = newest.entry((folder, &m.pipeline, &m.stage)).or_default();
                *newer += 1;
                let place = *newer;
                if let Some(holder) = run.holder() {
                    stays(format!("{} trains in it", holder.0))
                } else if place <= keep {
                    stays(format!("one of the {keep} newest of {}", m.stage))
                } else if m.status != Status::Completed {
                    stays(format!("{}, so it can be gone on with", m.status.name()))
                } else if let Some(user) = user_of(run, m, records, runs.iter().zip(&known)) {
                    stays(format!("{user} was made from it"))
                } else {
                    Fate::Goes { bytes: freed(&run.folder) }
                }
            }
        };
        fates.push((run.clone(), fate));
    }
    fates
}

/// A stage or run that was made from a checkpoint of this run.
pub fn user_of<'a>(
    run: &Run,
    metadata: &Metadata,
    records: &[Record],
    others: impl Iterator<Item = (&'a Run, &'a Option<Metadata>)>,
) -> Option<String> {
    let checkpoints = metadata.checkpoints.iter().chain(&metadata.best_checkpoint);
    let digests: BTreeSet<&str> = checkpoints.map(|c| c.digest.as_str()).collect();
    let refers = |manifest: &BTreeMap<String, Value>| {
        manifest.values().any(|v| v.as_str().is_some_and(|text| digests.contains(text)))
    };
    let stage = records.iter().find(|r| r.made.as_ref().is_some_and(|made| refers(&made.manifest)));
    if let Some(record) = stage {
        return Some(format!("stage {} of {}", record.stage, record.pipeline));
    }
    let mut others = others.filter(|(other, _)| other.folder != run.folder);
    let started = |m: &Metadata| m.resumed_from.as_ref().is_some_and(|file| lies_in(file, run));
    let other = others.find(|(_, m)| m.as_ref().is_some_and(|m| refers(&m.manifest) || started(m)));
    other.map(|(other, _)| other.folder.display().to_string())
}

/// Whether a checkpoint that another run was started from is one of this run.
fn lies_in(file: &str, run: &Run) -> bool {
    let file: PathBuf = Path::new(file).components().filter(|c| *c != Component::CurDir).collect();
    let folder = file.parent().and_then(Path::parent);
    folder.is_some_and(|folder| !folder.as_os_str().is_empty() && run.folder.ends_with(folder))
}

/// Removes a run. Fails if a process trains in it.
pub fn remove_run(run: &Run) -> Result<(), StoreError> {
    let lock = run.lock()?;
    atomic::remove_tree(&run.folder)?;
    drop(lock);
    Ok(())
}

/// What crashes left under some folders of runs: half files, runs without content, checkpoints that no metadata lists.
/// Nothing of a run that a process trains in, and nothing that a resume could use.
pub fn garbage(folders: &[Runs]) -> Vec<Garbage> {
    let mut all = Vec::new();
    let mut add = |path: PathBuf, why: &str| {
        all.push(Garbage { bytes: freed(&path), path, why: why.to_owned() });
    };
    for folder in folders {
        for path in leftovers(folder.folder()) {
            add(path, "left by a crash while a run was removed");
        }
        for run in folder.list() {
            if run.holder().is_some() {
                continue;
            }
            for path in [&run.folder, &run.checkpoints()].into_iter().flat_map(|f| leftovers(f)) {
                add(path, "left by a crash while it was written");
            }
            let Ok(metadata) = run.metadata() else {
                if run.is_empty() {
                    add(run.folder.clone(), "a run that was never begun");
                }
                continue;
            };
            if metadata.status != Status::Completed {
                continue;
            }
            let listed: BTreeSet<PathBuf> = metadata
                .checkpoints
                .iter()
                .map(|c| &c.path)
                .chain(metadata.partial_checkpoint.iter().map(|p| &p.path))
                .map(|path| run.folder.join(path))
                .collect();
            let own = |path: &Path| {
                Checkpoint::open(path).is_ok_and(|file| file.header().identity == metadata.identity)
            };
            for (_, path) in found::checkpoint_files(&run) {
                if !listed.contains(&path) && own(&path) {
                    add(path, "a checkpoint that its run does not list");
                }
            }
        }
    }
    all
}

/// The project's cache: file digests and decoded images, which are made again when they are missed.
pub fn cache(root: &Path) -> Option<Garbage> {
    let path = root.join(STATE_FOLDER).join("cache");
    path.is_dir().then(|| Garbage { bytes: freed(&path), path, why: "made again when it is missed".into() })
}

/// Removes a piece of garbage.
pub fn remove(garbage: &Garbage) -> Result<(), StoreError> {
    match garbage.path.is_dir() {
        true => Ok(atomic::remove_tree(&garbage.path)?),
        false => Ok(atomic::remove(&garbage.path)?),
    }
}

fn leftovers(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let temporary =
        |path: &PathBuf| path.file_name().is_some_and(|n| atomic::is_temporary(&n.to_string_lossy()));
    let mut found: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(temporary).collect();
    found.sort();
    found
}

/// Bytes of the files under a path that have no other name outside it.
fn freed(path: &Path) -> u64 {
    let mut files: BTreeMap<(u64, u64), (u64, u64, u64)> = BTreeMap::new();
    count(path, &mut files);
    files.into_values().filter(|(_, names, found)| found >= names).map(|(bytes, ..)| bytes).sum()
}

/// Size, names, and names found so far, of each file.
fn count(path: &Path, files: &mut BTreeMap<(u64, u64), (u64, u64, u64)>) {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return };
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            count(&entry.path(), files);
        }
        return;
    }
    #[cfg(unix)]
    let (file, names) = {
        use std::os::unix::fs::MetadataExt;
        ((metadata.dev(), metadata.ino()), metadata.nlink())
    };
    #[cfg(not(unix))]
    let (file, names) = ((0, files.len() as u64), 1);
    files.entry(file).or_insert((metadata.len(), names, 0)).2 += 1;
}

//! What can go: runs that nothing needs, and what crashes left behind. Decides first and removes
//! then, so that a person can look at the decision.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use pipe_engine::state::{Record, record_files, record_lock};
use pipe_fs::{Disk, Lock, ProjectRoot, STATE_FOLDER, atomic};
use pipe_runs::{Belongings, Checkpoint, Metadata, Run, Runs, Status, StoreError};
use serde_json::Value;

use crate::removal::remove_any;
use crate::run_archive::IMPORT;

/// Something on disk that can go.
#[derive(Debug, Clone)]
pub struct Garbage {
    pub path: PathBuf,
    pub why: String,
    /// Room that its removal frees: files with another name elsewhere do not count.
    pub bytes: u64,
    owner: Option<Owner>,
}

/// Whose lock is taken before something is removed.
#[derive(Debug, Clone)]
enum Owner {
    Run(Run),
    /// The stage whose record this is.
    Record(PathBuf),
}

/// What becomes of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum PruneDecision {
    /// As long as its metadata is still this. What is `foreign` in its folder stays there.
    Goes {
        bytes: u64,
        metadata: Box<Metadata>,
        foreign: Vec<PathBuf>,
    },
    Stays {
        why: String,
    },
}

/// Decides for every run whether it is among the `keep` newest of its stage, or needed: to be gone
/// on with, because what came after it was made from one of its checkpoints, or because a stage was
/// last found done by it.
pub fn prune_decisions(
    folders: &[Runs],
    records: &[Record],
    keep: usize,
) -> Vec<(Run, PruneDecision)> {
    let runs: Vec<Run> = folders.iter().flat_map(|f| f.list().into_iter().rev()).collect();
    let known: Vec<Option<Metadata>> = runs.iter().map(|run| run.metadata().ok()).collect();
    let mut newest: BTreeMap<(PathBuf, &str, &str), usize> = BTreeMap::new();
    let mut decisions = Vec::new();
    for (run, metadata) in runs.iter().zip(&known) {
        let stays = |why: String| PruneDecision::Stays { why };
        let decision = match metadata {
            None if run.is_started() => stays("its metadata cannot be read".into()),
            None => stays("it has no metadata.json, so it is nobody's".into()),
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
                } else if let Some(stage) = stage_done_by(run, records) {
                    stays(format!("{stage} stands on it"))
                } else {
                    let Belongings { own, foreign } = Belongings::of(run);
                    let (bytes, metadata) = (freed_by(&own), Box::new(m.clone()));
                    PruneDecision::Goes { bytes, metadata, foreign }
                }
            }
        };
        decisions.push((run.clone(), decision));
    }
    decisions
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
    user_of_any(run, &digests, &|file| lies_in(file, run), records, others)
}

/// The stage whose record says that it stands on this run.
pub fn stage_done_by(run: &Run, records: &[Record]) -> Option<String> {
    let stands = |record: &&Record| record.run.as_ref().is_some_and(|at| is_at(&run.folder, at));
    let record = records.iter().find(stands)?;
    Some(format!("stage {} of {}", record.stage, record.pipeline))
}

/// Whether a folder is that of a path, which may be relative to the project.
fn is_at(folder: &Path, path: &Path) -> bool {
    let path: PathBuf = path.components().filter(|c| *c != Component::CurDir).collect();
    !path.as_os_str().is_empty() && folder.ends_with(path)
}

/// A stage or run that was made from a checkpoint of these digests, or started from one of these
/// files.
pub(crate) fn user_of_any<'a>(
    run: &Run,
    digests: &BTreeSet<&str>,
    is_one: &dyn Fn(&str) -> bool,
    records: &[Record],
    others: impl Iterator<Item = (&'a Run, &'a Option<Metadata>)>,
) -> Option<String> {
    let refers = |manifest: &BTreeMap<String, Value>| {
        manifest.values().any(|v| v.as_str().is_some_and(|text| digests.contains(text)))
    };
    let stage = records.iter().find(|r| r.made.as_ref().is_some_and(|made| refers(&made.manifest)));
    if let Some(record) = stage {
        return Some(format!("stage {} of {}", record.stage, record.pipeline));
    }
    let mut others = others.filter(|(other, _)| other.folder != run.folder);
    let started = |m: &Metadata| m.resumed_from.as_ref().is_some_and(|file| is_one(file));
    let other = others.find(|(_, m)| m.as_ref().is_some_and(|m| refers(&m.manifest) || started(m)));
    other.map(|(other, _)| other.folder.display().to_string())
}

/// Whether a checkpoint that another run was started from is one of this run.
pub(crate) fn lies_in(file: &str, run: &Run) -> bool {
    let folder = Path::new(file).parent().and_then(Path::parent);
    folder.is_some_and(|folder| is_at(&run.folder, folder))
}

/// What crashes left under some folders of runs: half files, runs without content, checkpoints that
/// no metadata lists. Nothing of a run that a process trains in, and nothing that a resume could
/// use.
pub fn garbage(folders: &[Runs]) -> Vec<Garbage> {
    let mut all = Vec::new();
    for folder in folders {
        let of_import = format!(".{IMPORT}.");
        all.extend(leftovers(folder.folder()).into_iter().map(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let done = if name.starts_with(&of_import) { "imported" } else { "removed" };
            let why = format!("left by a crash while a run was {done}");
            Garbage::new(path, &why, None)
        }));
        let free = folder.list().into_iter().filter(|run| run.holder().is_none());
        all.extend(free.flat_map(|run| garbage_of(&run)));
    }
    all
}

impl Garbage {
    fn new(path: PathBuf, why: &str, owner: Option<Owner>) -> Self {
        Self { bytes: freed(&path), path, why: why.to_owned(), owner }
    }
}

/// The same in the folder of one run, which nobody has.
fn garbage_of(run: &Run) -> Vec<Garbage> {
    let of_run = |path, why| Garbage::new(path, why, Some(Owner::Run(run.clone())));
    let folders = [run.folder.clone(), run.checkpoints()];
    let half = folders.iter().flat_map(|folder| leftovers(folder));
    let mut all: Vec<Garbage> =
        half.map(|path| of_run(path, "left by a crash while it was written")).collect();
    let unheard = run.requests().into_iter();
    all.extend(unheard.map(|path| of_run(path, "asked of a training that has ended")));
    let metadata = match run.metadata() {
        Ok(metadata) => metadata,
        Err(_) if run.is_empty() => {
            all.push(of_run(run.folder.clone(), "a run that was never begun"));
            return all;
        }
        Err(_) => return all,
    };
    if metadata.status != Status::Completed {
        return all;
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
    for (_, path) in pipe_runs::found::checkpoint_files(run) {
        if !listed.contains(&path) && own(&path) {
            all.push(of_run(path, "a checkpoint that its run does not list"));
        }
    }
    all
}

/// The project's cache: file digests and decoded images, which are made again when they are missed.
pub fn cache(root: &Path) -> Option<Garbage> {
    let path = root.join(STATE_FOLDER).join("cache");
    path.is_dir().then(|| Garbage::new(path, "made again when it is missed", None))
}

/// What crashes left beside the files that stages make: half files, and half copies of folders.
/// Nothing of a stage that somebody runs. Paths are relative to the project, and so is what they are
/// looked for by.
pub fn halves_of_outputs(root: &ProjectRoot) -> Vec<Garbage> {
    let mut found = BTreeMap::new();
    for record in record_files(root) {
        let is_free = Lock::holder(root.disk(), &record_lock(&record)).is_none();
        for path in halves_of(&record).into_iter().filter(|_| is_free) {
            found.entry(path).or_insert_with(|| record.clone());
        }
    }
    let why = "left by a crash while it was written";
    let piece = |(path, record)| Garbage::new(path, why, Some(Owner::Record(record)));
    found.into_iter().map(piece).collect()
}

/// The same of one stage.
fn halves_of(record: &Path) -> Vec<PathBuf> {
    let Ok(record) = Record::whole(record) else { return Vec::new() };
    let made = record.made.iter().flat_map(|made| made.all().map(|output| &output.path));
    atomic::halves_beside(made.chain(&record.places).map(Path::new))
}

/// Removes a piece of garbage: `false` if it is none any more. What belongs to a run or a stage is
/// looked at again under its lock.
pub fn remove(disk: &Disk, garbage: &Garbage) -> Result<bool, StoreError> {
    let _lock = match &garbage.owner {
        None => None,
        // Its own folder went with an earlier piece, or with another process.
        Some(Owner::Run(run)) if !run.folder.is_dir() => return Ok(false),
        Some(Owner::Run(run)) => match run.lock() {
            Err(StoreError::Held { .. }) => return Ok(false),
            taken => Some(taken?),
        },
        Some(Owner::Record(record)) => match Lock::take(disk, &record_lock(record))? {
            Err(_) => return Ok(false),
            Ok(lock) => Some(lock),
        },
    };
    let still = match &garbage.owner {
        None => true,
        Some(Owner::Run(run)) => {
            let same = |now: &Garbage| (&now.path, &now.why) == (&garbage.path, &garbage.why);
            garbage_of(run).iter().any(same)
        }
        Some(Owner::Record(record)) => halves_of(record).contains(&garbage.path),
    };
    if still {
        // Only a checkpoint has a header beside it.
        if garbage.path.extension().is_some_and(|extension| extension == "ckpt") {
            pipe_runs::checkpoint::remove(disk, &garbage.path)?
        } else {
            remove_any(disk, &garbage.path)?
        }
    }
    Ok(still)
}

fn leftovers(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let temporary = |path: &PathBuf| {
        path.file_name().is_some_and(|n| atomic::is_temporary(&n.to_string_lossy()))
    };
    let mut found: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(temporary).collect();
    found.sort();
    found
}

/// Whether a crash left a part of a run in a folder of runs: while one was removed or imported.
pub fn holds_half_a_run(folder: &Path) -> bool {
    leftovers(folder).iter().any(|path| path.is_dir())
}

/// Bytes of the files under a path that have no other name outside it.
pub(crate) fn freed(path: &Path) -> u64 {
    freed_by(&[path.to_owned()])
}

/// The same of several paths, outside of all of them.
fn freed_by(paths: &[PathBuf]) -> u64 {
    let mut files: BTreeMap<(u64, u64), (u64, u64, u64)> = BTreeMap::new();
    paths.iter().for_each(|path| count(path, &mut files));
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of runs with one that was never begun.
    fn empty_run() -> (tempfile::TempDir, Run) {
        let folder = tempfile::tempdir().unwrap();
        let run = Runs::at(&Disk::default(), folder.path()).create().unwrap();
        (folder, run)
    }

    #[test]
    fn what_is_no_garbage_any_more_stays() {
        let (folder, run) = empty_run();
        let [piece] = &garbage(&[Runs::at(&Disk::default(), folder.path())])[..] else { panic!() };
        let lock = run.lock().unwrap();
        assert!(!remove(run.disk(), piece).unwrap(), "somebody has it");
        drop(lock);
        std::fs::create_dir(run.checkpoints()).unwrap();
        std::fs::write(run.checkpoints().join("epoch_001.ckpt"), "x").unwrap();
        assert!(!remove(run.disk(), piece).unwrap(), "somebody used it");
        std::fs::remove_file(run.checkpoints().join("epoch_001.ckpt")).unwrap();
        assert!(remove(run.disk(), piece).unwrap() && !run.folder.exists());
        assert!(!remove(run.disk(), piece).unwrap(), "somebody else removed it");
    }

    #[test]
    fn files_of_a_person_are_no_garbage() {
        let (folder, run) = empty_run();
        for name in [".notes.tmp-backup", "results.csv"] {
            std::fs::write(run.folder.join(name), "a year of work").unwrap();
        }
        std::fs::write(run.folder.join(".x.tmp-1-1"), "half").unwrap();
        let found = garbage(&[Runs::at(&Disk::default(), folder.path())]);
        assert_eq!(
            found.iter().map(|g| g.path.clone()).collect::<Vec<_>>(),
            [run.folder.join(".x.tmp-1-1")]
        );
    }
}

//! Makes a project whole again: what is damaged is set aside under another name, so that the next
//! run makes it again. No content is removed, and nothing is touched that somebody holds.

use std::path::{Path, PathBuf};

use pipe_fs::aside::set_aside;
use pipe_fs::{Disk, FileError, Holder, Lock, atomic, copy, is_same_file};
use pipe_runs::found::checkpoint_files;
use pipe_runs::policy::CheckpointPolicy;
use pipe_runs::{CheckpointManager, Run, StoreError};

use crate::snapshots;
use crate::verify::{Damage, Owner};

/// What was done.
#[derive(Debug, Default)]
pub struct Repaired {
    /// Files and folders that have another name now: before and after.
    pub set_aside: Vec<(PathBuf, PathBuf)>,
    /// Runs whose list of checkpoints and links to them were made anew.
    pub put_in_order: Vec<PathBuf>,
    /// Files that are no further name of a run's file any more.
    pub separated: Vec<PathBuf>,
    /// What could not be done, each with the reason.
    pub failed: Vec<String>,
}

/// Repairs what [`verify`](super::verify::verify) found: `damaged`, and files that are `shared`
/// with a run.
pub fn repair(disk: &Disk, damaged: &[Damage], shared: &[Damage]) -> Repaired {
    let mut all = Repaired::default();
    for (owner, paths) in by_owner(damaged) {
        let done = match owner {
            Owner::Run(run) => all.run(run, &paths),
            Owner::Lock(lock) => held(disk, lock).and_then(|_lock| all.files(disk, &paths)),
        };
        all.note(done);
    }
    for (owner, paths) in by_owner(shared) {
        let lock = match owner {
            Owner::Run(run) => run.lock(),
            Owner::Lock(lock) => held(disk, lock),
        };
        let done = lock.and_then(|_lock| {
            for path in paths {
                copy::copy(disk, path, path)?;
                all.separated.push(path.to_owned());
            }
            Ok(())
        });
        all.note(done);
    }
    all
}

/// The paths of each owner, in order.
fn by_owner(damaged: &[Damage]) -> Vec<(&Owner, Vec<&Path>)> {
    let mut groups: Vec<(&Owner, Vec<&Path>)> = Vec::new();
    for damage in damaged {
        match groups.iter_mut().find(|(owner, _)| *owner == &damage.owner) {
            Some((_, paths)) => paths.push(&damage.path),
            None => groups.push((&damage.owner, vec![&damage.path])),
        }
    }
    groups
}

fn held(disk: &Disk, path: &Path) -> Result<Lock, StoreError> {
    path.parent().map_or(Ok(()), |above| atomic::create_folder(disk, above))?;
    let busy = |holder: Holder| FileError::Damaged {
        path: path.to_owned(),
        message: format!("{} has this lock; repair again when it has ended", holder.0),
    };
    Ok(Lock::take(disk, path)?.map_err(busy)?)
}

impl Repaired {
    fn note(&mut self, done: Result<(), StoreError>) {
        self.failed.extend(done.err().map(|error| error.to_string()));
    }

    fn files(&mut self, disk: &Disk, paths: &[&Path]) -> Result<(), StoreError> {
        for path in paths.iter().filter(|path| path.exists()) {
            let aside = set_aside(disk, path)?;
            self.set_aside.push((path.to_path_buf(), aside));
        }
        Ok(())
    }

    fn run(&mut self, run: &Run, paths: &[&Path]) -> Result<(), StoreError> {
        let lock = run.lock()?;
        let Ok(metadata) = run.metadata() else {
            // Nobody can go on with it, and its number is free again.
            return self.files(run.disk(), &[&run.folder]);
        };
        let before = self.set_aside.len();
        for path in paths.iter().filter(|path| snapshots::is_one(run, path) && !path.exists()) {
            // Each is of one moment of the training, which nothing brings back.
            self.failed.push(format!(
                "{} is not there; a store or a copy of the run may have it",
                path.display()
            ));
        }
        self.files(run.disk(), paths)?;
        // Further names of what was set aside.
        let names: Vec<PathBuf> = checkpoint_files(run).into_iter().map(|(_, path)| path).collect();
        for name in names.into_iter().chain([run.best(), run.last()]) {
            if self.set_aside[before..].iter().any(|(_, aside)| is_same_file(aside, &name)) {
                atomic::remove(run.disk(), &name)?;
            }
        }
        drop(lock);
        // It keeps all that it has: the next training prunes.
        let policy = serde_json::from_value(metadata.settings["checkpoint"].clone());
        let policy = CheckpointPolicy { keep_last_n: None, ..policy.unwrap_or_default() };
        CheckpointManager::reopen(run.clone(), policy)?;
        self.put_in_order.push(run.folder.clone());
        Ok(())
    }
}

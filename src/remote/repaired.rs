//! What a repair does to a folder that has a store. It takes damaged files away and puts their runs
//! in order, so that the folder is whole without the store. That is no step of a training: the
//! store's copies stay, and come back with the next pull.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use pipe_fs::{ProjectRoot, is_same_file};
use pipe_runs::is_run_file;

use crate::digest;
use crate::download::has_content;
use crate::error::RemoteError;
use crate::project::{file_stat, files_below, index_path};
use crate::sync_state::{SyncState, change_each, is_within};

/// A repair that is under way.
#[derive(Debug)]
pub struct RepairRecord {
    root: ProjectRoot,
    /// Folders of runs that had nothing, but for the damage, that the store does not have.
    stored: BTreeSet<String>,
}

impl RepairRecord {
    /// Notes that these files are about to be taken away, so that they go from no store. `runs` are
    /// the folders of runs that are put in order by that.
    pub fn begin<'a>(
        root: &ProjectRoot,
        damaged: &[&Path],
        runs: impl Iterator<Item = &'a Path>,
    ) -> Result<Self, RemoteError> {
        let relative = |path: &Path| index_path(path.strip_prefix(root).unwrap_or(path));
        let runs: BTreeSet<String> = runs.filter_map(relative).collect();
        let damage = Damage {
            paths: damaged.iter().filter_map(|path| relative(path)).collect(),
            files: damaged.iter().map(|path| root.join(path)).collect(),
        };
        let mut stored = BTreeSet::new();
        if damaged.is_empty() {
            return Ok(Self { root: root.to_owned(), stored });
        }
        change_each(root, |state| {
            stored.extend(runs.iter().filter(|run| damage.is_all(root, run, state)).cloned());
            let files = state.index.files.keys();
            let gone: Vec<String> = files.filter(|path| damage.has(root, path)).cloned().collect();
            let is_known = !gone.is_empty();
            state.repaired.extend(gone.into_iter().map(|path| (path, None)));
            is_known
        })?;
        Ok(Self { root: root.to_owned(), stored })
    }

    /// Notes what was written in the runs that were `put_in_order`.
    pub fn finish(self, put_in_order: &[PathBuf]) -> Result<(), RemoteError> {
        let Self { root, stored } = self;
        let done: Vec<String> = put_in_order
            .iter()
            .filter_map(|run| index_path(run.strip_prefix(&root).unwrap_or(run)))
            .filter(|run| stored.contains(run))
            .collect();
        if done.is_empty() {
            return Ok(());
        }
        change_each(&root, |state| {
            let SyncState { index, repaired, .. } = state;
            let of_run = |path: &str| done.iter().any(|run| is_within(path, run));
            for (path, entry) in index.files.iter().filter(|(path, _)| of_run(path)) {
                let file = root.join(path);
                match file_stat(&file) {
                    None => drop(repaired.insert(path.clone(), None)),
                    Some(stat) if has_content(&file, stat.bytes, stat.modified, entry) => {
                        repaired.remove(path);
                    }
                    Some(_) => drop(repaired.insert(path.clone(), digest_of(&file))),
                }
            }
            index.files.keys().any(|path| of_run(path))
        })
    }
}

/// Whether a file has the content with this SHA-256.
pub(crate) fn holds(file: &Path, sha256: &str) -> bool {
    digest_of(file).is_some_and(|found| found == sha256)
}

fn digest_of(path: &Path) -> Option<String> {
    let file = File::open(path).ok()?;
    let bytes = file.metadata().ok()?.len();
    digest::of_file(&file, bytes).ok()
}

/// The files that are damaged.
struct Damage {
    /// As an index has them.
    paths: Vec<String>,
    files: Vec<PathBuf>,
}

impl Damage {
    /// Whether a file is damaged, lies in a damaged folder, or is another name of a damaged file.
    fn has(&self, root: &Path, path: &str) -> bool {
        let file = root.join(path);
        self.paths.iter().any(|damaged| is_within(path, damaged))
            || self.files.iter().any(|damaged| is_same_file(damaged, &file))
    }

    /// Whether a run has nothing else that the store does not have. Its metadata changes with all
    /// that it does; where they are damaged, each of its files is looked at.
    fn is_all(&self, root: &Path, run: &str, state: &SyncState) -> bool {
        let stands = |path: &str| {
            let file = root.join(path);
            let entry = state.index.files.get(path);
            entry
                .zip(file_stat(&file))
                .is_some_and(|(entry, stat)| has_content(&file, stat.bytes, stat.modified, entry))
        };
        let metadata = format!("{run}/metadata.json");
        if !state.index.files.contains_key(&metadata) {
            return false;
        }
        if !self.has(root, &metadata) {
            return stands(&metadata);
        }
        let folder = root.join(run);
        let files = files_below(&folder);
        let inside = files.iter().filter_map(|file| index_path(file.strip_prefix(&folder).ok()?));
        inside.filter(|file| is_run_file(file)).all(|file| {
            let path = format!("{run}/{file}");
            self.has(root, &path) || stands(&path)
        })
    }
}

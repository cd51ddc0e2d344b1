//! What a folder remembers of its store, `.pipe/store/PIPELINE.json`: the index that was last the
//! same here and there. All processes of one folder share it; who changes the store has its lock.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pipe_core::names;
use pipe_core::names::plain_name;
use pipe_fs::{Lock, ProjectRoot, STATE_FOLDER, atomic, checksummed_json};
use serde::{Deserialize, Serialize};

use crate::error::RemoteError;
use crate::index::Index;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SyncState {
    /// The store, as in the pipeline file.
    pub url: String,
    pub index: Index,
    /// `index` was about to be put in the place of the one with this mark; what came of it was not
    /// noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<String>,
    /// One that was about to be fetched: files of the folder may be as it says already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetching: Option<Index>,
    /// Files and folders that were removed on purpose, and not yet in the store.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
    /// Files that a repair took away, or wrote in the place of what was lost: with the SHA-256 of
    /// what it wrote. The store has them as they were.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub repaired: BTreeMap<String, Option<String>>,
}

impl SyncState {
    pub fn new(url: &str, index: Index) -> Self {
        Self {
            url: url.to_owned(),
            index,
            instead_of: None,
            fetching: None,
            removed: Vec::new(),
            repaired: BTreeMap::new(),
        }
    }

    /// What is known of this store; nothing if the file is missing, damaged, or of another store.
    pub fn load(root: &Path, pipeline: &str, url: &str) -> Option<Self> {
        let mut path = path(root, pipeline);
        if !path.exists() {
            // Where earlier versions had it.
            path = beside(root, &plain_name(pipeline));
        }
        let bytes = std::fs::read(&path).ok()?;
        match checksummed_json::from_bytes::<Self>(&bytes) {
            Ok(state) => (state.url == url && state.index.pipeline == pipeline).then_some(state),
            Err(why) => {
                checksummed_json::warn_once(
                    &path,
                    &format!("what was last in the store is not known: {why}"),
                );
                None
            }
        }
    }

    pub fn save(&self, root: &ProjectRoot) -> Result<(), RemoteError> {
        let path = path(root, &self.index.pipeline);
        atomic::create_folder(root.disk(), path.parent().unwrap_or(root))?;
        let text = checksummed_json::to_text(self);
        Ok(atomic::write(root.disk(), &path, |out| out.write_all(text.as_bytes()))?)
    }

    /// Whether a file was removed on purpose.
    pub fn was_removed(&self, path: &str) -> bool {
        self.removed.iter().any(|gone| is_within(path, gone))
    }

    /// Whether a repair took a file away, or wrote another one in its place.
    pub fn was_repaired(&self, path: &str) -> bool {
        self.repaired.contains_key(path)
    }
}

/// Whether a path is this one or inside it.
pub(crate) fn is_within(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn path(root: &Path, pipeline: &str) -> PathBuf {
    beside(root, &names::of_pipeline(pipeline))
}

fn beside(root: &Path, name: &str) -> PathBuf {
    root.join(STATE_FOLDER).join("store").join(name).with_added_extension("json")
}

/// Lets one process of the folder at a time change the store.
pub(crate) fn lock(
    root: &ProjectRoot,
    pipeline: &str,
    patience: Duration,
) -> Result<Lock, RemoteError> {
    let path = path(root, pipeline).with_extension("lock");
    atomic::create_folder(root.disk(), path.parent().unwrap_or(root))?;
    let began = Instant::now();
    loop {
        match Lock::take(root.disk(), &path)? {
            Ok(lock) => {
                atomic::remove_temporary_files_for(root.disk(), &self::path(root, pipeline));
                return Ok(lock);
            }
            Err(holder) if began.elapsed() > patience => {
                let text = format!("{}: held by {} for long", path.display(), holder.0);
                return Err(RemoteError::new(crate::error::RemoteErrorKind::Transient, text));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Notes that a file or folder of a project was removed on purpose, so that it is removed from the
/// stores too and does not come back from there.
pub fn record_removal(root: &ProjectRoot, removed: &Path) -> Result<(), RemoteError> {
    let Some(removed) = removed.strip_prefix(root).unwrap_or(removed).to_str() else {
        return Ok(());
    };
    change_each(root, |state| {
        let is_known = state.index.files.keys().any(|path| is_within(path, removed));
        if is_known {
            state.removed.push(removed.to_owned());
        }
        is_known
    })
}

/// Changes what the folder remembers of each store, where `change` says that it did.
pub(crate) fn change_each(
    root: &ProjectRoot,
    mut change: impl FnMut(&mut SyncState) -> bool,
) -> Result<(), RemoteError> {
    let entries =
        std::fs::read_dir(root.join(STATE_FOLDER).join("store")).into_iter().flatten().flatten();
    for path in entries.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "json")) {
        let read = || checksummed_json::from_bytes::<SyncState>(&std::fs::read(&path).ok()?).ok();
        let Some(pipeline) = read().map(|state| state.index.pipeline) else { continue };
        let _lock = lock(root, &pipeline, Duration::from_secs(10))?;
        if let Some(mut state) = read()
            && change(&mut state)
        {
            state.save(root)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_removed_is_forgotten_where_it_was_known() {
        let folder = tempfile::tempdir().unwrap();
        let root = &ProjectRoot::from(folder.path());
        let entry = crate::index::Entry {
            sha256: "a".into(),
            bytes: 1,
            modified: 1,
            nonce: String::new(),
            object: None,
        };
        let files = [("runs/run_001/metadata.json".to_owned(), entry)].into();
        SyncState::new("file:///x", Index::empty("p").next(files)).save(root).unwrap();
        SyncState::new("file:///x", Index::empty("q")).save(root).unwrap();
        record_removal(root, &root.join("runs/run_001")).unwrap();
        let load = |pipeline, url| SyncState::load(root, pipeline, url);
        let state = load("p", "file:///x").unwrap();
        assert!(
            state.was_removed("runs/run_001/metadata.json") && !state.was_removed("runs/run_0010")
        );
        assert!(load("q", "file:///x").unwrap().removed.is_empty());
        assert_eq!(load("p", "file:///y"), None, "another store");
    }
}

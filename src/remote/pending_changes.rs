//! What has changed in the folder since the last push. Only the last change of a name is kept, so
//! that a slow store makes this no longer than the list of all files.

use std::collections::BTreeMap;

use crate::snapshot::Snapshot;
use crate::sync_state::is_within;

#[derive(Debug)]
pub(crate) enum Change {
    Upload(Snapshot),
    /// The file was removed, or the folder with everything in it.
    Delete,
}

/// A change with its path, and its number in the order of changes.
pub(crate) type NumberedChange = (u64, String, Change);

#[derive(Debug, Default)]
pub(crate) struct PendingChanges {
    by_path: BTreeMap<String, (u64, Change)>,
    next: u64,
}

impl PendingChanges {
    pub fn record(&mut self, path: String, change: Change) {
        if let Change::Delete = change {
            self.by_path.retain(|other, _| !is_within(other, &path));
        }
        self.by_path.insert(path, (self.next, change));
        self.next += 1;
    }

    pub fn is_empty(&self) -> bool {
        self.by_path.is_empty()
    }

    /// Number of files that are to be pushed, and their bytes.
    pub fn pending(&self) -> (usize, u64) {
        let bytes = self.by_path.values().map(|(_, change)| {
            if let Change::Upload(snapshot) = change { snapshot.bytes } else { 0 }
        });
        (self.by_path.len(), bytes.sum())
    }

    /// Takes out all changes, in the order in which they were made.
    pub fn take(&mut self) -> Vec<NumberedChange> {
        let all = std::mem::take(&mut self.by_path);
        let mut all: Vec<NumberedChange> =
            all.into_iter().map(|(path, (number, change))| (number, path, change)).collect();
        all.sort_by_key(|(number, ..)| *number);
        all
    }

    /// Puts changes back whose push failed, unless the same file has changed again.
    pub fn restore(&mut self, all: Vec<NumberedChange>) {
        for (number, path, change) in all {
            let superseded = self.by_path.contains_key(&path)
                || self.by_path.iter().any(|(newer, (_, change))| {
                    matches!(change, Change::Delete) && is_within(&path, newer)
                });
            if !superseded {
                self.by_path.insert(path, (number, change));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload(folder: &std::path::Path) -> Change {
        Change::Upload(Snapshot::of(&folder.join("f")).unwrap())
    }

    fn shown(all: &[NumberedChange]) -> Vec<String> {
        let word = |change: &Change| if matches!(change, Change::Upload(_)) { '+' } else { '-' };
        all.iter().map(|(_, path, change)| format!("{}{path}", word(change))).collect()
    }

    #[test]
    fn the_last_change_of_a_name_counts_in_the_order_of_all() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("f"), "x").unwrap();
        let upload = || upload(folder.path());
        let mut changes = PendingChanges::default();
        changes.record("run/b".into(), upload());
        changes.record("a".into(), upload());
        changes.record("run/b".into(), upload());
        assert_eq!(changes.pending(), (2, 2));
        let first = changes.take();
        assert_eq!(shown(&first), ["+a", "+run/b"]);
        changes.record("run".into(), Change::Delete);
        changes.record("c".into(), upload());
        changes.restore(first);
        assert_eq!(shown(&changes.take()), ["+a", "-run", "+c"]);
        assert!(changes.is_empty());
    }
}

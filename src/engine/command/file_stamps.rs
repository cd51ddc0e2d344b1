//! Files of a stage beside what its record says of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use pipe_core::failure::StageError;
use serde_json::Value;

use super::files::{Files, Found, digested};
use crate::identity::{Difference, differences};
use crate::state::{Output, Outputs};

/// Files as they are now, beside what a record says of them.
pub(super) struct Seen {
    pub files: Vec<Output>,
    /// Paths that the record could not know: it does not look behind links.
    unseen: BTreeSet<PathBuf>,
}

impl Seen {
    pub fn of(
        files: &Files,
        found: Vec<Found>,
        made: &Outputs,
        known: &[Output],
    ) -> Result<Self, StageError> {
        let hidden = found.iter().filter(|file| file.linked && !made.follows_links);
        let unseen = hidden.map(|file| file.path.clone()).collect();
        Ok(Self { files: digested(files.root, files.formats, found, known)?, unseen })
    }

    /// What is different from a record. `is_left_out`: whether a path that is not among the files
    /// is no matter any more.
    pub fn changes(
        &self,
        recorded: &[Output],
        is_left_out: impl Fn(&Path) -> bool,
    ) -> Vec<Difference> {
        let mut changes = file_changes(recorded, &self.files);
        changes.retain(|change| {
            let path = Path::new(&change.key);
            match (&change.old, &change.new) {
                (None, Some(_)) => !self.unseen.contains(path),
                (Some(_), None) => !is_left_out(path),
                _ => true,
            }
        });
        changes
    }
}

fn file_changes(old: &[Output], new: &[Output]) -> Vec<Difference> {
    let digests = |of: &[Output]| -> BTreeMap<String, Value> {
        of.iter().map(|o| (o.path.clone(), Value::String(o.digest.clone()))).collect()
    };
    differences(&digests(old), &digests(new))
}

//! What people say of a run: a note and tags, in `labels.json` beside `metadata.json`, which
//! belongs to the process that trains.

use std::collections::BTreeSet;
use std::io;

use pipe_fs::atomic;
use serde::{Deserialize, Serialize};

use super::Run;

/// Beside a run's metadata.
const FILE: &str = "labels.json";

/// Note and tags of a run.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Labels {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    pub tags: BTreeSet<String>,
}

impl Labels {
    /// Those of a run; none if there is no file.
    ///
    /// # Errors
    /// The file cannot be read, or is not what is written there; the message names it.
    pub fn load(run: &Run) -> io::Result<Self> {
        let path = run.folder.join(FILE);
        let wrong =
            |e: &dyn std::fmt::Display| io::Error::other(format!("{}: {e}", path.display()));
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|e| wrong(&e)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(wrong(&e)),
        }
    }

    /// Writes them in the place of the old ones.
    pub fn save(&self, run: &Run) -> Result<(), atomic::WriteError> {
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        atomic::write(&run.folder.join(FILE), |out| writeln!(out, "{text}"))
    }

    /// Whether nobody said anything of the run.
    pub fn is_empty(&self) -> bool {
        self.note.is_none() && self.tags.is_empty()
    }

    /// `tagged good keep, noted "lower learning rate"`
    pub fn in_words(&self) -> String {
        let tags = (!self.tags.is_empty()).then(|| format!("tagged {}", self.shown_tags()));
        let note = self.note.as_ref().map(|note| format!("noted {note:?}"));
        tags.into_iter().chain(note).collect::<Vec<_>>().join(", ")
    }

    /// The tags with a space between them.
    pub fn shown_tags(&self) -> String {
        self.tags.iter().cloned().collect::<Vec<_>>().join(" ")
    }
}

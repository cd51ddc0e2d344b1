//! What people say of a run: a note and tags, in `labels.json` beside `metadata.json`, which
//! belongs to the process that trains.

use std::collections::BTreeSet;

use pipe_engine::store::{Run, atomic};
use serde::{Deserialize, Serialize};

use crate::cli::{CliError, ExitCode};
use crate::say;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Labels {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    pub tags: BTreeSet<String>,
}

impl Labels {
    /// Those of a run; none if there is no file.
    pub fn load(run: &Run) -> Result<Self, CliError> {
        let path = run.folder.join(FILE);
        let wrong =
            |e: &dyn std::fmt::Display| CliError::failed(format!("{}: {e}", path.display()));
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|e| wrong(&e)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(wrong(&e)),
        }
    }

    fn save(&self, run: &Run) -> Result<(), CliError> {
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        atomic::write(&run.folder.join(FILE), |out| writeln!(out, "{text}"))
            .map_err(CliError::failed)
    }

    pub fn is_empty(&self) -> bool {
        self.note.is_none() && self.tags.is_empty()
    }

    /// `tagged good keep, noted "lower learning rate"`
    pub fn in_words(&self) -> String {
        let tags = (!self.tags.is_empty()).then(|| format!("tagged {}", self.shown_tags()));
        let note = self.note.as_ref().map(|note| format!("noted {note:?}"));
        tags.into_iter().chain(note).collect::<Vec<_>>().join(", ")
    }

    pub fn shown_tags(&self) -> String {
        self.tags.iter().cloned().collect::<Vec<_>>().join(" ")
    }
}

const FILE: &str = "labels.json";

/// Writes a note in the place of the old one; no text removes it.
pub fn note(run: &Run, text: Option<String>) -> Result<ExitCode, CliError> {
    let mut labels = Labels::load(run)?;
    labels.note = text.filter(|text| !text.trim().is_empty());
    labels.save(run)?;
    match &labels.note {
        Some(note) => say!("run {}: {note}", run.number),
        None => say!("run {} has no note now", run.number),
    }
    Ok(ExitCode::SUCCESS)
}

/// Adds tags, or takes them off.
pub fn tag(run: &Run, tags: Vec<String>, remove: bool) -> Result<ExitCode, CliError> {
    if let Some(wrong) = tags.iter().find(|tag| tag.is_empty() || tag.contains(char::is_whitespace))
    {
        return Err(CliError::usage(format!("a tag is one word, found {wrong:?}")));
    }
    let mut labels = Labels::load(run)?;
    for tag in tags {
        match remove {
            true => drop(labels.tags.remove(&tag)),
            false => drop(labels.tags.insert(tag)),
        }
    }
    labels.save(run)?;
    let shown = if labels.tags.is_empty() { "no tags".to_owned() } else { labels.shown_tags() };
    say!("run {}: {shown}", run.number);
    Ok(ExitCode::SUCCESS)
}

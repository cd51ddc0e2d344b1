//! Records: what a stage last made, and from what. One JSON file a stage, in `.pipe/records/PIPELINE/STAGE.json`, so that
//! a stage that keeps no numbered runs knows whether its files are its own and up to date.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::StoreError;
use super::atomic::{self, WriteError};
use super::checkpoint::file_digest;
use crate::kind::{RunContext, StageId};

/// Folder of all that the engine keeps about a project.
pub const STATE_FOLDER: &str = ".pipe";

/// What a stage last made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub schema_version: u32,
    pub pipeline: String,
    pub stage: String,
    pub identity: String,
    /// What the identity was made of, by key.
    pub manifest: BTreeMap<String, Value>,
    pub written_at: DateTime<Utc>,
    pub outputs: Vec<Output>,
    /// Digests of earlier outputs that may still stand in their place: the record is written before the files are.
    #[serde(default)]
    pub replaced: Vec<String>,
}

/// A file that a stage made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// Relative to the project.
    pub path: String,
    /// `sha256:…` of the file.
    pub digest: String,
    pub bytes: u64,
    /// When the file was last changed, in nanoseconds since 1970; 0 if that is not known yet.
    #[serde(default)]
    pub modified: u64,
}

impl Record {
    /// The record of a stage that is running. `replaced`: see the field.
    pub fn of(context: &RunContext, outputs: Vec<Output>, replaced: Vec<String>) -> Self {
        Self {
            schema_version: 1,
            pipeline: context.pipeline.clone(),
            stage: context.stage.to_string(),
            identity: context.identity.clone(),
            manifest: context.manifest.clone(),
            written_at: Utc::now(),
            outputs,
            replaced,
        }
    }

    /// The record of a stage; `None` if there is none that can be read.
    pub fn load(root: &Path, pipeline: &str, stage: &StageId) -> Option<Self> {
        let text = std::fs::read_to_string(path(root, pipeline, stage)).ok()?;
        let record: Self = serde_json::from_str(&text).ok()?;
        (record.pipeline == pipeline).then_some(record)
    }

    pub fn save(&self, root: &Path, stage: &StageId) -> Result<(), WriteError> {
        let path = path(root, &self.pipeline, stage);
        atomic::create_folder(path.parent().unwrap_or(root))?;
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        atomic::write(&path, |out| writeln!(out, "{text}"))
    }

    /// Whether a file is one that the stage has made: this output or the one that it replaces.
    pub fn made(&self, digest: &str) -> bool {
        self.outputs.iter().any(|o| o.digest == digest) || self.replaced.iter().any(|d| d == digest)
    }
}

impl Output {
    /// The file as it is on disk now.
    pub fn of(root: &Path, path: &str) -> Result<Self, StoreError> {
        let file = root.join(path);
        let digest = file_digest(&file).map_err(StoreError::reading(&file))?;
        let metadata = std::fs::metadata(&file).map_err(StoreError::reading(&file))?;
        Ok(Self { path: path.to_owned(), digest, bytes: metadata.len(), modified: modified(&metadata) })
    }

    /// Whether the file still has its content. It is read again only if its size or time changed.
    pub fn stands(&self, root: &Path) -> bool {
        let file = root.join(&self.path);
        let Ok(metadata) = std::fs::metadata(&file) else { return false };
        if metadata.len() != self.bytes {
            return false;
        }
        self.modified == modified(&metadata) || file_digest(&file).is_ok_and(|digest| digest == self.digest)
    }
}

fn modified(metadata: &std::fs::Metadata) -> u64 {
    let time = metadata.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
    time.and_then(|t| u64::try_from(t.as_nanos()).ok()).unwrap_or(0)
}

/// A pipeline's name can hold characters that a file's name should not.
fn path(root: &Path, pipeline: &str, stage: &StageId) -> PathBuf {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '_' };
    let folder: String = pipeline.chars().map(safe).collect();
    root.join(STATE_FOLDER).join("records").join(folder).join(format!("{stage}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(pipeline: &str, outputs: Vec<Output>) -> Record {
        Record {
            schema_version: 1,
            pipeline: pipeline.into(),
            stage: "best".into(),
            identity: "sha256:1".into(),
            manifest: BTreeMap::new(),
            written_at: Utc::now(),
            outputs,
            replaced: vec!["sha256:old".into()],
        }
    }

    #[test]
    fn a_record_comes_back_for_its_pipeline_alone() {
        let folder = tempfile::tempdir().unwrap();
        let stage = StageId::new("best").unwrap();
        let record = record("a b", Vec::new());
        record.save(folder.path(), &stage).unwrap();
        assert_eq!(Record::load(folder.path(), "a b", &stage), Some(record.clone()));
        assert_eq!(Record::load(folder.path(), "a/b", &stage), None, "another name with the same file");
        assert!(record.made("sha256:old") && !record.made("sha256:other"));
    }

    #[test]
    fn an_output_stands_until_its_content_changes() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("f"), "one").unwrap();
        let output = Output::of(folder.path(), "f").unwrap();
        assert!(output.stands(folder.path()));
        let touched = Output { modified: 1, ..output.clone() };
        assert!(touched.stands(folder.path()), "another time, the same content");
        std::fs::write(folder.path().join("f"), "two").unwrap();
        assert!(!touched.stands(folder.path()));
        std::fs::remove_file(folder.path().join("f")).unwrap();
        assert!(!output.stands(folder.path()));
    }
}

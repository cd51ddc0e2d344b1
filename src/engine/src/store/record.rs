//! What the engine remembers of each stage: how it was last left, and what it made. One JSON file a stage,
//! `.pipe/records/PIPELINE/STAGE.json`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::atomic::{self, WriteError};
use super::checkpoint::{file_digest, file_digest_like};
use super::{Holder, JobId, Lock, Status, StoreError, checked, traffic};
use crate::kind::{Failure, StageId};
use crate::policy::Change;

/// Folder of all that the engine keeps about a project.
pub const STATE_FOLDER: &str = ".pipe";

/// Version of the file's form.
const SCHEMA_VERSION: u32 = 2;

/// What is remembered of a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub schema_version: u32,
    pub pipeline: String,
    pub stage: String,
    pub kind: String,
    /// How it was last left. `running` with nobody holding its lock: its process ended without a word.
    pub status: Status,
    /// What was last done: the plan's word for it and the reason.
    pub action: String,
    pub reason: String,
    pub started_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    /// The line of the summary, or what went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The command that one would type next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Attempts that failed since it was last begun.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// How often the micro-batch was halved for want of memory. A stage that is gone on with starts with that: with the
    /// same pieces it gives the same bits.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub halvings: u32,
    /// The cluster's job that carried it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// What it last made, for stages that keep no numbered runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Made>,
}

/// How far a training is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub epoch: u64,
    pub epochs: u64,
}

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    pub ended_at: DateTime<Utc>,
    pub failure: Failure,
    pub message: String,
    /// What is different in the next one; none followed if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
}

/// The files that a stage made, and what decided them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Made {
    pub identity: String,
    /// What the identity was made of, by key.
    pub manifest: BTreeMap<String, Value>,
    pub written_at: DateTime<Utc>,
    pub outputs: Vec<Output>,
    /// Files that were read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Output>,
    /// Digests of earlier outputs that may still stand in their place: this is written before the files are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
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
    /// The record of a stage that begins now.
    pub fn begun(
        pipeline: &str,
        stage: &StageId,
        kind: &str,
        action: String,
        reason: String,
        made: Option<Made>,
    ) -> Self {
        let now = Utc::now();
        Self {
            schema_version: SCHEMA_VERSION,
            pipeline: pipeline.to_owned(),
            stage: stage.to_string(),
            kind: kind.to_owned(),
            status: Status::Running,
            action,
            reason,
            started_at: now,
            updated_at: now,
            message: None,
            next: None,
            progress: None,
            attempts: Vec::new(),
            halvings: 0,
            job: None,
            made,
        }
    }

    /// The record of a stage; `None` if there is none that can be read.
    pub fn load(root: &Path, pipeline: &str, stage: &StageId) -> Option<Self> {
        let path = path(root, pipeline, stage);
        let record = Self::read(&path)?;
        (record.pipeline == pipeline && record.schema_version == SCHEMA_VERSION).then_some(record)
    }

    fn read(path: &Path) -> Option<Self> {
        let damaged = |why| checked::warn_once(path, &format!("the stage counts as never run: {why}"));
        let bytes = std::fs::read(path);
        traffic::read(bytes.as_ref().map_or(0, Vec::len));
        checked::from_bytes(&bytes.ok()?).map_err(damaged).ok()
    }

    /// Every record of a project that can be read.
    pub fn all(root: &Path) -> Vec<Self> {
        let folders =
            std::fs::read_dir(root.join(STATE_FOLDER).join("records")).into_iter().flatten().flatten();
        let files = folders.flat_map(|f| std::fs::read_dir(f.path()).into_iter().flatten().flatten());
        let mut paths: Vec<PathBuf> = files.map(|f| f.path()).collect();
        paths.sort();
        paths.iter().filter_map(|path| Self::read(path)).collect()
    }

    pub fn save(&self, root: &Path, stage: &StageId) -> Result<(), WriteError> {
        let path = path(root, &self.pipeline, stage);
        atomic::create_folder(path.parent().unwrap_or(root))?;
        let text = checked::to_text(self);
        atomic::write(&path, |out| out.write_all(text.as_bytes()))
    }
}

/// Takes a stage for this process, or says who has it.
pub fn lock_stage(root: &Path, pipeline: &str, stage: &StageId) -> Result<Result<Lock, Holder>, StoreError> {
    let path = lock_path(root, pipeline, stage);
    atomic::create_folder(path.parent().unwrap_or(root))?;
    Lock::take(&path)
}

/// Removes what writers of a pipeline's records left when they died.
pub(crate) fn sweep(root: &Path, pipeline: &str) {
    let records = folder(root, "records", pipeline);
    atomic::sweep_if(&records, |name| !record_is_held(root, pipeline, name));
}

/// Whether somebody has the stage whose record is called so: records are written by whoever has the stage.
pub fn record_is_held(root: &Path, pipeline: &str, file_name: &str) -> bool {
    let stage = file_name.strip_suffix(".json").unwrap_or(file_name);
    let lock = folder(root, "locks", pipeline).join(stage).with_added_extension("lock");
    Lock::holder(&lock).is_some()
}

/// Who runs a stage now, if anybody.
pub fn stage_holder(root: &Path, pipeline: &str, stage: &StageId) -> Option<Holder> {
    Lock::holder(&lock_path(root, pipeline, stage))
}

impl Output {
    /// The file as it is on disk now.
    pub fn of(root: &Path, path: &str) -> Result<Self, StoreError> {
        Self::read(root, path, file_digest)
    }

    /// The same, with a digest to be compared with `known`.
    pub fn like(root: &Path, path: &str, known: &str) -> Result<Self, StoreError> {
        Self::read(root, path, |file| file_digest_like(file, known))
    }

    fn read(
        root: &Path,
        path: &str,
        digest: impl FnOnce(&Path) -> io::Result<String>,
    ) -> Result<Self, StoreError> {
        let file = root.join(path);
        let digest = digest(&file).map_err(StoreError::reading(&file))?;
        let metadata = std::fs::metadata(&file).map_err(StoreError::reading(&file))?;
        Ok(Self { path: path.to_owned(), digest, bytes: metadata.len(), modified: modified(&metadata) })
    }

    /// The file as it is on disk now, `metadata`; read only if its size or time changed.
    pub fn again(&self, root: &Path, metadata: &std::fs::Metadata) -> Result<Self, StoreError> {
        match metadata.len() == self.bytes && modified(metadata) == self.modified {
            true => Ok(self.clone()),
            false => Self::like(root, &self.path, &self.digest),
        }
    }

    /// Whether the file still has its content. It is read again only if its size or time changed.
    pub fn stands(&self, root: &Path) -> bool {
        let Ok(metadata) = std::fs::metadata(root.join(&self.path)) else { return false };
        metadata.len() == self.bytes && self.again(root, &metadata).is_ok_and(|now| now.digest == self.digest)
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// When a file was last changed, in nanoseconds since 1970.
pub fn modified(metadata: &std::fs::Metadata) -> u64 {
    let time = metadata.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
    time.and_then(|t| u64::try_from(t.as_nanos()).ok()).unwrap_or(0)
}

fn path(root: &Path, pipeline: &str, stage: &StageId) -> PathBuf {
    place(root, "records", pipeline, stage).with_added_extension("json")
}

fn lock_path(root: &Path, pipeline: &str, stage: &StageId) -> PathBuf {
    place(root, "locks", pipeline, stage).with_added_extension("lock")
}

fn place(root: &Path, what: &str, pipeline: &str, stage: &StageId) -> PathBuf {
    folder(root, what, pipeline).join(stage.as_str())
}

/// Where the records of a pipeline's stages are.
pub fn records_folder(root: &Path, pipeline: &str) -> PathBuf {
    folder(root, "records", pipeline)
}

/// A pipeline's name in characters that a file's name can hold; two names can come out the same.
pub fn plain_name(pipeline: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '_' };
    pipeline.chars().map(safe).collect()
}

pub(super) fn folder(root: &Path, what: &str, pipeline: &str) -> PathBuf {
    root.join(STATE_FOLDER).join(what).join(plain_name(pipeline))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_for_its_pipeline_alone() {
        let folder = tempfile::tempdir().unwrap();
        let stage = StageId::new("best").unwrap().member("seed=1");
        let made = Made {
            identity: "sha256:1".into(),
            manifest: BTreeMap::new(),
            written_at: Utc::now(),
            outputs: Vec::new(),
            inputs: Vec::new(),
            replaced: vec!["sha256:old".into()],
        };
        let record = Record::begun("a b", &stage, "copy_best", "run".into(), String::new(), Some(made));
        record.save(folder.path(), &stage).unwrap();
        assert_eq!(Record::load(folder.path(), "a b", &stage), Some(record.clone()));
        assert_eq!(Record::load(folder.path(), "a/b", &stage), None, "another name with the same file");
    }

    #[test]
    fn a_stage_is_held_by_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let (root, stage) = (folder.path(), StageId::new("base").unwrap());
        assert_eq!(stage_holder(root, "p", &stage), None);
        let lock = lock_stage(root, "p", &stage).unwrap().unwrap();
        let holder = lock_stage(root, "p", &stage).unwrap().unwrap_err();
        assert!(holder.0.starts_with(&format!("pid {}", std::process::id())), "{holder:?}");
        assert_eq!(stage_holder(root, "p", &stage), Some(holder));
        lock_stage(root, "other", &stage).unwrap().unwrap();
        drop(lock);
        assert_eq!(stage_holder(root, "p", &stage), None);
        lock_stage(root, "p", &stage).unwrap().unwrap();
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

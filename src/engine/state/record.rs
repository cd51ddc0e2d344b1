//! What the engine remembers of each stage: how it was last left, and what it made. One JSON file a
//! stage, `.pipe/records/PIPELINE/STAGE.json`.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use pipe_core::Status;
use pipe_core::failure::Failure;
use pipe_core::ids::StageId;
use pipe_core::{names, secret};
use pipe_fs::atomic::WriteError;
use pipe_fs::{
    FileError, Holder, Lock, STATE_FOLDER, Stamp, atomic, bounded_read, checksummed_json,
    io_counters, sync,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::file_formats::FileFormats;
use crate::policy::RetryChange;
use crate::reference::is_inside_project;
use crate::state::JobId;

/// Version of the file's form.
const SCHEMA_VERSION: u32 = 2;

/// What is remembered of a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub schema_version: u32,
    pub pipeline: String,
    pub stage: String,
    pub kind: String,
    /// How it was last left. `running` with nobody holding its lock: its process ended without a
    /// word.
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
    /// How good what that is about came out: see
    /// [`NextCommand::score`](crate::artifact::NextCommand).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "merit")]
    pub score: Option<f64>,
    /// Folder of its numbered runs, relative to the project; unset for stages that keep none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Attempts that failed since it was last begun.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// How often the micro-batch was halved for want of memory. A stage that is gone on with starts
    /// with that: with the same micro-batches it gives the same bits.
    #[serde(default, rename = "halvings", skip_serializing_if = "is_zero")]
    pub micro_batch_splits: u32,
    /// The cluster's job that carried it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// What it last made, for stages that keep no numbered runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Outputs>,
    /// Files that stood in the place of its outputs when it was begun, as long as it has not ended
    /// well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<OutputBaseline>,
}

/// Files that stood in the place of a stage's outputs before it ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutputBaseline {
    /// Digest of the settings and inputs for which it ran: for others, what an attempt left is as
    /// old as the rest.
    pub run: String,
    /// By path, relative to the project.
    pub files: BTreeMap<String, Stamp>,
}

/// How far a stage is that goes on in rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Rounds that were done.
    #[serde(rename = "epoch")]
    pub position: u64,
    /// Rounds in all.
    #[serde(rename = "epochs")]
    pub target: u64,
}

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    pub ended_at: DateTime<Utc>,
    pub failure: Failure,
    pub message: String,
    /// What is different in the next one; none followed if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<RetryChange>,
}

/// The files that a stage made, and what decided them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outputs {
    pub identity: String,
    /// What the identity was made of, by key.
    pub manifest: BTreeMap<String, Value>,
    pub written_at: DateTime<Utc>,
    pub outputs: Vec<Output>,
    /// Files that were read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Output>,
    /// Digests of earlier outputs that may still stand in their place: this is written before the
    /// files are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaced: Vec<String>,
    /// Files behind links to folders are among the inputs; earlier versions did not look there.
    #[serde(default, skip_serializing_if = "is_false")]
    pub follows_links: bool,
}

/// A file that a stage made or read.
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
    /// [`Stamp::changed`]; 0 where the file's times did not tell yet whether it is still the same,
    /// and in records of earlier versions. Such a file is read again.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub changed: u64,
    /// [`Stamp::inode`]
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub inode: u64,
}

impl Record {
    /// The record of a stage that begins now.
    pub fn begun(
        pipeline: &str,
        stage: &StageId,
        kind: &str,
        action: String,
        reason: String,
        made: Option<Outputs>,
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
            score: None,
            runs: None,
            progress: None,
            attempts: Vec::new(),
            micro_batch_splits: 0,
            job: None,
            made,
            before: None,
        }
    }

    /// The record of a stage; `None` if there is none that can be read.
    pub fn load(root: &Path, pipeline: &str, stage: &StageId) -> Option<Self> {
        let is_of = |record: &Self| {
            record.pipeline == pipeline
                && record.stage == stage.as_str()
                && record.schema_version == SCHEMA_VERSION
        };
        let now = path(root, pipeline, stage);
        Self::read(&now).filter(is_of).or_else(|| {
            let then = former_path(root, pipeline, stage);
            if then == now { None } else { Self::read(&then).filter(is_of) }
        })
    }

    fn read(path: &Path) -> Option<Self> {
        let damaged = |why| {
            checksummed_json::warn_once(path, &format!("the stage counts as never run: {why}"))
        };
        let bytes = bounded_read::read(path, bounded_read::RECORD);
        io_counters::read(bytes.as_ref().map_or(0, Vec::len));
        // One of an earlier version may hold secrets.
        let record = checksummed_json::from_bytes(&bytes.ok()?).and_then(Self::of_its_project);
        Some(record.map_err(damaged).ok()?.told())
    }

    /// Every record of a project that can be read: the newest where an earlier version had a
    /// stage's under another name.
    pub fn all(root: &Path) -> Vec<Self> {
        let mut found: Vec<Self> =
            record_files(root).iter().filter_map(|path| Self::read(path)).collect();
        let mut newest: HashMap<(String, String), DateTime<Utc>> = HashMap::new();
        for record in &found {
            let of_stage =
                newest.entry((record.pipeline.clone(), record.stage.clone())).or_default();
            *of_stage = record.updated_at.max(*of_stage);
        }
        found.retain(|record| {
            let of_stage = (record.pipeline.clone(), record.stage.clone());
            newest.get(&of_stage) == Some(&record.updated_at)
        });
        found
    }

    /// The record in a file, or what is wrong with it.
    pub fn whole(path: &Path) -> Result<Self, String> {
        let bytes = bounded_read::read(path, bounded_read::RECORD).map_err(|e| e.to_string())?;
        checksummed_json::from_bytes(&bytes).and_then(Self::of_its_project)
    }

    /// Refuses a record that speaks of files outside of its project: what it names is read, and set
    /// aside by a repair.
    fn of_its_project(self) -> Result<Self, String> {
        let made = self.made.iter().flat_map(|made| made.outputs.iter().chain(&made.inputs));
        let before = self.before.iter().flat_map(|before| before.files.keys());
        let outside = made
            .map(|output| &output.path)
            .chain(before)
            .find(|path| !is_inside_project(Path::new(path)));
        match outside {
            Some(path) => Err(format!("it speaks of {path:?}, which is outside of the project")),
            None => Ok(self),
        }
    }

    pub fn save(&self, root: &Path, stage: &StageId) -> Result<(), WriteError> {
        let path = path(root, &self.pipeline, stage);
        atomic::create_folder(path.parent().unwrap_or(root))?;
        let text = checksummed_json::to_text(&self.clone().told());
        atomic::write(&path, |out| out.write_all(text.as_bytes()))
    }

    /// The record as it is kept and shown: without secrets in its messages, which are not too long.
    fn told(mut self) -> Self {
        let told = |text: &mut String| *text = secret::told(text);
        told(&mut self.reason);
        self.message.as_mut().map(told);
        self.next.as_mut().map(told);
        let (count, kept) = (self.attempts.len(), ATTEMPTS / 2);
        for (number, attempt) in self.attempts.iter_mut().enumerate() {
            told(&mut attempt.message);
            if number >= kept && number + kept < count {
                attempt.message.clear();
            } else if attempt.message.len() > ATTEMPT {
                attempt.message.truncate(attempt.message.floor_char_boundary(ATTEMPT));
                attempt.message.push('…');
            }
        }
        if let Some(made) = &mut self.made {
            made.manifest.values_mut().for_each(pipe_core::fingerprint::seal);
        }
        self
    }
}

/// Attempts whose messages are kept: the first and the last ones. Bytes of each.
const ATTEMPTS: usize = 40;
const ATTEMPT: usize = 16 << 10;

/// The files of a project's records, in order.
pub fn record_files(root: &Path) -> Vec<PathBuf> {
    let folders =
        std::fs::read_dir(root.join(STATE_FOLDER).join("records")).into_iter().flatten().flatten();
    let files = folders.flat_map(|f| std::fs::read_dir(f.path()).into_iter().flatten().flatten());
    let named = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json");
    let mut paths: Vec<PathBuf> = files.map(|f| f.path()).filter(named).collect();
    paths.sort();
    paths
}

/// Takes a stage for this process, or says who has it.
pub fn lock_stage(
    root: &Path,
    pipeline: &str,
    stage: &StageId,
) -> Result<Result<Lock, Holder>, FileError> {
    let path = lock_path(root, pipeline, stage);
    atomic::create_folder(path.parent().unwrap_or(root))?;
    Ok(Lock::take(&path)?)
}

/// Waits until what is written gets a later time than `time`, in nanoseconds since 1970. For
/// whoever has the stage: what a crash leaves of it goes with its half records.
pub(crate) fn wait_past(
    root: &Path,
    pipeline: &str,
    stage: &StageId,
    time: u64,
) -> Result<(), WriteError> {
    let path = path(root, pipeline, stage);
    atomic::create_folder(path.parent().unwrap_or(root))?;
    atomic::wait_past(&path, time)
}

/// Puts in order what writers of a pipeline's records left when they died: removes half files, and
/// has the disk know the names of whole ones.
pub(crate) fn remove_temporary_records(root: &Path, pipeline: &str) -> Result<(), WriteError> {
    let records = folder(root, "records", pipeline);
    atomic::remove_temporary_files_if(&records, |name| !record_is_held(root, pipeline, name));
    if records.is_dir() { sync::names(&records) } else { Ok(()) }
}

/// Whether somebody has the stage whose record is called so: records are written by whoever has the
/// stage.
pub fn record_is_held(root: &Path, pipeline: &str, file_name: &str) -> bool {
    let stage = file_name.strip_suffix(".json").unwrap_or(file_name);
    let lock = folder(root, "locks", pipeline).join(stage).with_added_extension("lock");
    Lock::holder(&lock).is_some()
}

/// The lock of the stage whose record is in this file.
pub fn record_lock(record: &Path) -> PathBuf {
    let folder = record.parent().and_then(Path::file_name).unwrap_or_default();
    let state = record.ancestors().nth(3).unwrap_or(Path::new(STATE_FOLDER));
    let stage = record.file_stem().unwrap_or_default();
    state.join("locks").join(folder).join(stage).with_added_extension("lock")
}

/// Who runs a stage now, if anybody.
pub fn stage_holder(root: &Path, pipeline: &str, stage: &StageId) -> Option<Holder> {
    Lock::holder(&lock_path(root, pipeline, stage))
}

impl Output {
    /// A file that is about to be written.
    pub fn expected(path: &str, digest: &str, bytes: u64) -> Self {
        let (path, digest) = (path.to_owned(), digest.to_owned());
        Self { path, digest, bytes, modified: 0, changed: 0, inode: 0 }
    }

    /// The file as it is on disk now. Where its digest is to be compared with a `known` one, it is
    /// of the same form.
    pub(crate) fn of(
        root: &Path,
        path: &str,
        known: Option<&str>,
        formats: &dyn FileFormats,
    ) -> Result<Self, FileError> {
        let file = root.join(path);
        let look = || std::fs::metadata(&file).map(|metadata| Stamp::of(&metadata));
        let begun = SystemTime::now();
        let before = look().map_err(FileError::reading(&file))?;
        let digest = formats.digest(&file, known).map_err(FileError::reading(&file))?;
        let stamp = look().map_err(FileError::reading(&file))?;
        let told = stamp == before && stamp.tells(begun);
        let (changed, inode) = if told { (stamp.changed, stamp.inode) } else { (0, 0) };
        Ok(Self {
            path: path.to_owned(),
            digest,
            bytes: stamp.bytes,
            modified: stamp.modified,
            changed,
            inode,
        })
    }

    /// The file as it is on disk now, `metadata`; read only if it may be another one.
    pub(crate) fn restamped(
        &self,
        root: &Path,
        metadata: &std::fs::Metadata,
        formats: &dyn FileFormats,
    ) -> Result<Self, FileError> {
        let Self { bytes, modified, changed, inode, .. } = *self;
        if changed != 0 && Stamp::of(metadata) == (Stamp { bytes, modified, changed, inode }) {
            Ok(self.clone())
        } else {
            Self::of(root, &self.path, Some(&self.digest), formats)
        }
    }

    /// The file as it is on disk now, if it still has its content. It is read again only if it may
    /// be another one.
    pub(crate) fn if_unchanged(&self, root: &Path, formats: &dyn FileFormats) -> Option<Self> {
        let metadata = std::fs::metadata(root.join(&self.path)).ok()?;
        let again = || self.restamped(root, &metadata, formats).ok();
        (metadata.len() == self.bytes).then(again).flatten().filter(|now| now.digest == self.digest)
    }
}

fn is_nothing(number: &u64) -> bool {
    *number == 0
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn path(root: &Path, pipeline: &str, stage: &StageId) -> PathBuf {
    place(root, "records", pipeline, stage).with_added_extension("json")
}

fn lock_path(root: &Path, pipeline: &str, stage: &StageId) -> PathBuf {
    place(root, "locks", pipeline, stage).with_added_extension("lock")
}

fn place(root: &Path, what: &str, pipeline: &str, stage: &StageId) -> PathBuf {
    folder(root, what, pipeline).join(names::of_stage(stage))
}

/// Where earlier versions had a stage's record.
fn former_path(root: &Path, pipeline: &str, stage: &StageId) -> PathBuf {
    former_records_folder(root, pipeline).join(stage.as_str()).with_added_extension("json")
}

/// Where the records of a pipeline's stages are.
pub fn records_folder(root: &Path, pipeline: &str) -> PathBuf {
    folder(root, "records", pipeline)
}

/// Where earlier versions had them: for most names the same.
pub fn former_records_folder(root: &Path, pipeline: &str) -> PathBuf {
    root.join(STATE_FOLDER).join("records").join(names::plain_name(pipeline))
}

pub(super) fn folder(root: &Path, what: &str, pipeline: &str) -> PathBuf {
    root.join(STATE_FOLDER).join(what).join(names::of_pipeline(pipeline))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file_formats::PlainFiles;

    #[test]
    fn a_record_comes_back_for_its_pipeline_alone() {
        let folder = tempfile::tempdir().unwrap();
        let stage = StageId::new("best").unwrap().member("seed=1");
        let made = Outputs {
            identity: "sha256:1".into(),
            manifest: BTreeMap::new(),
            written_at: Utc::now(),
            outputs: Vec::new(),
            inputs: Vec::new(),
            replaced: vec!["sha256:old".into()],
            follows_links: false,
        };
        let record =
            Record::begun("a b", &stage, "copy_best", "run".into(), String::new(), Some(made));
        record.save(folder.path(), &stage).unwrap();
        assert_eq!(Record::load(folder.path(), "a b", &stage), Some(record.clone()));
        assert_eq!(Record::load(folder.path(), "a/b", &stage), None, "another pipeline");
    }

    #[test]
    fn a_record_is_found_where_earlier_versions_had_it() {
        let folder = tempfile::tempdir().unwrap();
        let (root, stage) = (folder.path(), StageId::new("best").unwrap());
        let record = Record::begun("模型", &stage, "train", "run".into(), String::new(), None);
        let then = former_path(root, "模型", &stage);
        assert_eq!(then, root.join(".pipe/records/__/best.json"));
        atomic::create_folder(then.parent().unwrap()).unwrap();
        std::fs::write(&then, checksummed_json::to_text(&record)).unwrap();
        assert_eq!(Record::load(root, "模型", &stage), Some(record.clone()));
        assert_eq!(Record::load(root, "数据", &stage), None);
        let other = Record { pipeline: "数据".into(), ..record.clone() };
        other.save(root, &stage).unwrap();
        record.save(root, &stage).unwrap();
        assert_eq!(Record::load(root, "数据", &stage), Some(other), "each has a file of its own");
        assert_eq!(Record::load(root, "模型", &stage), Some(record.clone()));
        let later = Record { updated_at: Utc::now(), ..record };
        later.save(root, &stage).unwrap();
        let all = Record::all(root);
        assert_eq!(
            (all.len(), all.contains(&later)),
            (2, true),
            "the old one stands for nothing: {all:?}"
        );
    }

    #[test]
    fn a_record_speaks_of_files_of_its_project_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (root, stage) = (folder.path(), StageId::new("best").unwrap());
        let with = |output: &str, input: &str, before: &str| {
            let made = Outputs {
                identity: "sha256:1".into(),
                manifest: BTreeMap::new(),
                written_at: Utc::now(),
                outputs: vec![Output::expected(output, "sha256:2", 1)],
                inputs: vec![Output::expected(input, "sha256:3", 1)],
                replaced: Vec::new(),
                follows_links: true,
            };
            let stamp = Stamp { bytes: 1, modified: 1, changed: 1, inode: 1 };
            let before =
                OutputBaseline { run: String::new(), files: [(before.to_owned(), stamp)].into() };
            let record =
                Record::begun("p", &stage, "command", "run".into(), String::new(), Some(made));
            let record = Record { before: Some(before), ..record };
            record.save(root, &stage).unwrap();
            let whole = Record::whole(&path(root, "p", &stage));
            assert_eq!(Record::load(root, "p", &stage).is_some(), whole.is_ok());
            whole.err()
        };
        assert_eq!(with("a", "./b/c", "d e"), None);
        for out in ["/etc/passwd", "../a", "a/../../b", ""] {
            for error in [with(out, "b", "c"), with("a", out, "c"), with("a", "b", out)] {
                assert!(error.unwrap().contains("outside of the project"), "{out}");
            }
        }
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
        let output = Output::of(folder.path(), "f", None, &PlainFiles).unwrap();
        let is_unchanged =
            |output: &Output| output.if_unchanged(folder.path(), &PlainFiles).is_some();
        assert!(is_unchanged(&output));
        let touched = Output { modified: 1, ..output.clone() };
        assert!(is_unchanged(&touched), "another time, the same content");
        let old = serde_json::json!({"path": "f", "digest": output.digest, "bytes": 3, "modified": output.modified});
        let old: Output = serde_json::from_value(old).unwrap();
        assert!(is_unchanged(&old), "a record of an earlier version");
        std::fs::write(folder.path().join("f"), "two").unwrap();
        assert!(!is_unchanged(&touched));
        std::fs::remove_file(folder.path().join("f")).unwrap();
        assert!(!is_unchanged(&output));
    }
}

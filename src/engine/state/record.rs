//! What the engine remembers of each stage: how it was last left, and what it made. One JSON file a
//! stage, `.pipe/records/PIPELINE/STAGE.json`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use pipe_core::Status;
use pipe_core::failure::Failure;
use pipe_core::ids::StageId;
use pipe_core::secret;
use pipe_fs::atomic::WriteError;
use pipe_fs::{
    Disk, FileError, Holder, Lock, ProjectRoot, STATE_FOLDER, Stamp, atomic, bounded_read,
    checksummed_json, sync,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::policy::RetryChange;
use crate::reference::is_inside_project;
use crate::state::JobId;
use crate::state::output::Output;
use crate::state::record_paths::{folder, former_path, lock_path, path};

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
    /// The folder of the run that it made last, or was found done by since, relative to the project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// How far it was to be carried when it was last begun, where that was not its whole length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
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
    /// Where it has put files since it last ended well, relative to the project: what stands there is
    /// its own, though it is not among what it made.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub places: BTreeSet<String>,
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
    /// Files that it made before in other places, and that were there when it last ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<Output>,
}

impl Outputs {
    /// All files that the stage made, now and before.
    pub fn all(&self) -> impl Iterator<Item = &Output> {
        self.outputs.iter().chain(&self.former)
    }
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
            run: None,
            progress: None,
            until: None,
            attempts: Vec::new(),
            micro_batch_splits: 0,
            job: None,
            made,
            before: None,
            places: BTreeSet::new(),
        }
    }

    /// The record of a stage; `None` if there is none that can be read.
    pub fn load(root: &ProjectRoot, pipeline: &str, stage: &StageId) -> Option<Self> {
        let is_of = |record: &Self| {
            record.pipeline == pipeline
                && record.stage == stage.as_str()
                && record.schema_version == SCHEMA_VERSION
        };
        let now = path(root, pipeline, stage);
        Self::read(root.disk(), &now).filter(is_of).or_else(|| {
            let then = former_path(root, pipeline, stage);
            if then == now { None } else { Self::read(root.disk(), &then).filter(is_of) }
        })
    }

    pub(super) fn read(disk: &Disk, path: &Path) -> Option<Self> {
        let damaged = |why| {
            checksummed_json::warn_once(path, &format!("the stage counts as never run: {why}"))
        };
        let bytes = bounded_read::read(path, bounded_read::RECORD);
        disk.count_read(bytes.as_ref().map_or(0, Vec::len));
        // One of an earlier version may hold secrets.
        let record = checksummed_json::from_bytes(&bytes.ok()?).and_then(Self::of_its_project);
        Some(record.map_err(damaged).ok()?.told())
    }

    /// Every record of a project that can be read: the newest where an earlier version had a
    /// stage's under another name.
    pub fn all(root: &ProjectRoot) -> Vec<Self> {
        let mut found: Vec<Self> =
            record_files(root).iter().filter_map(|path| Self::read(root.disk(), path)).collect();
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
        let made = self.made.iter().flat_map(|made| made.all().chain(&made.inputs));
        let before = self.before.iter().flat_map(|before| before.files.keys());
        let outside = made
            .map(|output| &output.path)
            .chain(before)
            .chain(&self.places)
            .find(|path| !is_inside_project(Path::new(path)));
        match outside {
            Some(path) => Err(format!("it speaks of {path:?}, which is outside of the project")),
            None => Ok(self),
        }
    }

    pub fn save(&self, root: &ProjectRoot, stage: &StageId) -> Result<(), WriteError> {
        let path = path(root, &self.pipeline, stage);
        atomic::create_folder(root.disk(), path.parent().unwrap_or(root))?;
        let text = checksummed_json::to_text(&self.clone().told());
        atomic::write(root.disk(), &path, |out| out.write_all(text.as_bytes()))
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
    let mut paths: Vec<PathBuf> = folders.flat_map(|f| json_files(&f.path())).collect();
    paths.sort();
    paths
}

pub(super) fn json_files(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|f| f.path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "json")).collect()
}

/// Takes a stage for this process, or says who has it.
pub fn lock_stage(
    root: &ProjectRoot,
    pipeline: &str,
    stage: &StageId,
) -> Result<Result<Lock, Holder>, FileError> {
    let path = lock_path(root, pipeline, stage);
    atomic::create_folder(root.disk(), path.parent().unwrap_or(root))?;
    Ok(Lock::take(root.disk(), &path)?)
}

/// Waits until what is written gets a later time than `time`, in nanoseconds since 1970. For
/// whoever has the stage: what a crash leaves of it goes with its half records.
pub(crate) fn wait_past(
    root: &ProjectRoot,
    pipeline: &str,
    stage: &StageId,
    time: u64,
) -> Result<(), WriteError> {
    let path = path(root, pipeline, stage);
    atomic::create_folder(root.disk(), path.parent().unwrap_or(root))?;
    atomic::wait_past(root.disk(), &path, time)
}

/// Puts in order what writers of a pipeline's records left when they died: removes half files, and
/// has the disk know the names of whole ones.
pub(crate) fn remove_temporary_records(
    root: &ProjectRoot,
    pipeline: &str,
) -> Result<(), WriteError> {
    let records = folder(root, "records", pipeline);
    atomic::remove_temporary_files_if(root.disk(), &records, |name| {
        !record_is_held(root, pipeline, name)
    });
    if records.is_dir() { sync::names(root.disk(), &records) } else { Ok(()) }
}

/// Whether somebody has the stage whose record is called so: records are written by whoever has the
/// stage.
pub fn record_is_held(root: &ProjectRoot, pipeline: &str, file_name: &str) -> bool {
    let stage = file_name.strip_suffix(".json").unwrap_or(file_name);
    let lock = folder(root, "locks", pipeline).join(stage).with_added_extension("lock");
    Lock::holder(root.disk(), &lock).is_some()
}

/// The lock of the stage whose record is in this file.
pub fn record_lock(record: &Path) -> PathBuf {
    let folder = record.parent().and_then(Path::file_name).unwrap_or_default();
    let state = record.ancestors().nth(3).unwrap_or(Path::new(STATE_FOLDER));
    let stage = record.file_stem().unwrap_or_default();
    state.join("locks").join(folder).join(stage).with_added_extension("lock")
}

/// Who runs a stage now, if anybody.
pub fn stage_holder(root: &ProjectRoot, pipeline: &str, stage: &StageId) -> Option<Holder> {
    Lock::holder(root.disk(), &lock_path(root, pipeline, stage))
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;

//! What stages find out about a run's checkpoints while it is trained: one file for each such stage,
//! in the folder `each_checkpoint` of the run. The stage alone writes it; the training reads it.
//!
//! A checkpoint that one of them has yet to look at stays, whatever the policy says. Metrics are
//! joined to those of the training when metadata are read, as `quality.fid` for the metric `fid` of
//! the stage `quality`. Metrics with a `/` in their names are details, and stay in the file.
//!
//! A stage of another pipeline may look at a run that it takes over: it has a file of its own, and
//! what it finds out is not joined.

use std::collections::BTreeMap;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use pipe_core::ids::StageId;
use pipe_core::names;
use pipe_fs::{atomic, bounded_read, checksummed_json};
use serde::{Deserialize, Serialize};

use super::{CheckpointRecord, Metadata, Run, StoreError};

/// The folder of these files, in that of the run.
pub(crate) const FOLDER: &str = "each_checkpoint";

/// What a stage found out about the checkpoints of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointResults {
    /// The pipeline of the stage.
    pub pipeline: String,
    /// The stage whose results they are.
    pub stage: StageId,
    /// What stands before the `.` in the names of its metrics.
    pub name: String,
    /// Digest of all that decides a result, apart from the checkpoint.
    pub identity: String,
    /// Those that it has looked at, oldest first.
    pub checkpoints: Vec<CheckpointResult>,
}

/// What a stage found out about one checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointResult {
    pub epoch: u64,
    /// Of the checkpoint's file.
    pub digest: String,
    /// By name; none where the stage makes other things than numbers.
    pub metrics: BTreeMap<String, f64>,
    /// Digest of the files that were made of it, by which they are told from those of another run in
    /// their place. `None` in results of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<String>,
    pub made_at: DateTime<Utc>,
}

/// The metrics that stand for themselves. Those with a `/` in their names are details of others.
pub fn main_metrics(all: &BTreeMap<String, f64>) -> impl Iterator<Item = (&String, &f64)> {
    all.iter().filter(|(name, _)| !name.contains('/'))
}

impl CheckpointResults {
    /// Of a stage that has looked at none yet.
    pub fn new(pipeline: &str, stage: &StageId, name: &str, identity: &str) -> Self {
        Self {
            pipeline: pipeline.to_owned(),
            stage: stage.clone(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            checkpoints: Vec::new(),
        }
    }

    /// The results of a stage, if it has any. A damaged file counts as none: the stage looks again.
    pub fn load(run: &Run, pipeline: &str, stage: &StageId) -> Option<Self> {
        Self::read(run, path(run, pipeline, stage))
    }

    /// Those of all stages, whose pipelines they are of.
    pub fn all(run: &Run) -> Vec<Self> {
        let entries = std::fs::read_dir(run.folder.join(FOLDER)).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|e| e == "json"));
        paths.sort();
        paths.into_iter().filter_map(|path| Self::read(run, path)).collect()
    }

    fn read(run: &Run, path: PathBuf) -> Option<Self> {
        let bytes = match bounded_read::read(&path, bounded_read::RECORD) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => {
                checksummed_json::warn_once(&path, &format!("not read: {error}"));
                return None;
            }
        };
        let read: Result<Self, String> = checksummed_json::from_bytes(&bytes);
        let whole = read.and_then(|results| {
            let is_own = self::path(run, &results.pipeline, &results.stage) == path;
            is_own.then_some(results).ok_or_else(|| "it is another stage's".to_owned())
        });
        match whole {
            Ok(results) => Some(results),
            Err(why) => {
                checksummed_json::warn_once(&path, &format!("{why}, so it is made anew"));
                None
            }
        }
    }

    /// Writes them in the place of those before.
    ///
    /// # Errors
    /// The run's folder cannot be written.
    pub fn save(&self, run: &Run) -> Result<(), StoreError> {
        let path = path(run, &self.pipeline, &self.stage);
        atomic::create_folder(run.disk(), &run.folder.join(FOLDER))?;
        atomic::remove_temporary_files_for(run.disk(), &path);
        let text = checksummed_json::to_text(self);
        Ok(atomic::write(run.disk(), &path, |out| out.write_all(text.as_bytes()))?)
    }

    /// Adds what was found out about a checkpoint. `files`: digest of those that were made of it.
    pub fn push(
        &mut self,
        checkpoint: &CheckpointRecord,
        metrics: BTreeMap<String, f64>,
        files: Option<String>,
    ) {
        let CheckpointRecord { epoch, digest, .. } = checkpoint;
        self.checkpoints.retain(|c| c.epoch != *epoch);
        let (epoch, digest, made_at) = (*epoch, digest.clone(), Utc::now());
        self.checkpoints.push(CheckpointResult { epoch, digest, metrics, files, made_at });
        self.checkpoints.sort_by_key(|c| c.epoch);
    }

    /// What was found out about a checkpoint, if it was looked at.
    pub fn of(&self, checkpoint: &CheckpointRecord) -> Option<&CheckpointResult> {
        let CheckpointRecord { epoch, digest, .. } = checkpoint;
        self.checkpoints.iter().find(|c| (c.epoch, &c.digest) == (*epoch, digest))
    }

    /// The main metrics of one, by their names among those of the run.
    fn named(&self, result: &CheckpointResult) -> BTreeMap<String, f64> {
        main_metrics(&result.metrics)
            .map(|(metric, value)| (format!("{}.{metric}", self.name), *value))
            .collect()
    }
}

fn path(run: &Run, pipeline: &str, stage: &StageId) -> PathBuf {
    let name = format!("{}.{}.json", names::of_pipeline(pipeline), names::of_stage(stage));
    run.folder.join(FOLDER).join(name)
}

impl Metadata {
    /// Checkpoints that a stage has yet to look at: their epochs.
    ///
    /// `all`: what stages found out; `stages`: those of the run's pipeline that look at each one.
    pub(crate) fn unseen(&self, all: &[CheckpointResults], stages: &[StageId]) -> Vec<u64> {
        let own = all.iter().filter(|results| results.pipeline == self.pipeline);
        let is_seen = |c: &CheckpointRecord, stage: &StageId| {
            own.clone().any(|results| results.stage == *stage && results.of(c).is_some())
        };
        let is_unseen = |c: &&CheckpointRecord| stages.iter().any(|stage| !is_seen(c, stage));
        self.checkpoints.iter().filter(is_unseen).map(|c| c.epoch).collect()
    }

    /// Joins what stages found out about the checkpoints to the metrics of the epochs and
    /// checkpoints.
    pub fn join(&mut self, all: &[CheckpointResults]) {
        for results in all.iter().filter(|results| results.pipeline == self.pipeline) {
            for result in &results.checkpoints {
                let of_epoch = |c: &&mut CheckpointRecord| c.epoch == result.epoch;
                let standing = self.checkpoints.iter_mut().find(of_epoch);
                // That of an epoch which was trained again since tells nothing of today's.
                if standing.as_ref().is_some_and(|c| c.digest != result.digest) {
                    continue;
                }
                let metrics = results.named(result);
                let best = self.best_checkpoint.as_mut().filter(of_epoch);
                for checkpoint in standing.into_iter().chain(best) {
                    checkpoint.metrics.extend(metrics.clone());
                }
                let epoch = self.history.iter_mut().find(|e| e.epoch == result.epoch);
                if let Some(epoch) = epoch {
                    epoch.metrics.extend(metrics);
                }
            }
        }
    }
}

impl Run {
    /// Its metadata as they stand on disk, with what stages found out about its checkpoints joined to
    /// the metrics. The version before, where the file is damaged.
    pub fn metadata(&self) -> Result<Metadata, StoreError> {
        let mut metadata = Metadata::load(&self.metadata_path())?;
        metadata.join(&CheckpointResults::all(self));
        Ok(metadata)
    }
}

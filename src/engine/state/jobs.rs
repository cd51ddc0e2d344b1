//! The jobs of a pipeline's stages: `.pipe/slurm/PIPELINE/jobs.json`, and their logs beside it.
//! Knows nothing of Slurm but that a job has a number.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use chrono::{DateTime, Utc};
use pipe_core::ids::StageId;
use pipe_core::names;
use pipe_fs::{
    FileError, Holder, Lock, ProjectRoot, STATE_FOLDER, atomic, bounded_read, checksummed_json,
};
use serde::{Deserialize, Serialize};

use crate::state::record_paths::folder;

const SCHEMA_VERSION: u32 = 1;

/// The number that Slurm gave to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct JobId(u32);

impl FromStr for JobId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(number) if number > 0 => Ok(Self(number)),
            _ => Err(format!("{text:?} is not the number of a job")),
        }
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The last job of each stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Jobs {
    schema_version: u32,
    pipeline: String,
    jobs: BTreeMap<StageId, Job>,
}

/// A job that was submitted for a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    pub id: JobId,
    pub submitted_at: DateTime<Utc>,
    /// Digest of the settings that it was submitted with, those of the command line too.
    pub settings: String,
    /// Its output, relative to the project.
    pub log: String,
    /// Slurm's word for how it ended, once that was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

impl Jobs {
    /// What is known of a pipeline's jobs; nothing if the file is missing or cannot be read.
    pub fn load(root: &Path, pipeline: &str) -> Self {
        let mut path = path(root, pipeline);
        if !path.exists() {
            path = former_path(root, pipeline);
        }
        let none = Self {
            schema_version: SCHEMA_VERSION,
            pipeline: pipeline.to_owned(),
            jobs: BTreeMap::new(),
        };
        let Ok(bytes) = bounded_read::read(&path, bounded_read::RECORD) else { return none };
        match checksummed_json::from_bytes::<Self>(&bytes) {
            Ok(jobs) if jobs.pipeline == pipeline && jobs.schema_version == SCHEMA_VERSION => jobs,
            Ok(_) => none,
            Err(why) => {
                checksummed_json::warn_once(
                    &path,
                    &format!("its jobs are looked for by their comments alone: {why}"),
                );
                none
            }
        }
    }

    pub fn get(&self, stage: &StageId) -> Option<&Job> {
        self.jobs.get(stage)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&StageId, &Job)> {
        self.jobs.iter()
    }

    /// Notes a stage's job, and saves that.
    pub fn note(&mut self, root: &ProjectRoot, stage: &StageId, job: Job) -> Result<(), FileError> {
        self.jobs.insert(stage.clone(), job);
        self.save(root)
    }

    /// Notes how a job ended, if it is still the last one of its stage. The file is read anew:
    /// another process may have submitted jobs since. While one does so, nothing is noted: Slurm
    /// can be asked again.
    pub fn note_end(
        root: &ProjectRoot,
        pipeline: &str,
        stage: &StageId,
        id: JobId,
        word: &str,
    ) -> Result<(), FileError> {
        let Ok(_lock) = Self::lock(root, pipeline)? else { return Ok(()) };
        let mut jobs = Self::load(root, pipeline);
        match jobs
            .jobs
            .get_mut(stage)
            .filter(|job| job.id == id && job.ended.as_deref() != Some(word))
        {
            Some(job) => job.ended = Some(word.to_owned()),
            None => return Ok(()),
        }
        jobs.save(root)
    }

    fn save(&self, root: &ProjectRoot) -> Result<(), FileError> {
        let path = path(root, &self.pipeline);
        atomic::create_folder(root.disk(), path.parent().unwrap_or(root))?;
        let text = checksummed_json::to_text(self);
        Ok(atomic::write(root.disk(), &path, |out| out.write_all(text.as_bytes()))?)
    }

    /// Lets one process at a time submit jobs of a pipeline; the folder of their logs is there
    /// then.
    pub fn lock(root: &ProjectRoot, pipeline: &str) -> Result<Result<Lock, Holder>, FileError> {
        let folder = folder(root, "slurm", pipeline);
        atomic::create_folder(root.disk(), &folder)?;
        Ok(Lock::take(root.disk(), &folder.join("submit.lock"))?)
    }

    /// Where a stage's output goes, relative to the project. Slurm puts the job's number in the
    /// place of `%j`.
    pub fn log(pipeline: &str, stage: &StageId, job: Option<JobId>) -> String {
        let number = job.map_or("%j".to_owned(), |job| job.to_string());
        let name = format!("{}-{number}.log", names::of_stage(stage));
        folder(Path::new(""), "slurm", pipeline).join(name).display().to_string()
    }
}

/// Where earlier versions had the jobs of a pipeline.
fn former_path(root: &Path, pipeline: &str) -> PathBuf {
    root.join(STATE_FOLDER).join("slurm").join(names::plain_name(pipeline)).join("jobs.json")
}

fn path(root: &Path, pipeline: &str) -> PathBuf {
    folder(root, "slurm", pipeline).join("jobs.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_come_back_and_their_end_is_noted_once() {
        let folder = tempfile::tempdir().unwrap();
        let (root, base) = (&ProjectRoot::from(folder.path()), StageId::new("base").unwrap());
        let job = |id: &str| Job {
            id: id.parse().unwrap(),
            submitted_at: DateTime::UNIX_EPOCH,
            settings: "sha256:1".into(),
            log: Jobs::log("a b", &base, Some(id.parse().unwrap())),
            ended: None,
        };
        let mut jobs = Jobs::load(root, "a b");
        assert_eq!(jobs.iter().count(), 0);
        jobs.note(root, &base, job("7")).unwrap();
        assert_eq!(Jobs::load(root, "a b"), jobs);
        assert_eq!(
            Jobs::load(root, "a/b").iter().count(),
            0,
            "another pipeline with the same file"
        );
        let folder = names::of_pipeline("a b");
        assert_eq!(jobs.get(&base).unwrap().log, format!(".pipe/slurm/{folder}/base-7.log"));

        let ended = |jobs: &Jobs| jobs.get(&base).unwrap().ended.clone();
        Jobs::note_end(root, "a b", &base, "6".parse().unwrap(), "FAILED").unwrap();
        assert_eq!(ended(&Jobs::load(root, "a b")), None, "that was an earlier job");
        Jobs::note_end(root, "a b", &base, "7".parse().unwrap(), "COMPLETED").unwrap();
        assert_eq!(ended(&Jobs::load(root, "a b")).as_deref(), Some("COMPLETED"));
    }

    #[test]
    fn a_damaged_file_knows_no_jobs() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path(), "p");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "{").unwrap();
        assert_eq!(Jobs::load(folder.path(), "p").iter().count(), 0);
    }
}

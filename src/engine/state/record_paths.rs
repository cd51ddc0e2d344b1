//! Where records of stages and their locks are.

use std::path::{Path, PathBuf};

use pipe_core::ids::StageId;
use pipe_core::names;
use pipe_fs::STATE_FOLDER;

pub(super) fn path(root: &Path, pipeline: &str, stage: &StageId) -> PathBuf {
    place(root, "records", pipeline, stage).with_added_extension("json")
}

pub(super) fn lock_path(root: &Path, pipeline: &str, stage: &StageId) -> PathBuf {
    place(root, "locks", pipeline, stage).with_added_extension("lock")
}

/// Where is kept what the programs of a pipeline's stages printed when they ran last: a file a stage,
/// of [`pipe_core::progress::Event`]s as JSON lines.
pub fn logs_folder(root: &Path, pipeline: &str) -> PathBuf {
    folder(root, "logs", pipeline)
}

pub(crate) fn log_path(root: &Path, pipeline: &str, stage: &StageId) -> PathBuf {
    place(root, "logs", pipeline, stage).with_added_extension("jsonl")
}

pub(super) fn place(root: &Path, what: &str, pipeline: &str, stage: &StageId) -> PathBuf {
    folder(root, what, pipeline).join(names::of_stage(stage))
}

/// Where earlier versions had a stage's record.
pub(super) fn former_path(root: &Path, pipeline: &str, stage: &StageId) -> PathBuf {
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

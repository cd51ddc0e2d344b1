//! What stages of a pipeline made in places that are not theirs any more.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use pipe_core::ids::StageId;
use pipe_fs::{Lock, ProjectRoot};

use super::record::{Record, json_files, record_lock};
use super::record_paths::{folder, path};

/// A stage as the pipeline has it now, with the files and folders that it writes.
pub(crate) type WritingStage<'a> = (&'a StageId, Vec<PathBuf>);

/// The records of a pipeline's stages that are none of `stages`, since they were renamed or taken
/// out, and of those of `stages` that wrote elsewhere before, with those files alone. Not of one that
/// somebody else runs at this moment.
pub(crate) fn left_behind<'a>(
    root: &ProjectRoot,
    pipeline: &str,
    stages: impl Iterator<Item = WritingStage<'a>>,
) -> Vec<Record> {
    let todays: HashMap<PathBuf, Vec<PathBuf>> =
        stages.map(|(stage, writes)| (path(root, pipeline, stage), writes)).collect();
    let mut files = json_files(&folder(root, "records", pipeline));
    files.sort();
    let left = files.iter().filter_map(|file| match todays.get(file) {
        // What leaves no files has none elsewhere.
        Some(writes) if writes.is_empty() => None,
        Some(writes) => elsewhere(Record::read(root.disk(), file)?, writes),
        None => {
            let is_free = Lock::holder(root.disk(), &record_lock(file)).is_none();
            is_free.then(|| Record::read(root.disk(), file)).flatten()
        }
    });
    left.filter(|record| record.pipeline == pipeline).collect()
}

/// What a stage made before it wrote to where it does now.
fn elsewhere(mut record: Record, writes: &[PathBuf]) -> Option<Record> {
    let made = record.made.as_mut()?;
    let is_there = |path: &str| writes.iter().any(|place| Path::new(path).starts_with(place));
    // Beside its place may be what it makes of each checkpoint.
    if made.outputs.iter().any(|output| is_there(&output.path)) {
        made.outputs.clear();
    }
    made.former.retain(|output| !is_there(&output.path));
    record.places.clear();
    let has_files = !made.outputs.is_empty() || !made.former.is_empty();
    has_files.then_some(record)
}

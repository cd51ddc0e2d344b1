//! The base model of a LoRA training, which stands in its run beside the checkpoints.

use std::path::Path;

use pipe_engine::kind::StageError;
use pipe_fs::copy::copy;
use pipe_runs::{Checkpoint, Run};

use crate::checkpoint::BASE_FILE;
use crate::stages::artifacts::CheckpointFile;

/// Puts a copy of the base model beside the checkpoints that need it.
pub(super) fn copy_base_model(run: &Run, base: &CheckpointFile) -> Result<(), StageError> {
    let kept = run.folder.join(BASE_FILE);
    let same = |a: &Path, b: &Path| {
        let digest = |path| Checkpoint::open(path).ok().and_then(|c| c.digest().map(str::to_owned));
        digest(a).is_some_and(|found| digest(b) == Some(found))
    };
    if kept.exists() && same(&kept, &base.path) {
        return Ok(());
    }
    Ok(copy(run.disk(), &base.path, &kept)?)
}

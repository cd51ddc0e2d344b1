//! Whether the adapter in the folder of a LoRA run is as it was written. PEFT's files have no digest, so it is compared
//! with the checkpoint that it was made from.

use std::path::PathBuf;

use pipe_engine::store::{Checkpoint, Run};

use super::best_prefix;
use crate::lora::Adapter;

/// Folder of the adapter in PEFT's format, in the run's folder.
pub const ADAPTER: &str = "adapter";

/// The adapter's folder and what is wrong with it; `None` if there is nothing to say: no adapter, a good one, or one of an
/// earlier best checkpoint, which the next run of the stage replaces.
pub fn adapter_damage(run: &Run) -> Option<(PathBuf, String)> {
    let folder = run.folder.join(ADAPTER);
    if !folder.is_dir() {
        return None;
    }
    let adapter = match Adapter::read(&folder) {
        Ok(adapter) => adapter,
        Err(error) => return Some((folder, error.to_string())),
    };
    let best = Checkpoint::open(&run.best()).ok()?;
    if adapter.source.as_deref() != best.digest() {
        return None;
    }
    // A checkpoint that is damaged itself is another check's business.
    let written = Adapter::from_checkpoint(&best, best_prefix(&best)).ok()??;
    let differs = written.tensors != adapter.tensors;
    differs.then(|| (folder, "its weights are not those of the checkpoint that it was made from".to_owned()))
}

//! Whether what a LoRA run keeps beside its checkpoints is as it was written: the base model, and
//! the adapter in PEFT's format. PEFT's files have no digest, so they are compared with the
//! checkpoint that they were made from.

use std::path::{Path, PathBuf};

use pipe_models::header::BASE_DIGEST;
use pipe_runs::{Checkpoint, Run, Status};

use super::rebuild::{BASE_FILE, inference_prefix};
use crate::lora::Adapter;

/// Folder of the adapter in PEFT's format, in the run's folder.
pub const ADAPTER: &str = "adapter";

/// What of a LoRA run a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoraFile {
    Base,
    Adapter,
}

/// The base model and the adapter of a LoRA run, where something is wrong with them. Those of a run
/// that has not come to its end may be missing, or of an earlier checkpoint: the run goes on with
/// that.
pub fn lora_damage(run: &Run) -> Vec<(PathBuf, String, LoraFile)> {
    let is_completed = run.metadata().is_ok_and(|metadata| metadata.status == Status::Completed);
    let (base, adapter) = (run.folder.join(BASE_FILE), run.folder.join(ADAPTER));
    // A checkpoint that is damaged itself is another check's business.
    let best = Checkpoint::open(&run.best()).ok();
    let written = best
        .as_ref()
        .and_then(|best| Adapter::from_checkpoint(best, inference_prefix(best)).ok()?);
    let of_base = best
        .as_ref()
        .filter(|_| written.is_some())
        .and_then(|best| base_damage(&base, best, is_completed));
    let of_adapter = adapter_damage(&adapter, written.as_ref(), is_completed);
    let of_base = of_base.map(|what| (base, what, LoraFile::Base));
    of_base.into_iter().chain(of_adapter.map(|what| (adapter, what, LoraFile::Adapter))).collect()
}

fn base_damage(path: &Path, best: &Checkpoint, is_completed: bool) -> Option<String> {
    if !path.exists() {
        return is_completed.then(|| "it is not there".to_owned());
    }
    // Whether its content has its digest is known already.
    let digest = Checkpoint::open(path).ok()?.digest().map(str::to_owned);
    let differs = digest.as_ref() != best.header().extra.get(BASE_DIGEST);
    differs.then(|| "it is not the base model that the adapter was trained on".to_owned())
}

fn adapter_damage(folder: &Path, written: Option<&Adapter>, is_completed: bool) -> Option<String> {
    if !folder.is_dir() {
        return (is_completed && written.is_some()).then(|| "it is not there".to_owned());
    }
    let found = match Adapter::read(folder) {
        Ok(found) => found,
        Err(error) => return Some(error.to_string()),
    };
    let written = written?;
    if found.source != written.source {
        return is_completed.then(|| "it is not that of the best checkpoint".to_owned());
    }
    let same = found.tensors == written.tensors
        && found.class_names == written.class_names
        && written.has_config_in(folder);
    (!same).then(|| "it is not as it was made from its checkpoint".to_owned())
}

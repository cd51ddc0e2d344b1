//! Which checkpoints of a completed run can go: all but the newest, the best, and those that
//! something was made from. Decides and removes nothing.

use std::path::{Path, PathBuf};

use pipe_engine::state::Record;
use pipe_runs::{CheckpointRecord, Metadata, Run, Runs};

use crate::clean::{freed, lies_in, user_of_any};

/// What becomes of the checkpoints of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Thinning {
    /// As the run stood when this was decided.
    pub metadata: Metadata,
    pub gone: Vec<Surplus>,
    /// Files that would go but for what was made from them, and what that is.
    pub needed: Vec<(PathBuf, String)>,
}

/// A checkpoint that can go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surplus {
    pub epoch: u64,
    pub path: PathBuf,
    /// Room that its removal frees: nothing where the file has another name.
    pub bytes: u64,
}

impl Thinning {
    /// Epochs of the checkpoints that go.
    pub fn epochs(&self) -> Vec<u64> {
        self.gone.iter().map(|gone| gone.epoch).collect()
    }

    /// Room that all of them take.
    pub fn bytes(&self) -> u64 {
        self.gone.iter().map(|gone| gone.bytes).sum()
    }
}

/// Decides for every checkpoint of `run`, whose metadata are given, whether it is among the `keep`
/// newest, the best, or needed. Stages are known by their records, and other runs are looked for in
/// `folders`.
pub fn thinning(
    run: &Run,
    metadata: Metadata,
    folders: &[Runs],
    records: &[Record],
    keep: usize,
) -> Thinning {
    let others: Vec<Run> = folders.iter().flat_map(Runs::list).collect();
    let known: Vec<Option<Metadata>> = others.iter().map(|run| run.metadata().ok()).collect();
    let best = metadata.best_checkpoint.as_ref().map(|best| best.epoch);
    let old = metadata.checkpoints.len().saturating_sub(keep);
    let (mut gone, mut needed) = (Vec::new(), Vec::new());
    for checkpoint in &metadata.checkpoints[..old] {
        if Some(checkpoint.epoch) == best {
            continue;
        }
        let path = run.folder.join(&checkpoint.path);
        let is_it = |file: &str| lies_in(file, run) && is_called(file, checkpoint);
        let digests = [checkpoint.digest.as_str()].into();
        match user_of_any(run, &digests, &is_it, records, others.iter().zip(&known)) {
            Some(user) => needed.push((path, user)),
            None => {
                let bytes = freed(&path);
                gone.push(Surplus { epoch: checkpoint.epoch, path, bytes });
            }
        }
    }
    Thinning { metadata, gone, needed }
}

fn is_called(file: &str, checkpoint: &CheckpointRecord) -> bool {
    Path::new(file).file_name() == Path::new(checkpoint.path.as_str()).file_name()
}

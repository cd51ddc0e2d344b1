//! What a training program is told: the file whose path stands in `PIPE_JOB`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Version of the contract.
pub const PROTOCOL: u32 = 1;

/// What a training program is told. Paths are absolute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Version of the contract: 1.
    pub protocol: u32,
    pub pipeline: String,
    pub stage: String,
    /// Number of the run.
    pub run: u32,
    pub run_dir: PathBuf,
    /// What stands under `settings:` in the stage.
    pub settings: Map<String, Value>,
    pub seed: u64,
    /// What `target` and `done` count: `epoch`.
    pub unit: String,
    /// Epochs in all.
    pub target: u64,
    /// Epochs that are complete at `start`.
    pub done: u64,
    /// Steps that are done at `start`, over all epochs.
    pub step: u64,
    /// Steps of the next epoch that are done at `start`.
    pub step_in_epoch: u64,
    /// The checkpoint to go on from: a file or folder, as the program wrote it.
    pub start: Option<PathBuf>,
    /// The weights to begin a new training with.
    pub init: Option<PathBuf>,
    /// A folder of the program's own, on the file system of the run. It is empty at the start.
    pub scratch: PathBuf,
    pub save_every: SaveEvery,
    /// Pieces that each batch is to be cut into, to save memory.
    pub micro_batch_splits: u64,
    /// GPUs that are the stage's own, counted from 0.
    pub devices: Vec<u32>,
    /// What stands under `inputs:` in the stage.
    pub inputs: Vec<String>,
    /// A Unix socket.
    pub socket: PathBuf,
}

/// When the policy wants checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaveEvery {
    /// Epochs between two; the last epoch's is always wanted.
    pub epochs: u64,
    /// Steps between two inside an epoch.
    pub steps: Option<u64>,
}

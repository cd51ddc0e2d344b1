//! How long a training takes and how much it puts on the disk, from what its runs tell of their
//! epochs and checkpoints.

use pipe_engine::kind::Forecast;
use pipe_runs::policy::CheckpointPolicy;
use pipe_runs::{EpochRecord, Metadata};

/// Epochs whose median says how long one takes.
const NEWEST: usize = 5;

/// What an epoch of a run takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Seconds of an epoch.
    seconds: f64,
    /// Of a checkpoint.
    bytes: Option<u64>,
    /// Checkpoints that stand.
    standing: u64,
    /// Bytes of main memory, at most.
    memory: Option<u64>,
}

impl Pace {
    /// What the newest epochs of a run took, if it has any.
    pub fn of(run: &Metadata) -> Option<Self> {
        let seconds = epoch_seconds(run.history.iter().rev())?;
        let checkpoints = &run.checkpoints;
        let bytes = checkpoints.last().map(|checkpoint| checkpoint.bytes);
        let memory = peak_memory(run);
        Some(Self { seconds, bytes, standing: checkpoints.len() as u64, memory })
    }

    /// Of an epoch.
    pub fn seconds(self) -> f64 {
        self.seconds
    }

    /// The same for a run that has no checkpoint yet.
    pub fn of_new_run(self) -> Self {
        Self { standing: 0, ..self }
    }

    /// That of epochs which take so many times as long. What memory they need is not known then.
    pub fn times(self, times: f64) -> Self {
        let memory = self.memory.filter(|_| times == 1.0);
        Self { seconds: self.seconds * times, memory, ..self }
    }

    /// What so many epochs take, and what their checkpoints add to those that stand.
    pub fn forecast(self, policy: &CheckpointPolicy, epochs: u64, from: String) -> Forecast {
        let saved = epochs.div_ceil(policy.save_every_n_epochs.max(1)) + self.standing;
        // One is written before the oldest goes.
        let kept = policy.keep_last_n.map(|newest| newest + policy.keep_top_k.unwrap_or(1) + 1);
        let most = kept.map_or(saved, |kept| kept.min(saved)).saturating_sub(self.standing);
        let bytes = self.bytes.filter(|_| policy.enabled).map(|bytes| bytes * most);
        let seconds = Some(self.seconds * epochs as f64);
        Forecast { seconds, bytes, memory: self.memory, from }
    }
}

/// Seconds of an epoch: the median of the newest, which come first.
pub fn epoch_seconds<'a>(epochs: impl Iterator<Item = &'a EpochRecord>) -> Option<f64> {
    let mut newest: Vec<f64> = epochs.take(NEWEST).map(|epoch| epoch.seconds).collect();
    newest.sort_by(f64::total_cmp);
    newest.get(newest.len() / 2).copied()
}

/// Key of a run's metadata: bytes of main memory that its processes had at most.
const PEAK_MEMORY: &str = "peak_memory";

/// Bytes of main memory that the processes of a run had at most, where that was noted.
pub fn peak_memory(run: &Metadata) -> Option<u64> {
    run.other.get(PEAK_MEMORY).and_then(serde_json::Value::as_u64)
}

/// Notes what a process of the run had.
pub fn note_memory(run: &mut Metadata, bytes: u64) {
    let most = peak_memory(run).map_or(bytes, |before| before.max(bytes));
    run.other.insert(PEAK_MEMORY.to_owned(), most.into());
}

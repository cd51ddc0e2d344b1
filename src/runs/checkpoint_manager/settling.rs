//! What changes in a run when a stage has looked at its checkpoints: which one is the best, and
//! which ones are not needed any more.

use pipe_core::ids::StageId;
use serde_json::Value;

use super::CheckpointManager;
use crate::policy::{CheckpointPolicy, KnownCheckpoint};
use crate::{CheckpointRecord, CheckpointResults, Metadata, Run, StoreError, checkpoint};

/// Key of a run's metadata: the epoch whose checkpoint stays since another training goes on from it;
/// a list where there are several.
const KEPT_EPOCH: &str = "kept_epoch";

impl CheckpointManager {
    /// The checkpoints of epochs, with all that is known of them.
    pub(super) fn known(&self) -> Vec<KnownCheckpoint> {
        let all = CheckpointResults::all(&self.run);
        let unseen = self.metadata.unseen(&all, &self.policy.followed_by);
        let mut metadata = self.metadata.clone();
        metadata.join(&all);
        let recomputed = metadata.recomputed();
        let known = |c: CheckpointRecord| {
            let is_pinned = unseen.contains(&c.epoch) || recomputed.contains(&c.epoch);
            KnownCheckpoint { epoch: c.epoch, metrics: c.metrics, is_pinned }
        };
        metadata.checkpoints.into_iter().map(known).collect()
    }

    /// The run's metadata, with what stages found out joined to the metrics.
    pub fn joined_metadata(&self) -> Metadata {
        let mut metadata = self.metadata.clone();
        metadata.join(&CheckpointResults::all(&self.run));
        metadata
    }

    /// Whether a stage has yet to look at some of the checkpoints.
    pub fn is_awaited(&self) -> bool {
        let all = CheckpointResults::all(&self.run);
        !self.metadata.unseen(&all, &self.policy.followed_by).is_empty()
    }

    /// Chooses the best checkpoint by what is known now, and removes those that are not to be kept.
    /// Gives the epoch of another best one. Where no stage looks at the checkpoints it does nothing.
    pub fn settle(&mut self) -> Result<Option<u64>, StoreError> {
        let is_followed = !self.policy.followed_by.is_empty();
        if !self.policy.enabled || !is_followed && CheckpointResults::all(&self.run).is_empty() {
            return Ok(None);
        }
        let known = self.known();
        let best = self.policy.best(&known).map(|k| k.epoch);
        let noted = self.metadata.best_checkpoint.as_ref().map(|c| c.epoch);
        let changed = best.filter(|_| best != noted);
        changed.map_or(Ok(()), |epoch| self.link_best(epoch))?;
        let surplus = self.policy.surplus(&known);
        let gone: Vec<_> = surplus.into_iter().flat_map(|epoch| self.strike_off(epoch)).collect();
        if changed.is_some() || !gone.is_empty() {
            self.write_metadata()?;
        }
        for path in gone {
            checkpoint::remove(self.run.disk(), &path)?;
        }
        Ok(changed)
    }

    /// The same for a run that nobody trains in any more, by the policy that it was trained with.
    /// `None` if somebody has it. `followed_by`: see [`CheckpointPolicy::followed_by`].
    ///
    /// # Errors
    /// The run cannot be read or written.
    pub fn settle_ended(run: &Run, followed_by: &[StageId]) -> Result<Option<Self>, StoreError> {
        let metadata = Metadata::load(&run.metadata_path())?;
        let policy =
            CheckpointPolicy { followed_by: followed_by.to_vec(), ..recorded_policy(&metadata) };
        let mut manager = match Self::reopen(run.clone(), policy) {
            Err(StoreError::Held { .. }) => return Ok(None),
            opened => opened?,
        };
        manager.settle()?;
        Ok(Some(manager))
    }

    /// Keeps the checkpoint of an epoch besides those of the policy, from now on.
    pub fn keep_epoch(&mut self, epoch: u64) {
        self.policy.keep_epochs.push(epoch);
        self.note_kept_epochs();
    }

    /// Notes in the metadata which epochs are kept besides, for those who know the run alone.
    pub(super) fn note_kept_epochs(&mut self) {
        let value = match self.policy.keep_epochs.as_slice() {
            [] => return,
            [epoch] => (*epoch).into(),
            several => several.into(),
        };
        self.metadata.other.insert(KEPT_EPOCH.to_owned(), value);
    }
}

impl CheckpointResults {
    /// The `monitor` of the training and its value, where that is a metric of this stage and the best
    /// so far is that of `epoch`.
    pub fn new_best(&self, training: &Metadata, epoch: u64) -> Option<(String, f64)> {
        if self.pipeline != training.pipeline {
            return None;
        }
        let policy = recorded_policy(training);
        let metric = policy.monitor.strip_prefix(&self.name)?.strip_prefix('.')?;
        let values = self.checkpoints.iter().map(|c| (c.epoch, c.metrics.get(metric).copied()));
        let (best, value) = policy.mode.best(values)?;
        (best == epoch).then_some((policy.monitor, value))
    }
}

/// The policy of a run, as its metadata tell it.
pub(super) fn recorded_policy(metadata: &Metadata) -> CheckpointPolicy {
    let policy = metadata.settings.get("checkpoint").cloned();
    let policy = policy.and_then(|policy| serde_json::from_value(policy).ok()).unwrap_or_default();
    CheckpointPolicy { keep_epochs: kept_epochs(metadata), ..policy }
}

/// The epochs whose checkpoints a run keeps besides those of its policy.
pub fn kept_epochs(metadata: &Metadata) -> Vec<u64> {
    match metadata.other.get(KEPT_EPOCH) {
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_u64).collect(),
        one => one.and_then(Value::as_u64).into_iter().collect(),
    }
}

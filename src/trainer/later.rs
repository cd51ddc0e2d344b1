//! Settings that a training has from an epoch on: what they are called in a manifest, and which of
//! them a run has come to. A run that has not come to one goes on with another one there, as if it
//! had always had it.

use std::collections::BTreeMap;

use pipe_engine::identity::Difference;
use pipe_engine::kind::StageError;
use pipe_runs::{CheckpointManager, Metadata, Run, Status};
use serde_json::Value;

use crate::following::judged_metric;
use crate::run_catalog::completed_epochs;
use crate::run_match::RunCriteria;
use crate::training::Training;

/// Between the key of a setting and the epoch, in a manifest.
const AFTER: &str = " after epoch ";
/// The setting of a stage that lists them.
const THEN: &str = "then";

/// The key in a manifest of a setting that counts behind an epoch; the setting's own for epoch 0.
pub fn later_key(key: &str, epoch: u64) -> String {
    if epoch == 0 { key.to_owned() } else { format!("{key}{AFTER}{epoch}") }
}

/// The setting and the epoch of a key in a manifest, if it is one of those.
pub fn later_setting(key: &str) -> Option<(&str, u64)> {
    let (setting, epoch) = key.rsplit_once(AFTER)?;
    Some((setting, epoch.parse().ok()?))
}

impl Training<'_> {
    /// Settings that are others than those that a run was trained with so far. Those that are for
    /// epochs which it has not come to are none of them. Those behind the last epoch that is wanted
    /// count where the wanted epochs cannot be handed on without the others.
    pub(crate) fn settings_changed(
        &self,
        run: &Run,
        metadata: &Metadata,
        criteria: &RunCriteria,
    ) -> Vec<Difference> {
        let mut changed = criteria.settings_changed(metadata);
        if changed.iter().any(|d| later_setting(&d.key).is_some()) && run.holder().is_none() {
            let (begun, wanted) = (begun_epochs(run, metadata), self.epochs.on(&metadata.dataset));
            let is_apart = self.has_same_entries(metadata) || self.cut(run, metadata).is_some();
            let counts = if is_apart { begun.min(wanted) } else { begun };
            changed.retain(|d| later_setting(&d.key).is_none_or(|(_, epoch)| epoch < counts));
        }
        changed
    }

    /// A completed run as it was after the epochs that are wanted, if it went on behind them with
    /// other settings than today's. `None` too where the last or the best checkpoint of those epochs
    /// does not stand any more, or nobody knows which one is the best.
    pub(crate) fn first_part(
        &self,
        run: &Run,
        metadata: &Metadata,
        criteria: &RunCriteria,
    ) -> Option<Metadata> {
        let (begun, wanted) = (begun_epochs(run, metadata), self.epochs.on(&metadata.dataset));
        let is_behind = |d: &Difference| {
            later_setting(&d.key).is_some_and(|(_, epoch)| (wanted..begun).contains(&epoch))
        };
        let goes_elsewhere = !self.has_same_entries(metadata)
            && criteria.settings_changed(metadata).iter().any(is_behind);
        goes_elsewhere.then(|| self.cut(run, metadata)).flatten()
    }

    /// Whether a run has the same entries of `then` as today, those that it does not come to included.
    fn has_same_entries(&self, metadata: &Metadata) -> bool {
        self.settings.get(THEN) == metadata.settings.get(THEN)
    }

    /// A completed run without the epochs behind those that are wanted.
    fn cut(&self, run: &Run, metadata: &Metadata) -> Option<Metadata> {
        let (mode, monitor) = (self.policy.mode, &self.policy.monitor);
        let wanted = self.epochs.on(&metadata.dataset);
        if metadata.status != Status::Completed || judged_metric(monitor).is_some() {
            return None;
        }
        let mut part = metadata.clone();
        part.history.retain(|e| e.epoch <= wanted);
        part.checkpoints.retain(|c| c.epoch <= wanted);
        (part.epochs, part.partial_checkpoint) = (wanted, None);
        let saved = part.history.iter().filter(|e| e.saved.is_some());
        let best = mode.best(saved.map(|e| (e.epoch, e.metrics.get(monitor).copied())));
        let last = part.checkpoints.last().filter(|c| c.epoch == wanted)?;
        let best = match best {
            Some((best, _)) => Some(part.checkpoints.iter().find(|c| c.epoch == best)?),
            None => None,
        };
        let stand = best.into_iter().chain([last]).all(|record| run.file_of(record).exists());
        part.best_checkpoint = best.cloned();
        stand.then_some(part)
    }

    /// Makes the run one of today's settings in the epochs that it has not come to.
    pub(crate) fn take_later_settings(
        &self,
        manager: &mut CheckpointManager,
        today: &BTreeMap<String, Value>,
    ) -> Result<(), StageError> {
        let begun = begun_epochs(manager.run(), manager.metadata());
        let is_open = |key: &str| later_setting(key).is_some_and(|(_, epoch)| epoch >= begun);
        let open = |manifest: &BTreeMap<String, Value>| -> BTreeMap<String, Value> {
            let open = manifest.iter().filter(|(key, _)| is_open(key));
            open.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        let now = open(today);
        if open(&manager.metadata().manifest) == now {
            return Ok(());
        }
        manager.update(|m| {
            m.manifest.retain(|key, _| !is_open(key));
            m.manifest.extend(now);
            match (self.settings.get(THEN), &mut m.settings) {
                (Some(then), settings) => settings[THEN] = then.clone(),
                (None, Value::Object(settings)) => drop(settings.remove(THEN)),
                (None, _) => {}
            }
        })?;
        Ok(())
    }
}

/// The epochs of a run that were trained, the last one in part, and will not be trained again.
fn begun_epochs(run: &Run, metadata: &Metadata) -> u64 {
    run.begun_epochs(metadata).max(completed_epochs(run, metadata))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_epoch_that_it_is_behind() {
        assert_eq!(later_key("learning_rate", 0), "learning_rate");
        let key = later_key("schedule horizon", 20);
        assert_eq!(key, "schedule horizon after epoch 20");
        assert_eq!(later_setting(&key), Some(("schedule horizon", 20)));
        assert_eq!(later_setting("learning_rate"), None);
        assert_eq!(later_setting("note after epoch x"), None);
    }
}

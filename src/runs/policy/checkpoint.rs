//! When a training run saves, which checkpoint is the best, and which ones go. Pure: what is known
//! in, actions out.

use std::collections::BTreeMap;

use pipe_core::ids::StageId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Checkpoints of a training run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointPolicy {
    /// Switches checkpoints on or off. Without them nothing can be resumed.
    #[schemars(extend("x-class" = "runtime"))]
    pub enabled: bool,
    /// Folder of the numbered runs, relative to the project; `checkpoints/base_training` for a
    /// `train` stage and `checkpoints/lora` for a `lora` stage if unset.
    #[schemars(extend("x-class" = "runtime"))]
    #[schemars(example = &"checkpoints/base_training")]
    #[schemars(extend("x-known-as" = ["dirpath", "output_dir", "save_dir", "checkpoint_dir"]))]
    pub base_dir: Option<String>,
    /// Number of the run; null takes the next free one.
    #[schemars(extend("x-class" = "runtime"))]
    pub run_number: Option<u32>,
    /// Epochs between two checkpoints. The last epoch is always saved.
    #[schemars(range(min = 1), extend("x-class" = "runtime"))]
    #[schemars(extend("x-known-as" = ["every_n_epochs", "save_every"]))]
    pub save_every_n_epochs: u64,
    /// Optimizer steps between two checkpoints inside an epoch; null saves at epochs' ends only.
    #[schemars(range(min = 1), extend("x-class" = "runtime"))]
    #[schemars(extend("x-known-as" = ["every_n_train_steps", "save_steps"]))]
    pub save_every_n_steps: Option<u64>,
    /// How many of the newest checkpoints stay; the best stays besides. Null keeps all.
    #[schemars(range(min = 1), extend("x-class" = "runtime"))]
    #[schemars(extend("x-known-as" = ["save_total_limit", "max_to_keep"]))]
    pub keep_last_n: Option<u64>,
    /// How many of the best checkpoints by `monitor` stay besides the newest; 1 if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("x-class" = "runtime"))]
    #[schemars(extend("x-known-as" = ["save_top_k"]))]
    pub keep_top_k: Option<u64>,
    /// The metric that decides which checkpoint is the best: any that the training reports. `train`
    /// and `lora` report `train_loss`, and `val_loss` where the data has validation images. Or one
    /// that an `evaluate` stage finds out about each checkpoint: `quality.fid`.
    #[schemars(example = &"val_loss")]
    pub monitor: String,
    /// Whether a lower or a higher value is better.
    pub mode: Mode,
    /// Number of the run to go on with.
    #[schemars(extend("x-class" = "runtime"))]
    pub resume_from_run: Option<u32>,
    /// Epochs whose checkpoints are saved and kept besides, since other trainings go on from them.
    #[serde(skip)]
    pub keep_epochs: Vec<u64>,
    /// The stages that look at every checkpoint: one that they have yet to look at stays.
    #[serde(skip)]
    pub followed_by: Vec<StageId>,
    /// A checkpoint file to start a new run from. A `trainer` begins with a file by its `init`.
    #[schemars(extend("x-known-as" = ["ckpt_path", "resume_from_checkpoint", "init_from"]))]
    pub resume_checkpoint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Lower is better.
    Min,
    /// Higher is better.
    Max,
}

impl Mode {
    /// Whether `new` is the better value.
    pub fn is_better(self, new: f64, old: f64) -> bool {
        match self {
            Mode::Min => new < old,
            Mode::Max => new > old,
        }
    }

    /// The best of some values, each with what it belongs to; the first of equals. One that is
    /// missing or not finite is never the best.
    pub fn best<K>(self, all: impl IntoIterator<Item = (K, Option<f64>)>) -> Option<(K, f64)> {
        let judged = all.into_iter().filter_map(|(of, value)| Some((of, value?)));
        judged
            .filter(|(_, value)| value.is_finite())
            .reduce(|best, next| if self.is_better(next.1, best.1) { next } else { best })
    }

    /// The value as one of which more is better.
    pub fn score(self, value: f64) -> f64 {
        match self {
            Mode::Min => -value,
            Mode::Max => value,
        }
    }
}

impl Default for CheckpointPolicy {
    fn default() -> Self {
        Self {
            enabled: true,
            base_dir: None,
            run_number: None,
            save_every_n_epochs: 1,
            save_every_n_steps: None,
            keep_last_n: Some(3),
            keep_top_k: None,
            monitor: "train_loss".into(),
            mode: Mode::Min,
            resume_from_run: None,
            keep_epochs: Vec::new(),
            followed_by: Vec::new(),
            resume_checkpoint: None,
        }
    }
}

/// A value that cannot work, with its key inside the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidPolicy {
    pub key: &'static str,
    pub message: String,
}

/// A checkpoint of an epoch that stands on disk.
#[derive(Debug, Clone, PartialEq)]
pub struct KnownCheckpoint {
    pub epoch: u64,
    pub metrics: BTreeMap<String, f64>,
    /// It stays: a stage has yet to look at it, or a person asked for it again.
    pub is_pinned: bool,
}

/// Something for the store to do, in the order given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Write this epoch's checkpoint.
    Save,
    /// `last.ckpt` is the one just saved.
    LinkLast,
    /// `best.ckpt` is the one just saved.
    LinkBest,
    /// The checkpoint of this epoch is not needed any more.
    Delete(u64),
}

impl CheckpointPolicy {
    /// Checks that the settings mean something together.
    ///
    /// # Errors
    /// The first setting found that does not.
    pub fn validate(&self) -> Result<(), InvalidPolicy> {
        let refuse = |key, message: &str| Err(InvalidPolicy { key, message: message.to_owned() });
        if self.save_every_n_epochs == 0 {
            return refuse("save_every_n_epochs", "expected at least 1");
        }
        if self.save_every_n_steps == Some(0) {
            return refuse("save_every_n_steps", "expected at least 1, or null");
        }
        if self.keep_last_n == Some(0) {
            return refuse(
                "keep_last_n",
                "expected at least 1 (the newest is needed to resume), or null to keep all",
            );
        }
        if self.keep_top_k == Some(0) {
            return refuse("keep_top_k", "expected at least 1: the best is always kept");
        }
        if self.monitor.trim().is_empty() {
            return refuse("monitor", "expected the name of a metric, such as `train_loss`");
        }
        if self.base_dir.as_ref().is_some_and(|dir| dir.trim().is_empty()) {
            return refuse("base_dir", "expected a folder");
        }
        if let (Some(a), Some(b)) = (self.run_number, self.resume_from_run)
            && a != b
        {
            return refuse("resume_from_run", "names another run than `run_number`");
        }
        if self.run_number == Some(0) || self.resume_from_run == Some(0) {
            return refuse("run_number", "runs are counted from 1");
        }
        Ok(())
    }

    /// The same for a part of a run that is done once more elsewhere: of what it makes the newest is
    /// wanted, whether the run keeps any or not, and nothing inside epochs.
    pub fn aside(&self) -> Self {
        Self {
            enabled: true,
            base_dir: None,
            run_number: None,
            resume_from_run: None,
            save_every_n_steps: None,
            keep_last_n: Some(1),
            keep_top_k: None,
            keep_epochs: Vec::new(),
            followed_by: Vec::new(),
            ..self.clone()
        }
    }

    /// Checks that `monitor` is one of the metrics that a training reports: those that it is known
    /// to report, or those of its first epoch, one without a finite value among them.
    ///
    /// # Errors
    /// It is not: a message that lists what is reported.
    pub fn check_reported<'a>(
        &self,
        reported: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), InvalidPolicy> {
        let refuse = |message| Err(InvalidPolicy { key: "monitor", message });
        super::metric::find(&self.monitor, reported, "the training reports").or_else(refuse)
    }

    /// What to do after `epoch`, given the checkpoints that stand on disk (`known`, oldest first).
    pub fn after_epoch(
        &self,
        known: &[KnownCheckpoint],
        epoch: u64,
        metrics: &BTreeMap<String, f64>,
        is_final: bool,
    ) -> Vec<Action> {
        let is_due = epoch.is_multiple_of(self.save_every_n_epochs) || is_final;
        if !self.enabled || !(is_due || self.keep_epochs.contains(&epoch)) {
            return Vec::new();
        }
        let mut actions = vec![Action::Save, Action::LinkLast];
        let mut all: Vec<KnownCheckpoint> =
            known.iter().filter(|k| k.epoch != epoch).cloned().collect();
        all.push(KnownCheckpoint { epoch, metrics: metrics.clone(), is_pinned: false });
        if self.best(&all).is_some_and(|best| best.epoch == epoch) {
            actions.push(Action::LinkBest);
        }
        actions.extend(self.surplus(&all).into_iter().map(Action::Delete));
        actions
    }

    /// Epochs whose checkpoints (`known`, oldest first) are not to be kept.
    pub fn surplus(&self, known: &[KnownCheckpoint]) -> Vec<u64> {
        let mut kept = self.top(known);
        kept.extend(&self.keep_epochs);
        let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let old = self.keep_last_n.map_or(0, |keep| known.len().saturating_sub(count(keep)));
        let needless = |k: &&KnownCheckpoint| !k.is_pinned && !kept.contains(&k.epoch);
        known[..old].iter().filter(needless).map(|k| k.epoch).collect()
    }

    /// Epochs of the `keep_top_k` best, the best first.
    fn top(&self, known: &[KnownCheckpoint]) -> Vec<u64> {
        let mut judged: Vec<(f64, u64)> =
            known.iter().filter_map(|k| Some((self.score(k)?, k.epoch))).collect();
        // Stable: the earlier one of equals stays before the later one.
        judged.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        let most = usize::try_from(self.keep_top_k.unwrap_or(1)).unwrap_or(usize::MAX);
        judged.into_iter().take(most).map(|(_, epoch)| epoch).collect()
    }

    /// Its monitor, more of which is better, if that is a number. A zero has no sign.
    fn score(&self, checkpoint: &KnownCheckpoint) -> Option<f64> {
        let value = checkpoint.metrics.get(&self.monitor).copied().filter(|v| v.is_finite())?;
        Some(self.mode.score(value) + 0.0)
    }

    /// The best of some checkpoints; the earlier one of equals. A metric that is missing or not
    /// finite is never the best.
    pub fn best<'a>(&self, known: &'a [KnownCheckpoint]) -> Option<&'a KnownCheckpoint> {
        let value = |k: &'a KnownCheckpoint| (k, k.metrics.get(&self.monitor).copied());
        self.mode.best(known.iter().map(value)).map(|(best, _)| best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Action::*;

    fn loss(value: f64) -> BTreeMap<String, f64> {
        BTreeMap::from([("train_loss".to_owned(), value)])
    }

    fn known(losses: &[(u64, f64)]) -> Vec<KnownCheckpoint> {
        losses
            .iter()
            .map(|(epoch, value)| KnownCheckpoint {
                epoch: *epoch,
                metrics: loss(*value),
                is_pinned: false,
            })
            .collect()
    }

    fn keep(n: u64) -> CheckpointPolicy {
        CheckpointPolicy { keep_last_n: Some(n), ..Default::default() }
    }

    #[test]
    fn the_first_epoch_is_last_and_best() {
        assert_eq!(keep(3).after_epoch(&[], 1, &loss(0.5), false), [Save, LinkLast, LinkBest]);
    }

    #[test]
    fn the_best_stays_however_old() {
        let on_disk = known(&[(1, 0.1), (3, 0.3), (4, 0.3)]);
        assert_eq!(
            keep(2).after_epoch(&on_disk, 5, &loss(0.2), false),
            [Save, LinkLast, Delete(3)]
        );
    }

    #[test]
    fn a_new_best_frees_the_old_one() {
        let on_disk = known(&[(1, 0.1), (3, 0.3), (4, 0.3)]);
        let actions = keep(2).after_epoch(&on_disk, 5, &loss(0.05), false);
        assert_eq!(actions, [Save, LinkLast, LinkBest, Delete(1), Delete(3)]);
    }

    #[test]
    fn ties_and_nan_do_not_take_over() {
        assert_eq!(
            keep(9).after_epoch(&known(&[(1, 0.1)]), 2, &loss(0.1), false),
            [Save, LinkLast]
        );
        assert_eq!(
            keep(9).after_epoch(&known(&[(1, 0.1)]), 2, &loss(f64::NAN), false),
            [Save, LinkLast]
        );
        let actions = keep(9).after_epoch(&known(&[(1, f64::NAN)]), 2, &loss(0.7), false);
        assert_eq!(actions, [Save, LinkLast, LinkBest]);
    }

    #[test]
    fn higher_can_be_better() {
        let policy = CheckpointPolicy { mode: Mode::Max, ..keep(1) };
        assert_eq!(
            policy.after_epoch(&known(&[(1, 0.1)]), 2, &loss(0.2), false),
            [Save, LinkLast, LinkBest, Delete(1)]
        );
    }

    #[test]
    fn epochs_between_are_left_out_but_not_the_final_one() {
        let policy = CheckpointPolicy { save_every_n_epochs: 5, ..keep(3) };
        assert_eq!(policy.after_epoch(&[], 4, &loss(0.1), false), []);
        assert_eq!(policy.after_epoch(&[], 5, &loss(0.1), false), [Save, LinkLast, LinkBest]);
        assert_eq!(policy.after_epoch(&known(&[(5, 0.1)]), 7, &loss(0.2), true), [Save, LinkLast]);
    }

    #[test]
    fn an_epoch_that_is_to_be_kept_is_saved_and_stays() {
        let policy = CheckpointPolicy { save_every_n_epochs: 5, keep_epochs: vec![4], ..keep(1) };
        assert_eq!(policy.after_epoch(&[], 3, &loss(0.1), false), []);
        assert_eq!(policy.after_epoch(&[], 4, &loss(0.1), false), [Save, LinkLast, LinkBest]);
        let on_disk = known(&[(4, 0.1), (5, 0.05)]);
        assert_eq!(
            policy.after_epoch(&on_disk, 10, &loss(0.04), false),
            [Save, LinkLast, LinkBest, Delete(5)]
        );
    }

    #[test]
    fn null_keeps_all_and_off_keeps_none() {
        let policy = CheckpointPolicy { keep_last_n: None, ..Default::default() };
        assert_eq!(
            policy.after_epoch(&known(&[(1, 0.1), (2, 0.2)]), 3, &loss(0.3), false),
            [Save, LinkLast]
        );
        let policy = CheckpointPolicy { enabled: false, ..Default::default() };
        assert_eq!(policy.after_epoch(&[], 1, &loss(0.3), true), []);
    }

    #[test]
    fn values_that_cannot_work_are_refused() {
        let refused = |policy: CheckpointPolicy| policy.validate().unwrap_err().key;
        assert_eq!(refused(keep(0)), "keep_last_n");
        assert_eq!(
            refused(CheckpointPolicy { save_every_n_epochs: 0, ..keep(1) }),
            "save_every_n_epochs"
        );
        assert_eq!(refused(CheckpointPolicy { monitor: " ".into(), ..keep(1) }), "monitor");
        assert_eq!(refused(CheckpointPolicy { keep_top_k: Some(0), ..keep(1) }), "keep_top_k");
        let two = CheckpointPolicy { run_number: Some(1), resume_from_run: Some(2), ..keep(1) };
        assert_eq!(refused(two), "resume_from_run");
    }

    #[test]
    fn a_monitor_is_one_of_the_reported_metrics() {
        let monitor = |name: &str| CheckpointPolicy { monitor: name.into(), ..keep(1) };
        let said = |name: &str, reported: &[&str]| {
            monitor(name).check_reported(reported.iter().copied()).map_err(|e| (e.key, e.message))
        };
        assert_eq!(said("val/acc", &["loss", "val/acc"]), Ok(()));
        let text = "the training reports no `val_los`; it reports train_loss, val_loss; did you mean `val_loss`?";
        assert_eq!(said("val_los", &["val_loss", "train_loss"]), Err(("monitor", text.to_owned())));
        let text = "the training reports no `fid`, nor any other metric";
        assert_eq!(said("fid", &[]), Err(("monitor", text.to_owned())));
    }
}

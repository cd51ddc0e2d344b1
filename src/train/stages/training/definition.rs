//! A training of this program's models as a stage sees it, and as its runs do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pipe_engine::identity::Difference;
use pipe_engine::kind::{Files, Reference};
use pipe_runs::Metadata;
use pipe_trainer::{Changeable, HORIZON, IN_TIME, PlannedLength, TotalEpochs, later_setting};
use serde_json::Value;

use crate::stages::artifacts::checkpoint_reference;
use crate::stages::{init, resume_checkpoint};
use crate::trainer::{HORIZON_STEPS, Periods, TrainingSettings};

/// A training as a stage sees it.
pub(crate) struct Training<'a> {
    /// Those that it begins with.
    pub settings: &'a TrainingSettings,
    pub periods: &'a Periods,
    /// The stage's settings as they are recorded.
    pub value: Value,
    /// Folder of the numbered runs, if the settings name none.
    pub base_dir: &'static str,
    /// LoRA's factors are trained, not a whole model.
    pub factors: bool,
}

impl Training<'_> {
    /// The training as its runs know it, in `with`.
    pub(super) fn with_runs<T>(&self, with: impl FnOnce(&pipe_trainer::Training) -> T) -> T {
        with(&pipe_trainer::Training {
            policy: &self.settings.checkpoint,
            settings: &self.value,
            base_dir: self.base_dir,
            experiment_name: self.settings.experiment_name.as_deref(),
            seed: self.settings.seed,
            epochs: TotalEpochs::By(&|data| self.periods.epochs_on(data.train_images as usize)),
            stopping: self.settings.stopping(),
            resumes: true,
            advice: &|different| self.horizon_advice(different),
            pace: &pace,
            same_until: &|different, run| self.same_until(different, run),
            changeable: &|key, different| match key {
                // More epochs alone are no wish for another schedule.
                HORIZON | HORIZON_STEPS => (different.len() > 1
                    || self.settings.schedule_epochs.is_some())
                .then_some(Changeable::Anywhere),
                key => changeable(key),
            },
        })
    }

    /// What the checkpoint of another stage that it begins with counts by.
    pub fn init_reference(&self) -> Option<Reference> {
        let stage = self.settings.init.as_ref()?.stage()?;
        Some(checkpoint_reference(init::KEY, stage))
    }

    /// Files that other stages may write.
    pub fn files(&self) -> Files {
        resume_checkpoint::files(self.settings)
    }

    /// Digests of files that decide the result.
    pub fn content(&self, root: &Path) -> BTreeMap<String, String> {
        resume_checkpoint::content(self.settings, root)
    }

    /// The folder of its numbered runs, relative to the project.
    pub fn folder(&self) -> PathBuf {
        self.with_runs(|training| training.folder())
    }

    /// The epochs that a run has in common with it, where they differ in the length of the schedule
    /// or in what changes on the way.
    fn same_until(&self, different: &[Difference], run: &Metadata) -> Option<u64> {
        let schedule = &self.settings.schedule;
        if different.is_empty() {
            // Its length was found for another time.
            let theirs = PlannedLength::of(run)?.epochs;
            return Some(schedule.stable_epochs(theirs)).filter(|epochs| *epochs > 0);
        }
        let of = |Difference { key, old, new }: &Difference| {
            let later = later_setting(key);
            if new.is_some()
                && later.map_or(key.as_str(), |(setting, _)| setting) == HORIZON
                && let Some(theirs) = old.as_ref().and_then(length)
            {
                let same = || self.periods.same_rates(theirs).unwrap_or(u64::MAX);
                let is_open = self.settings.places_decay();
                return if is_open { schedule.stable_epochs(theirs) } else { same() };
            }
            later.map_or(0, |(_, epoch)| epoch)
        };
        different.iter().map(of).min().filter(|epochs| *epochs > 0)
    }

    /// What to do about a schedule that would have another length.
    fn horizon_advice(&self, different: &[Difference]) -> Option<String> {
        let kind = self.settings.schedule.kind.name();
        let old = |key: &str| different.iter().find(|d| d.key == key)?.old.as_ref()?.as_u64();
        if let Some(steps) = old(HORIZON_STEPS) {
            return Some(format!(
                "a {kind} schedule depends on its length, which is `max_steps` where neither epochs nor schedule_epochs \
                 are set: keep `max_steps: {steps}`"
            ));
        }
        let old = old(HORIZON)?;
        if let Some(stable) = Some(self.settings.schedule.stable_epochs(old)).filter(|n| *n > 0) {
            return Some(format!(
                "a {kind} schedule falls at its end, here after epoch {stable}, so that a training of another length is a \
                 run of its own, which goes on from there: keep `epochs: {old}`"
            ));
        }
        let learns = self.settings.epochs <= old || self.settings.schedule.min_lr_ratio > 0.0;
        if learns && self.settings.epochs > 2 * old {
            return Some(format!(
                "a {kind} schedule depends on its length, and this run's has {old} epochs: the rest would be trained \
                 at its last rate. `epochs: {old}` goes on with the run"
            ));
        }
        Some(if learns {
            format!(
                "a {kind} schedule depends on its length: extend it with `schedule_epochs: {old}`"
            )
        } else {
            format!(
                "a {kind} schedule depends on its length, and this one ends at a learning rate of 0 after epoch {old}, \
                 so that more epochs of the same run would learn nothing: keep `epochs: {old}`"
            )
        })
    }
}

/// The epochs that a schedule spans, by its value in a manifest; without end as long as that is to be
/// found.
fn length(horizon: &Value) -> Option<u64> {
    if *horizon == IN_TIME { Some(u64::MAX) } else { horizon.as_u64() }
}

/// How many times as long an epoch takes with another value of a setting, where that is known.
fn pace(change: &Difference) -> Option<f64> {
    let key = change.key.as_str();
    let ratio = || {
        let number = |value: &Option<Value>| value.as_ref().and_then(Value::as_f64);
        let (old, new) = (number(&change.old)?, number(&change.new)?);
        (old > 0.0).then_some(new / old)
    };
    match key {
        // Pixels are what a network is busy with.
        "dataset.image_size" => ratio().map(|ratio| ratio * ratio),
        "dataset.num_images" => ratio(),
        key if keeps_pace(key) => Some(1.0),
        _ => None,
    }
}

/// Whether a step takes as long with another value of a setting.
fn keeps_pace(key: &str) -> bool {
    let key = later_setting(key).map_or(key, |(setting, _)| setting);
    let is_of_values =
        key == "seed" || key.starts_with("schedule ") || key.starts_with("objective");
    is_of_values || (key != "precision" && matches!(changeable(key), Some(Changeable::Anywhere)))
}

/// Where a run can go on with another value of a setting: one that decides how steps are made, and
/// nothing of what a checkpoint holds or means.
fn changeable(key: &str) -> Option<Changeable> {
    match key {
        // It was trained with it.
        key if later_setting(key).is_some() => None,
        "batch_size" | "accumulate_grad_batches" => Some(Changeable::BetweenEpochs),
        // With it the network has weights of its own.
        "dataset.augmentation.probability" => None,
        key if key.starts_with("dataset.augmentation") => Some(Changeable::BetweenEpochs),
        "learning_rate"
        | "gradient_clip_val"
        | "ema.decay"
        | "precision"
        | "optimizer.betas"
        | "optimizer.eps"
        | "optimizer.weight_decay"
        | "label_dropout"
        | "model.label_dropout"
        | "model.dropout"
        | "lora.lora_dropout" => Some(Changeable::Anywhere),
        key if key.starts_with("schedule.") => Some(Changeable::Anywhere),
        _ => None,
    }
}

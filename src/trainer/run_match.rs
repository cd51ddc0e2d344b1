//! Whether a numbered run matches what a training wants now, and what is different where it does
//! not: settings, what it is trained on, and files that settings name.

use std::collections::BTreeMap;

use pipe_engine::identity::{Difference, differences, in_words};
use pipe_runs::Metadata;
use serde_json::Value;

use crate::budget::{HORIZON, IN_TIME, PlannedLength};

/// Key of a manifest: digest of the checkpoint that a training starts from.
pub const RESUME_CONTENT: &str = "content of checkpoint.resume_checkpoint";

/// Key of a manifest: digest of the checkpoint file whose weights a training begins with.
pub const INIT_CONTENT: &str = "content of init";

/// What a training is trained on, besides its settings: images, files.
pub trait TrainingData {
    /// As a run's metadata notes it.
    fn digest(&self) -> &str;

    /// What is different from what a run was trained on, in words and for a plan. `settings`: the
    /// settings that are different, which can be the reason.
    fn changes(&self, run: &Metadata, settings: &[Difference]) -> (String, Vec<Difference>);

    /// How a message says that it is another one, and how one goes back.
    fn other(&self) -> (&'static str, &'static str);
}

/// What a training wants now.
pub struct RunCriteria<'a> {
    pub manifest: &'a BTreeMap<String, Value>,
    /// Keys of the manifest that are not known yet.
    pub unknown: &'a [String],
    /// Keys of the manifest that are compared as data, whatever is known of it.
    pub is_data: &'a dyn Fn(&str) -> bool,
    /// `None` if it is not known yet.
    pub data: Option<&'a dyn TrainingData>,
}

impl<'a> RunCriteria<'a> {
    /// Settings that are others than the run's, and files that they name.
    pub fn settings_changed(&self, run: &Metadata) -> Vec<Difference> {
        let mut changed = differences(&run.manifest, self.manifest);
        changed.retain(|d| match d.key.as_str() {
            // Its length was fixed on the way.
            HORIZON if d.new.as_ref() == Some(&IN_TIME.into()) => PlannedLength::of(run).is_none(),
            // Compared by what every run notes of it, those of earlier versions too.
            key if (self.is_data)(key) => false,
            // A run of an earlier version did not note it, and a file that is gone tells nothing.
            RESUME_CONTENT | INIT_CONTENT => d.old.is_some() && d.new.is_some(),
            key => !self.unknown.iter().any(|unknown| unknown == key),
        });
        changed
    }

    /// What it is trained on, if that is known to be another one than the run's.
    pub fn data_changed(&self, run: &Metadata) -> Option<&'a dyn TrainingData> {
        self.data.filter(|data| data.digest() != run.dataset.digest)
    }

    pub fn matches(&self, run: &Metadata) -> bool {
        self.data_changed(run).is_none() && self.settings_changed(run).is_empty()
    }

    /// All that is different, for a plan, and in words.
    pub fn changes(&self, run: &Metadata) -> (Vec<Difference>, String) {
        let mut changes = self.settings_changed(run);
        let mut words = in_words(&changes);
        if let Some(data) = self.data_changed(run) {
            let (told, more) = data.changes(run, &changes);
            if !more.is_empty() {
                let separator = if words.is_empty() { "" } else { ", " };
                words = format!("{words}{separator}{told}");
                changes.extend(more);
            }
        }
        (changes, words)
    }
}

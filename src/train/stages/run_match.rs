//! Whether a numbered run matches what a training wants now, and what is different where it does
//! not: settings, images, and files that settings name. Pure but for the words about images, which
//! may come from a list in the cache.

use std::collections::BTreeMap;

use pipe_engine::identity::{Difference, differences, in_words};
use pipe_fs::ProjectRoot;
use pipe_runs::Metadata;
use serde_json::Value;

use crate::data::{self, DatasetSummary};

/// Key of a manifest: digest of the data set, where its settings alone do not decide it.
pub(super) const DATA: &str = "dataset";
/// Key of a manifest: digest of the checkpoint that a training starts from.
pub(super) const RESUME_CONTENT: &str = "content of checkpoint.resume_checkpoint";

/// What a training wants now.
pub(super) struct RunCriteria<'a> {
    pub root: &'a ProjectRoot,
    pub manifest: &'a BTreeMap<String, Value>,
    /// Keys of the manifest that are not known yet.
    pub unknown: &'a [String],
    /// The images; `None` if they are not known yet.
    pub data: Option<&'a DatasetSummary>,
}

impl RunCriteria<'_> {
    /// Settings that are others than the run's, and files that they name.
    pub fn settings_changed(&self, run: &Metadata) -> Vec<Difference> {
        let mut changed = differences(&run.manifest, self.manifest);
        changed.retain(|d| match d.key.as_str() {
            // Images are compared by what every run notes of them, those of earlier versions too.
            DATA => false,
            // A run of an earlier version did not note it, and a file that is gone tells nothing.
            RESUME_CONTENT => d.old.is_some() && d.new.is_some(),
            key => !self.unknown.iter().any(|unknown| unknown == key),
        });
        changed
    }

    /// The images, if they are known to be others than the run's.
    pub fn data_changed(&self, run: &Metadata) -> Option<&DatasetSummary> {
        self.data.filter(|data| data.digest != run.dataset.digest)
    }

    pub fn matches(&self, run: &Metadata) -> bool {
        self.data_changed(run).is_none() && self.settings_changed(run).is_empty()
    }

    /// All that is different, for a plan, and in words.
    pub fn changes(&self, run: &Metadata) -> (Vec<Difference>, String) {
        let mut changes = self.settings_changed(run);
        let mut words = in_words(&changes);
        let data = self.data_changed(run);
        // Where a setting of the data set is another one, so are its images: the setting is what to
        // tell.
        let explained = changes.iter().any(|d| d.key.starts_with("dataset."));
        if let Some(data) = data.filter(|_| !explained) {
            let separator = if words.is_empty() { "" } else { ", " };
            let record = &run.dataset;
            let trained_on = DatasetSummary {
                digest: record.digest.clone(),
                images: record.train_images + record.validation_images,
                classes: record.classes.clone(),
                is_synthetic: false,
            };
            words = format!(
                "{words}{separator}{}",
                data::describe_change(self.root, &trained_on, data)
            );
            let (old, new) = (run.dataset.digest.as_str().into(), data.digest.as_str().into());
            changes.push(Difference { key: DATA.to_owned(), old: Some(old), new: Some(new) });
        }
        (changes, words)
    }
}

#[cfg(test)]
mod tests {
    use pipe_runs::{DatasetRecord, SCHEMA_VERSION, Status};
    use serde_json::json;

    use super::*;

    fn manifest(entries: Value) -> BTreeMap<String, Value> {
        serde_json::from_value(entries).unwrap()
    }

    fn run(entries: Value, data: &str) -> Metadata {
        let now = chrono::Utc::now();
        Metadata {
            schema_version: SCHEMA_VERSION,
            run_number: 1,
            experiment_name: String::new(),
            pipeline: "p".into(),
            stage: "base".into(),
            status: Status::Completed,
            message: None,
            created_at: now,
            updated_at: now,
            version: String::new(),
            git_commit: None,
            device: String::new(),
            seed: 0,
            epochs: 2,
            identity: String::new(),
            manifest: manifest(entries),
            settings: Value::Null,
            dataset: DatasetRecord {
                source: "image_folder".into(),
                digest: data.into(),
                classes: vec!["a".into()],
                train_images: 8,
                validation_images: 1,
            },
            resumed_from: None,
            checkpoints: Vec::new(),
            best_checkpoint: None,
            partial_checkpoint: None,
            history: Vec::new(),
            other: serde_json::Map::new(),
        }
    }

    fn seen(digest: &str, images: u64) -> DatasetSummary {
        DatasetSummary {
            digest: digest.into(),
            images,
            classes: vec!["a".into()],
            is_synthetic: false,
        }
    }

    fn changes(
        criteria: Value,
        data: Option<&DatasetSummary>,
        unknown: &[&str],
        run: &Metadata,
    ) -> String {
        let unknown: Vec<String> = unknown.iter().map(|u| u.to_string()).collect();
        let manifest = manifest(criteria);
        let criteria = RunCriteria {
            root: &ProjectRoot::from(std::path::Path::new("nowhere")),
            manifest: &manifest,
            unknown: &unknown,
            data,
        };
        let (changes, words) = criteria.changes(run);
        assert_eq!(criteria.matches(run), changes.is_empty());
        words
    }

    #[test]
    fn a_run_of_a_version_that_noted_less_fits_by_what_it_noted() {
        let old = run(json!({"seed": 1}), "d1");
        let now = json!({"seed": 1, "dataset": "d1", RESUME_CONTENT: "x"});
        assert_eq!(changes(now, Some(&seen("d1", 9)), &[], &old), "");
    }

    #[test]
    fn other_images_are_told_by_their_counts_and_not_by_digests() {
        let old = run(json!({"seed": 1, "dataset": "d1"}), "d1");
        let now = json!({"seed": 1, "dataset": "d2"});
        assert_eq!(
            changes(now.clone(), Some(&seen("d2", 34)), &[], &old),
            "34 images instead of 9"
        );
        let same_count = changes(now.clone(), Some(&seen("d2", 9)), &[], &old);
        assert_eq!(same_count, "9 images as before, with another content");
        assert_eq!(changes(now, None, &["dataset"], &old), "", "not known yet");
    }

    #[test]
    fn a_setting_of_the_data_set_explains_its_digest() {
        let old = run(json!({"dataset.image_size": 8, "dataset": "d1"}), "d1");
        let now = json!({"dataset.image_size": 16, "dataset": "d2"});
        assert_eq!(changes(now, Some(&seen("d2", 9)), &[], &old), "dataset.image_size 8 -> 16");
    }

    #[test]
    fn the_file_that_a_training_starts_from_counts_where_both_sides_know_it() {
        let old = run(json!({RESUME_CONTENT: "a"}), "d");
        let data = seen("d", 9);
        let other = changes(json!({RESUME_CONTENT: "b"}), Some(&data), &[], &old);
        assert_eq!(other, "content of checkpoint.resume_checkpoint a -> b");
        assert_eq!(changes(json!({}), Some(&data), &[], &old), "", "the file is gone");
    }
}

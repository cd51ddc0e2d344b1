//! The images that a training is trained on, beside those of its numbered runs.

use std::path::Path;

use pipe_engine::identity::Difference;
use pipe_runs::Metadata;
use pipe_trainer::run_match::TrainingData;

use crate::data::{self, DatasetSummary};

/// Key of a manifest: digest of the data set, where its settings alone do not decide it.
pub(super) const DATA: &str = "dataset";

/// Images as they are now.
pub(super) struct Images<'a> {
    pub root: &'a Path,
    pub seen: &'a DatasetSummary,
}

/// Whether a key of a manifest is about images: they are compared by what every run notes of them,
/// those of earlier versions too.
pub(super) fn is_data(key: &str) -> bool {
    key == DATA
}

impl TrainingData for Images<'_> {
    fn digest(&self) -> &str {
        &self.seen.digest
    }

    fn changes(&self, run: &Metadata, settings: &[Difference]) -> (String, Vec<Difference>) {
        // Where a setting of the data set is another one, so are its images: the setting is what to
        // tell.
        if settings.iter().any(|d| d.key.starts_with("dataset.")) {
            return (String::new(), Vec::new());
        }
        let record = &run.dataset;
        let trained_on = DatasetSummary {
            digest: record.digest.clone(),
            images: record.train_images + record.validation_images,
            classes: record.classes.clone(),
            is_synthetic: false,
        };
        let words = data::describe_change(self.root, &trained_on, self.seen);
        let (old, new) = (record.digest.as_str().into(), self.digest().into());
        let change = Difference { key: DATA.to_owned(), old: Some(old), new: Some(new) };
        (words, vec![change])
    }

    fn other(&self) -> (&'static str, &'static str) {
        ("on other images", "put the old images back")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use pipe_runs::{DatasetRecord, SCHEMA_VERSION, Status};
    use pipe_trainer::run_match::{RESUME_CONTENT, RunCriteria};
    use serde_json::{Value, json};

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
            changes: Vec::new(),
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
        let images = data.map(|seen| Images { root: Path::new("nowhere"), seen });
        let criteria = RunCriteria {
            manifest: &manifest,
            unknown: &unknown,
            is_data: &is_data,
            data: images.as_ref().map(|images| images as &dyn TrainingData),
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

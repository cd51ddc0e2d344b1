//! The files that a program reads, beside those that a numbered run was trained on.

use std::collections::BTreeMap;
use std::fmt::Write;

use pipe_core::digest::hex;
use pipe_engine::command::InputFiles;
use pipe_engine::identity::{Difference, differences};
use pipe_runs::{DatasetRecord, Metadata};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::run_match::TrainingData;

/// Begins the keys of a manifest that are about files.
const CONTENT: &str = "content of ";

/// Whether a key of a manifest is about files that the program reads.
pub(super) fn is_data(key: &str) -> bool {
    key.starts_with(CONTENT)
}

/// The key of a manifest for the files that match a pattern.
pub(super) fn key(pattern: &str) -> String {
    format!("{CONTENT}{pattern}")
}

/// A digest for each pattern, by its key in the manifest.
pub(super) fn content(inputs: &[InputFiles]) -> BTreeMap<String, String> {
    let digest = |input: &InputFiles| {
        let mut hash = Sha256::new();
        for file in input.files.as_ref()? {
            hash.update(format!("{}={}\n", file.path, file.digest));
        }
        let digest = format!("sha256:{}", hex(&hash.finalize()));
        Some((key(&input.pattern), digest))
    };
    inputs.iter().filter_map(digest).collect()
}

/// The files that a training reads now, as its manifest has them.
pub(super) struct Inputs {
    digest: String,
    content: BTreeMap<String, Value>,
}

impl Inputs {
    pub fn of(manifest: &BTreeMap<String, Value>) -> Self {
        let content = of_manifest(manifest);
        let mut text = String::new();
        for (key, digest) in &content {
            let _ = writeln!(text, "{key}={digest}");
        }
        Self { digest: format!("sha256:{}", hex(&Sha256::digest(text))), content }
    }

    /// As a run's metadata notes them.
    pub fn record(&self) -> DatasetRecord {
        DatasetRecord {
            source: "files".to_owned(),
            digest: self.digest.clone(),
            classes: Vec::new(),
            train_images: 0,
            validation_images: 0,
        }
    }
}

fn of_manifest(manifest: &BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    let data = manifest.iter().filter(|(key, _)| is_data(key));
    data.map(|(key, digest)| (key.clone(), digest.clone())).collect()
}

impl TrainingData for Inputs {
    fn digest(&self) -> &str {
        &self.digest
    }

    fn changes(&self, run: &Metadata, _: &[Difference]) -> (String, Vec<Difference>) {
        let changes = differences(&of_manifest(&run.manifest), &self.content);
        let word = |change: &Difference| {
            let name = change.key.strip_prefix(CONTENT).unwrap_or(&change.key);
            match (&change.old, &change.new) {
                (Some(_), Some(_)) => format!("{name} was changed"),
                (None, _) => format!("{name} is new"),
                (_, None) => format!("{name} is not read any more"),
            }
        };
        (changes.iter().map(word).collect::<Vec<_>>().join(", "), changes)
    }

    fn other(&self) -> (&'static str, &'static str) {
        ("with other files", "put the old files back")
    }
}

//! A run as the commands show it.

use pipe_runs::{Labels, Metadata, Run};
use serde_json::Value;

use super::select;

/// A run with what is known of it, or why nothing is.
pub(super) struct Entry {
    pub run: Run,
    /// The shortest name that means this run alone.
    pub name: String,
    pub known: Result<Metadata, String>,
    pub labels: Labels,
}

impl Entry {
    /// A column, setting or metric of it by name.
    pub fn value(&self, key: &str) -> Option<Value> {
        self.known.as_ref().ok().and_then(|m| select::value(key, m, &self.labels))
    }

    /// All that is known of it, as JSON.
    pub fn to_json(&self) -> Value {
        match &self.known {
            Ok(metadata) => {
                let mut record = serde_json::to_value(metadata).unwrap_or_default();
                if let Value::Object(object) = &mut record {
                    let labels = serde_json::to_value(&self.labels).unwrap_or_default();
                    object.insert("labels".into(), labels);
                    object.insert("name".into(), self.name.clone().into());
                }
                record
            }
            Err(error) => serde_json::json!({
                "run_number": self.run.number, "name": self.name, "error": error
            }),
        }
    }
}

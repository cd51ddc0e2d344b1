//! What a stage ends with, and hands to those that refer to it.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use pipe_core::digest::hex;
use pipe_core::number_text;
use pipe_core::shell;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What a stage hands on, by its sort: a reference asks for one. Those who declare stage kinds
/// declare the types, such as `ArtifactType::new("checkpoint")`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArtifactType(&'static str);

impl ArtifactType {
    /// Files, and nothing that another stage could take by naming the stage.
    pub const FILES: Self = Self::new("files");

    /// Numbers by name, such as a score of a model: [`Metrics`].
    pub const METRICS: Self = Self::new("metrics");

    /// `name`: a noun in the singular, for messages.
    pub const fn new(name: &'static str) -> Self {
        Self(name)
    }

    pub fn name(self) -> &'static str {
        self.0
    }
}

/// What a stage hands to those that refer to it.
#[derive(Clone)]
pub struct Artifact {
    value: Arc<dyn Any + Send + Sync>,
    /// Digest of it, for references that count by content.
    pub content: Option<String>,
}

impl Artifact {
    pub fn new<T: Any + Send + Sync>(value: T, content: Option<String>) -> Self {
        Self { value: Arc::new(value), content }
    }

    /// The value, if it is a `T`.
    pub fn get<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.value.clone().downcast().ok()
    }
}

/// Numbers by name that a stage found out, such as the `fid` of a model. They are finite.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Metrics(pub BTreeMap<String, f64>);

impl Metrics {
    /// As an artifact of the type [`ArtifactType::METRICS`]: it counts by its names and values.
    pub fn artifact(self) -> Artifact {
        let text = serde_json::to_string(&self).unwrap_or_default();
        let content = format!("sha256:{}", hex(&Sha256::digest(text)));
        Artifact::new(self, Some(content))
    }

    /// In one line, for a plan and a summary: `fid=12.3400 kid=0.0210`.
    pub fn shown(&self) -> String {
        const FEW: usize = 5;
        let some = self
            .0
            .iter()
            .take(FEW)
            .map(|(name, value)| format!("{name}={}", number_text::short(*value)));
        let left = self.0.len().saturating_sub(FEW);
        let more = (left > 0).then(|| format!("and {left} more"));
        some.chain(more).collect::<Vec<_>>().join(" ")
    }
}

/// What a stage ended with.
#[derive(Clone, Default)]
pub struct Outcome {
    pub artifact: Option<Artifact>,
    /// One line for the final summary.
    pub summary: String,
    /// A command that one would type next.
    pub next: Option<NextCommand>,
}

/// A command that one would type next, from the project's folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NextCommand {
    pub command: String,
    /// How good what it is about came out. Of the stages of one matrix that with the highest has
    /// its command shown.
    #[serde(rename = "merit", default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
}

impl From<shell::CommandLine> for NextCommand {
    fn from(line: shell::CommandLine) -> Self {
        Self { command: line.to_string(), score: None }
    }
}

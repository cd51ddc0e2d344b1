//! What a stage ends with, and hands to those that refer to it.

use std::any::Any;
use std::sync::Arc;

use pipe_core::shell;
use serde::{Deserialize, Serialize};

/// What a stage hands on, by its sort: a reference asks for one. Those who declare stage kinds
/// declare the types, such as `ArtifactType::new("checkpoint")`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArtifactType(&'static str);

impl ArtifactType {
    /// Files, and nothing that another stage could take by naming the stage.
    pub const FILES: Self = Self::new("files");

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

//! How a stage or a run was last left.

use serde::{Deserialize, Serialize};

/// How a stage or a run was last left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Under way, or ended without a word: a crash, a power cut.
    Running,
    /// Stopped by a signal.
    Interrupted,
    Failed,
    Completed,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Status::Running => "running",
            Status::Interrupted => "interrupted",
            Status::Failed => "failed",
            Status::Completed => "completed",
        }
    }
}

//! A stage and its job as `pipe status` and the page show them.

use chrono::{DateTime, Utc};
use pipe_engine::exec::slurm::JobState;
use pipe_engine::kind::{Metrics, StageId};
use pipe_engine::state::{Job, Progress, Record};
use serde::Serialize;

/// A stage as it stands.
#[derive(Debug, Serialize)]
pub struct StageStatus {
    pub stage: StageId,
    pub kind: String,
    /// `done`, `partial`, `running`, `failed`, `stale`, `not run`, or `on demand` for what keeps
    /// nothing.
    pub status: &'static str,
    pub detail: String,
    pub progress: Option<Progress>,
    /// What a program found out, where it is up to date and says so in numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Metrics>,
    /// Who runs it now.
    pub holder: Option<String>,
    pub updated_at: Option<DateTime<Utc>>,
    pub record: Option<Record>,
    /// Its last job of Slurm.
    pub job: Option<JobStatus>,
}

/// A stage's job, for `pipe status`.
#[derive(Debug, Serialize)]
pub struct JobStatus {
    pub id: String,
    /// Slurm's word; unset if it has forgotten the job or cannot be asked.
    pub state: Option<String>,
    /// Why it waits, or how it ended.
    pub reason: Option<String>,
    /// Where it runs.
    pub node: Option<String>,
    pub submitted_at: DateTime<Utc>,
    pub log: String,
}

impl JobStatus {
    pub fn new(job: &Job, state: Option<&JobState>) -> Self {
        let some = |text: &String| (!text.is_empty()).then(|| text.clone());
        Self {
            id: job.id.to_string(),
            state: state.map(|state| state.word.clone()).or(job.ended.clone()),
            reason: state.and_then(|state| some(&state.reason)),
            node: state.and_then(|state| some(&state.node)),
            submitted_at: job.submitted_at,
            log: job.log.clone(),
        }
    }

    /// In a table's cell: `12 PENDING (Priority)`.
    pub fn cell(&self) -> String {
        let waits = self.state.as_deref() == Some("PENDING");
        let beside = if waits { &self.reason } else { &self.node };
        let words = [
            Some(self.id.clone()),
            self.state.clone(),
            beside.as_ref().map(|text| format!("({text})")),
        ];
        words.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

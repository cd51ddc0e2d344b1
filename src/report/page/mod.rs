//! The page that `pipe report` writes and `pipe ui` serves: one HTML file that loads nothing. Knows
//! what a project's files say, not who asked.

mod collect;
mod drawn;
mod samples;
pub mod serve;
mod stage_log;

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
pub use collect::{image_grids_in, join_metrics, runs_in, stamp};
use pipe_runs::{CheckpointRecord, DatasetRecord};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
pub use stage_log::{log_bytes, stage_logs};

use crate::report::stage_status::StageStatus;

const HTML: &str = include_str!("page.html");
const CSS: &str = include_str!("page.css");
/// One script: its files share a scope of their own.
const JS: &str = concat!(
    "\"use strict\";\n(() => {\n",
    include_str!("js/basics.js"),
    include_str!("js/names.js"),
    include_str!("js/stages.js"),
    include_str!("js/chart.js"),
    include_str!("js/curves.js"),
    include_str!("js/runs.js"),
    include_str!("js/compare.js"),
    include_str!("js/samples.js"),
    include_str!("js/page.js"),
    "})();\n",
);

/// All that the page shows.
#[derive(Debug, Serialize)]
pub struct Page {
    pub title: String,
    /// The pipeline file, if one was named.
    pub file: Option<String>,
    /// The command that runs it, from the project's folder.
    pub run: Option<String>,
    pub generated_at: DateTime<Utc>,
    pub version: String,
    pub stages: Vec<StageNode>,
    pub runs: Vec<RunData>,
    /// What `sample` stages drew from checkpoints of no run on the page.
    #[serde(rename = "drawn")]
    pub image_grids: Vec<samples::ImageGrid>,
    /// What could not be read.
    pub warnings: Vec<String>,
}

/// A stage in the graph.
#[derive(Debug, Serialize)]
pub struct StageNode {
    #[serde(flatten)]
    pub status: StageStatus,
    pub needs: Vec<String>,
    /// How long it last took, or takes already.
    pub seconds: Option<f64>,
    /// What it last told.
    pub log: Vec<stage_log::LogLine>,
}

/// A numbered run.
#[derive(Debug, Serialize)]
pub struct RunData {
    /// The run's folder: what tells it from all others.
    pub folder: String,
    pub number: u32,
    pub experiment: String,
    pub pipeline: String,
    pub stage: String,
    /// `train` or `lora`.
    pub kind: String,
    pub status: &'static str,
    pub message: Option<String>,
    /// Settings that were changed inside it, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
    pub note: Option<String>,
    pub tags: Vec<String>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    /// Time spent in epochs.
    pub seconds: f64,
    pub version: String,
    pub git_commit: Option<String>,
    pub device: String,
    pub seed: u64,
    pub epochs: u64,
    pub identity: String,
    /// What decides the result, by key.
    pub settings: BTreeMap<String, Value>,
    pub dataset: DatasetRecord,
    pub monitor: String,
    /// Whether a lower (`min`) or a higher (`max`) monitor is better.
    pub mode: String,
    pub best: Option<CheckpointRecord>,
    pub checkpoints: Vec<CheckpointRecord>,
    /// Figures by name, each a list of points `[epoch, value]`; fractions of epochs where steps
    /// were logged.
    pub curves: BTreeMap<String, Vec<(f64, f64)>>,
    /// Where each epoch ended: `[epoch, optimizer steps, seconds of training]`, counted from the
    /// run's beginning.
    pub timeline: Vec<(u64, u64, f64)>,
    pub samples: Vec<samples::Sample>,
    /// Pictures that had no room on the page.
    pub samples_left_out: usize,
    /// What `sample` stages drew from its checkpoints.
    #[serde(rename = "drawn")]
    pub image_grids: Vec<samples::ImageGrid>,
    /// The stages that looked at each of its checkpoints.
    #[serde(skip)]
    followers: Vec<Follower>,
    /// The folder of the run whose checkpoint it began with, if it is on the page.
    pub base: Option<String>,
    /// It keeps the base model that its own weights belong to.
    pub has_base: bool,
    /// The resolved pipeline file.
    pub config: String,
}

/// A stage that looked at each checkpoint of a run.
#[derive(Debug)]
struct Follower {
    pipeline: String,
    stage: String,
    /// When it did so last.
    looked_at: DateTime<Utc>,
}

/// What a browser may load for the page and run of it: its own script, and nothing from elsewhere.
fn content_policy() -> String {
    let script = STANDARD.encode(Sha256::digest(JS));
    format!(
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{script}'; \
         connect-src 'self'; base-uri 'none'; form-action 'none'"
    )
}

impl Page {
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The whole page. `live`: it asks its server for news.
    pub fn to_html(&self, live: bool) -> String {
        // Inside a script element only `<` can end or open something.
        let data = self.to_json().replace('<', "\\u003c");
        let title = self.title.replace('&', "&amp;").replace('<', "&lt;");
        // The data last: it may hold anything.
        HTML.replace("/*CSS*/", CSS)
            .replace("/*JS*/", JS)
            .replace("<!--POLICY-->", &content_policy())
            .replace("<!--TITLE-->", &title)
            .replace("data-live=\"\"", if live { "data-live=\"1\"" } else { "data-live=\"\"" })
            .replace("/*DATA*/", &data)
    }
}

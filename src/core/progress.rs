//! What a running stage tells the world. How it is shown is not known here.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::failure::{Failure, RetryChange};
use crate::ids::StageId;
use crate::secret;

/// Receives events; must be cheap and must not fail.
pub trait EventListener: Send + Sync {
    fn event(&self, stage: &StageId, event: &Event);
}

/// Throws every event away.
pub struct NullListener;

impl EventListener for NullListener {
    fn event(&self, _: &StageId, _: &Event) {}
}

/// An event as a JSON object, with its stage and the time.
pub fn to_json(stage: &StageId, event: &Event) -> Map<String, Value> {
    let mut object = match serde_json::to_value(event) {
        Ok(Value::Object(object)) => object,
        _ => Map::new(),
    };
    object.insert("stage".into(), stage.as_str().into());
    object.insert("time".into(), chrono::Utc::now().to_rfc3339().into());
    object
}

/// What the progress of a preparation is counted in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    #[default]
    Bytes,
    Images,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The stage begins; `action` is the plan's word for it.
    Started { action: String, reason: String },
    /// The stage ended well.
    Finished { summary: String, seconds: f64 },
    /// The stage was left as it is.
    Skipped { reason: String },
    /// The stage ended badly.
    Failed { failure: Failure, message: String },
    /// An attempt failed and another one follows.
    Retrying {
        attempt: u32,
        failure: Failure,
        message: String,
        wait_seconds: f64,
        change: RetryChange,
    },
    /// A line that a program wrote.
    Output { line: String },
    /// A line for people.
    Message { text: String },
    /// Something legal and probably not meant.
    Warning { text: String },
    /// A piece of preparation with a known or unknown end.
    Preparing {
        what: String,
        done: u64,
        total: Option<u64>,
        #[serde(default)]
        unit: Unit,
    },
    /// A numbered run was created or opened.
    RunOpened {
        number: u32,
        experiment: String,
        directory: String,
        device: String,
        parameters: u64,
        /// Those of them that change.
        trainable: u64,
    },
    /// Training goes on from a checkpoint.
    Resumed { checkpoint: String, epoch: u64, step_in_epoch: u64, metrics: BTreeMap<String, f64> },
    /// An optimizer step was done. Losses are read back only every so often, hence the option.
    Step {
        epoch: u64,
        epochs: u64,
        step: u64,
        steps: u64,
        loss: Option<f64>,
        images_per_second: f64,
        /// Main memory of this process in bytes, where the system tells.
        memory: Option<u64>,
    },
    /// An epoch was done.
    Epoch {
        epoch: u64,
        epochs: u64,
        metrics: BTreeMap<String, f64>,
        seconds: f64,
        images_per_second: f64,
    },
    /// A checkpoint stands on disk. Writing took `seconds`; the training stood still for `blocked`
    /// seconds, to copy the state and to wait for the checkpoint before.
    Saved { file: String, bytes: u64, seconds: f64, blocked: f64 },
    /// The checkpoint just saved is the best so far.
    NewBest {
        monitor: String,
        value: f64,
        /// Its epoch: a checkpoint is written while the next epoch is under way.
        #[serde(default)]
        epoch: u64,
    },
    /// Training reached its last epoch.
    Completed { best_epoch: Option<u64>, monitor: String, value: Option<f64> },
}

impl Event {
    /// As it is told and kept: without secrets in what it says.
    pub fn told(&self) -> Cow<'_, Self> {
        let mut event = Cow::Borrowed(self);
        // Of a program's output it is done before its lines are cut.
        if let Self::Started { .. }
        | Self::Finished { .. }
        | Self::Skipped { .. }
        | Self::Failed { .. }
        | Self::Retrying { .. }
        | Self::Message { .. }
        | Self::Warning { .. } = self
            && let Self::Started { reason: text, .. }
            | Self::Finished { summary: text, .. }
            | Self::Skipped { reason: text }
            | Self::Failed { message: text, .. }
            | Self::Retrying { message: text, .. }
            | Self::Message { text }
            | Self::Warning { text } = event.to_mut()
        {
            *text = secret::told(text);
        }
        event
    }
}

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
    #[serde(rename = "images")]
    Items,
    /// Steps of the sampler, each of a batch of images.
    Steps,
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
    /// A folder for the stage's work was created or opened.
    #[serde(rename = "run_opened")]
    WorkOpened {
        number: u32,
        #[serde(rename = "experiment")]
        title: String,
        directory: String,
        device: String,
        /// Numbers that the work has, and those of them that change.
        #[serde(rename = "parameters")]
        size: u64,
        #[serde(rename = "trainable")]
        changing: u64,
    },
    /// The work goes on from a file.
    Resumed {
        #[serde(rename = "checkpoint")]
        file: String,
        /// Rounds that were done.
        #[serde(rename = "epoch")]
        position: u64,
        /// Steps of the next round that were done.
        #[serde(rename = "step_in_epoch")]
        step: u64,
        metrics: BTreeMap<String, f64>,
    },
    /// A step of a round was done.
    Step {
        /// The round, counted from 1.
        #[serde(rename = "epoch")]
        position: u64,
        /// Rounds in all.
        #[serde(rename = "epochs")]
        target: u64,
        /// Steps of this round that were done.
        step: u64,
        /// Steps of a round.
        steps: u64,
        /// What the work is judged by, where it was measured: that costs time.
        #[serde(rename = "loss")]
        value: Option<f64>,
        /// Items a second.
        #[serde(rename = "images_per_second")]
        rate: f64,
        /// Main memory of this process in bytes, where the system tells.
        memory: Option<u64>,
    },
    /// A round was done.
    #[serde(rename = "epoch")]
    Round {
        /// The round, counted from 1.
        #[serde(rename = "epoch")]
        position: u64,
        /// Rounds in all.
        #[serde(rename = "epochs")]
        target: u64,
        metrics: BTreeMap<String, f64>,
        seconds: f64,
        /// Items a second.
        #[serde(rename = "images_per_second")]
        rate: f64,
    },
    /// A file stands on disk from which the work can go on. Writing took `seconds`; the work stood
    /// still for `blocked` seconds.
    Saved { file: String, bytes: u64, seconds: f64, blocked: f64 },
    /// The file just saved is the best so far.
    NewBest {
        monitor: String,
        value: f64,
        /// Its round: a file is written while the next round is under way.
        #[serde(rename = "epoch", default)]
        position: u64,
    },
    /// What was found out about a file of another stage's.
    Judged {
        /// Relative to the project, where it is inside.
        #[serde(rename = "checkpoint")]
        file: String,
        /// Its round.
        #[serde(rename = "epoch")]
        position: u64,
        metrics: BTreeMap<String, f64>,
    },
    /// The last round was done.
    Completed {
        #[serde(rename = "best_epoch")]
        best: Option<u64>,
        monitor: String,
        value: Option<f64>,
    },
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Programs read these, and so do later versions of this one.
    #[test]
    fn events_are_written_under_the_names_that_they_have_always_had() {
        let metrics = || BTreeMap::from([("val_loss".to_owned(), 0.5)]);
        let (directory, device) = ("runs/run_001".to_owned(), "cpu".to_owned());
        let (title, file, monitor) = ("e".to_owned(), "a.ckpt".to_owned(), "val_loss".to_owned());
        for (event, written) in [
            (
                Event::WorkOpened { number: 1, title, directory, device, size: 9, changing: 3 },
                json!({"event": "run_opened", "number": 1, "experiment": "e",
                       "directory": "runs/run_001", "device": "cpu", "parameters": 9,
                       "trainable": 3}),
            ),
            (
                Event::Resumed { file: file.clone(), position: 2, step: 7, metrics: metrics() },
                json!({"event": "resumed", "checkpoint": "a.ckpt", "epoch": 2, "step_in_epoch": 7,
                       "metrics": {"val_loss": 0.5}}),
            ),
            (
                Event::Step {
                    position: 1,
                    target: 2,
                    step: 3,
                    steps: 4,
                    value: Some(0.5),
                    rate: 8.0,
                    memory: None,
                },
                json!({"event": "step", "epoch": 1, "epochs": 2, "step": 3, "steps": 4,
                       "loss": 0.5, "images_per_second": 8.0, "memory": null}),
            ),
            (
                Event::Round {
                    position: 1,
                    target: 2,
                    metrics: metrics(),
                    seconds: 1.0,
                    rate: 8.0,
                },
                json!({"event": "epoch", "epoch": 1, "epochs": 2, "metrics": {"val_loss": 0.5},
                       "seconds": 1.0, "images_per_second": 8.0}),
            ),
            (
                Event::Saved { file, bytes: 1, seconds: 1.0, blocked: 0.5 },
                json!({"event": "saved", "file": "a.ckpt", "bytes": 1, "seconds": 1.0,
                       "blocked": 0.5}),
            ),
            (
                Event::NewBest { monitor: monitor.clone(), value: 0.5, position: 1 },
                json!({"event": "new_best", "monitor": "val_loss", "value": 0.5, "epoch": 1}),
            ),
            (
                Event::Judged { file: "a.ckpt".into(), position: 2, metrics: metrics() },
                json!({"event": "judged", "checkpoint": "a.ckpt", "epoch": 2,
                       "metrics": {"val_loss": 0.5}}),
            ),
            (
                Event::Completed { best: Some(1), monitor, value: Some(0.5) },
                json!({"event": "completed", "best_epoch": 1, "monitor": "val_loss",
                       "value": 0.5}),
            ),
            (
                Event::Preparing { what: "x".into(), done: 1, total: None, unit: Unit::Items },
                json!({"event": "preparing", "what": "x", "done": 1, "total": null,
                       "unit": "images"}),
            ),
        ] {
            assert_eq!(serde_json::to_value(&event).unwrap(), written);
            assert_eq!(serde_json::from_value::<Event>(written).unwrap(), event);
        }
        let before = json!({"event": "new_best", "monitor": "m", "value": 0.5});
        assert!(serde_json::from_value::<Event>(before).is_ok(), "of a version without rounds");
    }
}

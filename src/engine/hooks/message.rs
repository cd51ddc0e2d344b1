//! What a hook is told: a JSON object, and the same as variables.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use pipe_core::failure::{Failure, StageError};
use pipe_core::ids::StageId;
use pipe_core::progress::Event;
use pipe_core::secret;
use serde_json::{Map, Value, json};

use crate::exec::Summary;
use crate::file_formats::FileFormats;
use crate::pipeline_file::environment;
use crate::policy::HookEvent;

/// Epochs whose metrics are remembered: a checkpoint is written while later ones are under way.
const REMEMBERED: usize = 8;
/// Bytes of a variable. Systems refuse longer ones; the JSON is whole.
const LONGEST_VARIABLE: usize = 32 << 10;
/// Failed stages that the end of a pipeline names.
const NAMED: usize = 20;

/// What is told.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Message {
    fields: Map<String, Value>,
}

impl Message {
    fn new(event: HookEvent, pipeline: &str, stage: Option<&StageId>) -> Self {
        let mut fields = Map::new();
        fields.insert("event".into(), event.name().into());
        fields.insert("pipeline".into(), pipeline.into());
        fields.extend(stage.map(|stage| ("stage".to_owned(), stage.as_str().into())));
        fields.insert("time".into(), chrono::Utc::now().to_rfc3339().into());
        Self { fields }
    }

    fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(key.to_owned(), value.into());
        self
    }

    fn with_some<V: Into<Value>>(self, key: &str, value: Option<V>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    pub fn json(&self) -> String {
        serde_json::to_string(&self.fields).unwrap_or_default()
    }

    /// Each field as a variable: `epoch` is `PIPE_EVENT_EPOCH`; the event and the stage are
    /// `PIPE_EVENT` and `PIPE_STAGE`. What is no text and no number is JSON.
    pub fn variables(&self) -> BTreeMap<String, String> {
        let text = |value: &Value| {
            let mut text = match value {
                Value::String(text) => text.replace('\0', ""),
                other => other.to_string(),
            };
            text.truncate(text.floor_char_boundary(LONGEST_VARIABLE));
            text
        };
        let name = |key: &str| match key {
            "event" => environment::EVENT.to_owned(),
            "stage" => environment::STAGE.to_owned(),
            key => format!("{}_{}", environment::EVENT, key.to_uppercase()),
        };
        self.fields.iter().map(|(key, value)| (name(key), text(value))).collect()
    }
}

/// What stages have told so far.
#[derive(Default)]
pub(super) struct Progress(HashMap<StageId, StageProgress>);

#[derive(Default)]
struct StageProgress {
    run: Option<(u32, String)>,
    epoch: Option<u64>,
    metrics: Vec<(u64, BTreeMap<String, f64>)>,
    checkpoint: Option<String>,
}

/// Where the events are from.
pub(super) struct Origin<'a> {
    pub pipeline: &'a str,
    pub formats: &'a dyn FileFormats,
}

impl Progress {
    /// Takes an event in, and says what hooks are to be told of it.
    pub fn take_in(
        &mut self,
        origin: &Origin,
        stage: &StageId,
        event: &Event,
    ) -> Vec<(HookEvent, Message)> {
        let known = self.0.entry(stage.clone()).or_default();
        let message = |known: &StageProgress, event| {
            let message = Message::new(event, origin.pipeline, Some(stage));
            let (number, folder) = known.run.clone().unzip();
            message.with_some("run", number).with_some("run_folder", folder)
        };
        match event {
            Event::Started { .. } => *known = StageProgress::default(),
            Event::WorkOpened { number, directory, .. } => {
                known.run = Some((*number, directory.clone()));
            }
            Event::Resumed { position, metrics, .. } => known.done(*position, metrics),
            Event::Saved { file, .. } => {
                let folder = known.run.as_ref().map_or("", |(_, folder)| folder);
                let path = origin.formats.saved_file(Path::new(folder), file);
                known.checkpoint = Some(path.to_string_lossy().into_owned());
            }
            Event::Round { position, target, metrics, seconds, .. } => {
                known.done(*position, metrics);
                let message = message(known, HookEvent::EpochEnd);
                let message = message.with("epoch", *position).with("epochs", *target);
                let message = message.with("metrics", json!(metrics)).with("seconds", *seconds);
                return vec![(HookEvent::EpochEnd, message)];
            }
            Event::Judged { file, position, metrics } => {
                known.done(*position, metrics);
                known.checkpoint = Some(file.clone());
            }
            Event::NewBest { monitor, value, position } => {
                let message = message(known, HookEvent::NewBest);
                let message = message.with("epoch", *position).with("monitor", monitor.as_str());
                let message = message.with("value", *value);
                let message = message.with_some("checkpoint", known.checkpoint.clone());
                let message = message.with_some("metrics", known.metrics_of(*position));
                return vec![(HookEvent::NewBest, message)];
            }
            Event::Finished { summary, seconds } => {
                let message = known.state(message(known, HookEvent::End));
                let message = message.with("outcome", "completed").with("seconds", *seconds);
                let message = message.with("message", secret::told(summary));
                self.0.remove(stage);
                return vec![(HookEvent::End, message)];
            }
            Event::Failed { failure, message: text } => {
                let told = |event| {
                    let message = known.state(message(known, event));
                    let message = message.with("outcome", outcome(*failure));
                    let message = message.with("failure", failure.name());
                    message.with("message", secret::told(text))
                };
                let both = [HookEvent::Failure, HookEvent::End].map(|event| (event, told(event)));
                self.0.remove(stage);
                return both.into();
            }
            _ => {}
        }
        Vec::new()
    }
}

impl StageProgress {
    fn done(&mut self, epoch: u64, metrics: &BTreeMap<String, f64>) {
        self.epoch = Some(epoch);
        if self.metrics.len() == REMEMBERED {
            self.metrics.remove(0);
        }
        self.metrics.push((epoch, metrics.clone()));
    }

    fn metrics_of(&self, epoch: u64) -> Option<Value> {
        self.metrics.iter().rev().find(|(of, _)| *of == epoch).map(|(_, metrics)| json!(metrics))
    }

    /// How far the stage came.
    fn state(&self, message: Message) -> Message {
        let metrics = self.epoch.and_then(|epoch| self.metrics_of(epoch));
        let message = message.with_some("epoch", self.epoch).with_some("metrics", metrics);
        message.with_some("checkpoint", self.checkpoint.clone())
    }
}

fn outcome(failure: Failure) -> &'static str {
    match failure {
        Failure::Interrupted(_) => "interrupted",
        _ => "failed",
    }
}

/// What is told at the end of a run of the pipeline; nothing if nothing was done in it. `error`:
/// what ended the run as a whole.
pub(super) fn of_end(
    pipeline: &str,
    ended: Result<&Summary, String>,
    is_stopped: bool,
    took: Duration,
) -> Option<Message> {
    let message = Message::new(HookEvent::End, pipeline, None).with("seconds", took.as_secs_f64());
    let summary = match ended {
        Ok(summary) => summary,
        Err(error) => {
            return Some(message.with("outcome", "failed").with("message", secret::told(&error)));
        }
    };
    if summary.finished.is_empty() && summary.failed.is_empty() {
        return None;
    }
    let is_broken = |(_, error): &&(StageId, StageError)| outcome(error.failure) == "failed";
    let outcome = match summary.failed.iter().find(is_broken) {
        Some(_) => "failed",
        None if is_stopped || !summary.failed.is_empty() => "interrupted",
        None => "completed",
    };
    let failures: Vec<Value> = summary
        .failed
        .iter()
        .take(NAMED)
        .map(|(stage, error)| {
            json!({"stage": stage.as_str(), "failure": error.failure.name(),
                   "message": secret::told(&error.message)})
        })
        .collect();
    let first = summary.failed.iter().find(is_broken).or(summary.failed.first());
    let text = first.map(|(stage, error)| secret::told(&format!("stage {stage}: {error}")));
    let message = message.with("outcome", outcome).with_some("message", text);
    let message = message.with("finished", summary.finished.len());
    let message = message.with("skipped", summary.skipped.len());
    let message = message.with("failed", summary.failed.len());
    let message = message.with("not_begun", summary.not_begun.len());
    Some(if failures.is_empty() { message } else { message.with("failures", failures) })
}

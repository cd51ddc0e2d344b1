//! What each stage told when it ran last: `.pipe/logs/PIPELINE/STAGE.jsonl`, a line an event.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use pipe_core::ids::StageId;
use pipe_core::progress::{self, Event};
use pipe_fs::ProjectRoot;
use pipe_fs::atomic::{self, Log, WriteError};
use serde_json::Value;

use crate::state::log_path;

/// Bytes of a stage's log; what a program prints behind them is not kept.
const LARGEST: u64 = 16 << 20;

/// The logs of the stages that run now.
pub(super) struct StageLogs {
    root: ProjectRoot,
    pipeline: String,
    open: Mutex<BTreeMap<StageId, StageLog>>,
}

struct StageLog {
    log: Log,
    written: u64,
    is_full: bool,
}

impl StageLogs {
    pub fn new(root: &ProjectRoot, pipeline: &str) -> Self {
        let (root, pipeline) = (root.to_owned(), pipeline.to_owned());
        Self { root, pipeline, open: Mutex::default() }
    }

    /// Adds an event to its stage's log, which begins anew when the stage does. A log that cannot be
    /// written is given up.
    pub fn tell(&self, stage: &StageId, event: &Event) -> Result<(), WriteError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Event::Started { .. } = event {
            let log = self.begin(stage)?;
            open.insert(stage.clone(), StageLog { log, written: 0, is_full: false });
        }
        let Some(log) = open.get_mut(stage) else { return Ok(()) };
        let written = log.tell(stage, event);
        if written.is_err() || matches!(event, Event::Finished { .. } | Event::Failed { .. }) {
            open.remove(stage);
        }
        written
    }

    fn begin(&self, stage: &StageId) -> Result<Log, WriteError> {
        let path = log_path(&self.root, &self.pipeline, stage);
        let folder = path.parent().unwrap_or(&self.root);
        atomic::create_folder(self.root.disk(), folder)?;
        Log::begin(self.root.disk(), &path)
    }
}

impl StageLog {
    fn tell(&mut self, stage: &StageId, event: &Event) -> Result<(), WriteError> {
        let is_output = matches!(event, Event::Output { .. });
        if is_output && self.is_full {
            return Ok(());
        }
        if is_output && self.written > LARGEST {
            self.is_full = true;
            let text = format!("what is printed behind {} MiB is not kept", LARGEST >> 20);
            return self.append(stage, &Event::Warning { text });
        }
        self.append(stage, event)
    }

    fn append(&mut self, stage: &StageId, event: &Event) -> Result<(), WriteError> {
        let line = format!("{}\n", Value::Object(progress::to_json(stage, event)));
        self.written += line.len() as u64;
        self.log.append(line.as_bytes())
    }
}

//! What the programs of stages printed when they ran last: `.pipe/logs/PIPELINE/STAGE.jsonl`, a line
//! an event. All else that a stage tells is in the log of events.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use pipe_core::ids::StageId;
use pipe_core::progress::Event;
use pipe_fs::ProjectRoot;
use pipe_fs::atomic::{self, Log, WriteError};

use super::journal;
use crate::state::log_path;

/// Bytes of a stage's log; what a program prints behind them is not kept.
const LARGEST: u64 = 16 << 20;

/// The logs of the stages that run now and have printed something.
pub(super) struct StageLogs {
    root: ProjectRoot,
    pipeline: String,
    open: Mutex<BTreeMap<StageId, StageLog>>,
}

struct StageLog {
    /// `None` once it could not be written.
    log: Option<Log>,
    written: u64,
    is_full: bool,
}

impl StageLogs {
    pub fn new(root: &ProjectRoot, pipeline: &str) -> Self {
        let (root, pipeline) = (root.to_owned(), pipeline.to_owned());
        Self { root, pipeline, open: Mutex::default() }
    }

    /// Adds what a program printed to its stage's log, which begins anew with the first line since
    /// the stage began. A log that cannot be written is given up.
    pub fn print(&self, stage: &StageId, event: &Event) -> Result<(), WriteError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if !open.contains_key(stage) {
            let begun = self.begin(stage);
            let (log, failed) = begun.map_or_else(|e| (None, Err(e)), |log| (Some(log), Ok(())));
            open.insert(stage.clone(), StageLog { log, written: 0, is_full: false });
            failed?;
        }
        match open.get_mut(stage) {
            Some(log) => log.print(|event| journal::line(&self.pipeline, stage, event), event),
            None => Ok(()),
        }
    }

    /// The stage begins or has ended: what it prints next begins its log anew.
    pub fn close(&self, stage: &StageId) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(stage);
    }

    fn begin(&self, stage: &StageId) -> Result<Log, WriteError> {
        let path = log_path(&self.root, &self.pipeline, stage);
        let folder = path.parent().unwrap_or(&self.root);
        atomic::create_folder(self.root.disk(), folder)?;
        Log::begin(self.root.disk(), &path)
    }
}

impl StageLog {
    fn print(&mut self, line: impl Fn(&Event) -> String, event: &Event) -> Result<(), WriteError> {
        let Some(log) = self.log.as_ref().filter(|_| !self.is_full) else { return Ok(()) };
        self.is_full = self.written > LARGEST;
        let line = if self.is_full {
            let text = format!("what is printed behind {} MiB is not kept", LARGEST >> 20);
            line(&Event::Warning { text })
        } else {
            line(event)
        };
        self.written += line.len() as u64;
        let written = log.append(line.as_bytes());
        if written.is_err() {
            self.log = None;
        }
        written
    }
}

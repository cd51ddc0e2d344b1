//! Writes down what happens while it happens: `.pipe/events.jsonl`, a line an event, what
//! programs print, and the record of each stage.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use chrono::Utc;
use pipe_core::failure::StageError;
use pipe_core::ids::StageId;
use pipe_core::progress;
use pipe_core::progress::{Event, EventListener};
use pipe_fs::FileError;
use pipe_fs::atomic::{Log, WriteError};
use pipe_fs::{ProjectRoot, STATE_FOLDER, atomic};
use serde_json::Value;

use super::stage_log::StageLogs;
use crate::state::{OutputBaseline, Outputs, Progress, Record, WritingStage, left_behind, record};

/// Passes events on, and keeps those that say something tomorrow.
pub struct Journal<'a> {
    root: ProjectRoot,
    pipeline: String,
    report: &'a dyn EventListener,
    /// `None` where nothing is written down.
    logs: Option<Logs>,
    records: Mutex<BTreeMap<StageId, Record>>,
    left_behind: OnceLock<Vec<Record>>,
}

/// What is appended to.
struct Logs {
    /// Of all pipelines and all times, without what programs print.
    events: Log,
    stages: StageLogs,
}

impl<'a> Journal<'a> {
    pub fn open(
        root: &ProjectRoot,
        pipeline: &str,
        report: &'a dyn EventListener,
    ) -> Result<Self, FileError> {
        let folder = root.join(STATE_FOLDER);
        atomic::create_folder(root.disk(), &folder)?;
        let path = folder.join("events.jsonl");
        let log = Log::open(root.disk(), &path)?;
        record::remove_temporary_records(root, pipeline)?;
        let logs = Logs { events: log, stages: StageLogs::new(root, pipeline) };
        Ok(Self { logs: Some(logs), ..Self::silent(root, pipeline, report) })
    }

    /// Passes events on, and writes nothing down.
    pub(super) fn silent(
        root: &ProjectRoot,
        pipeline: &str,
        report: &'a dyn EventListener,
    ) -> Self {
        let (root, pipeline) = (root.to_owned(), pipeline.to_owned());
        let (records, left_behind) = (Mutex::default(), OnceLock::new());
        Self { root, pipeline, report, logs: None, records, left_behind }
    }

    /// Puts a stage's new record in the place of the old one.
    pub(super) fn begin(&self, stage: &StageId, record: Record) -> Result<(), StageError> {
        record.save(&self.root, stage)?;
        self.records().insert(stage.clone(), record);
        Ok(())
    }

    /// Changes the record of a stage that was begun, and saves it.
    pub(super) fn update(
        &self,
        stage: &StageId,
        change: impl FnOnce(&mut Record),
    ) -> Result<(), StageError> {
        let mut records = self.records();
        let Some(record) = records.get_mut(stage) else { return Ok(()) };
        change(record);
        record.updated_at = Utc::now();
        Ok(record.save(&self.root, stage)?)
    }

    /// Notes what a stage makes. `replaced`: see [`Outputs::replaced`].
    pub(crate) fn outputs(&self, stage: &StageId, made: Outputs) -> Result<(), StageError> {
        self.update(stage, |record| record.made = Some(made))
    }

    /// Notes which files stood in the place of a stage's outputs before it ran, unless that is
    /// known from an earlier attempt at the same; says which they were.
    pub(crate) fn before(
        &self,
        stage: &StageId,
        now: OutputBaseline,
    ) -> Result<OutputBaseline, StageError> {
        if let Some(record) = self.records().get_mut(stage) {
            match &record.before {
                Some(noted) if noted.run == now.run => return Ok(noted.clone()),
                _ => record.before = Some(now.clone()),
            }
        }
        // That there was nothing is saved with whatever is noted next.
        if !now.files.is_empty() {
            self.update(stage, |_| {})?;
        }
        Ok(now)
    }

    /// Notes that a stage puts files into a place: see [`Record::places`].
    pub(crate) fn place(&self, stage: &StageId, place: &Path) -> Result<(), StageError> {
        let place = place.display().to_string();
        if self.places(stage).contains(&place) {
            return Ok(());
        }
        self.update(stage, |record| {
            record.places.insert(place);
        })
    }

    /// Where a stage has put files since it last ended well.
    pub(crate) fn places(&self, stage: &StageId) -> BTreeSet<String> {
        self.records().get(stage).map(|record| record.places.clone()).unwrap_or_default()
    }

    /// See [`left_behind`]: as it is when that is first asked for.
    pub(crate) fn left_behind<'s>(
        &self,
        stages: impl Iterator<Item = WritingStage<'s>>,
    ) -> &[Record] {
        self.left_behind.get_or_init(|| left_behind(&self.root, &self.pipeline, stages))
    }

    /// Passes an event on, and keeps nothing of it: it is about this process, and not about the stage,
    /// whose log belongs to another one.
    pub(super) fn tell(&self, stage: &StageId, event: &Event) {
        self.report.event(stage, &event.told());
    }

    fn records(&self) -> MutexGuard<'_, BTreeMap<StageId, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, stage: &StageId, event: &Event) -> Result<(), WriteError> {
        let Some(Logs { events, stages }) = &self.logs else { return Ok(()) };
        match event {
            Event::Output { .. } => return stages.print(stage, event),
            Event::Started { .. } | Event::Finished { .. } | Event::Failed { .. } => {
                stages.close(stage);
            }
            _ => {}
        }
        events.append(line(&self.pipeline, stage, event).as_bytes())
    }
}

/// An event as a line of a log.
pub(super) fn line(pipeline: &str, stage: &StageId, event: &Event) -> String {
    let mut object = progress::to_json(stage, event);
    object.insert("pipeline".into(), pipeline.into());
    object.insert("pid".into(), std::process::id().into());
    format!("{}\n", Value::Object(object))
}

impl EventListener for Journal<'_> {
    fn event(&self, stage: &StageId, event: &Event) {
        let event = &*event.told();
        let noted = match event {
            // Many a second, and nobody's business tomorrow; or nothing that happened.
            Event::Step { .. } | Event::Preparing { .. } | Event::Skipped { .. } => Ok(()),
            _ => self.append(stage, event),
        };
        if let Err(error) = noted {
            tracing::warn!("{error}");
        }
        match event {
            Event::Round { position, target, .. } => {
                if let Some(record) = self.records().get_mut(stage) {
                    record.progress = Some(Progress { position: *position, target: *target });
                }
            }
            Event::WorkOpened { directory, .. } => {
                if let Some(record) = self.records().get_mut(stage) {
                    record.run = Some(directory.into());
                }
            }
            // What was saved last may be further than the plan knew.
            Event::Resumed { position, .. } => {
                if let Some(progress) =
                    self.records().get_mut(stage).and_then(|r| r.progress.as_mut())
                {
                    progress.position = *position;
                }
            }
            Event::Saved { .. } => {
                if let Err(error) = self.update(stage, |_| {}) {
                    tracing::warn!("{error}");
                }
            }
            _ => {}
        }
        self.report.event(stage, event);
    }
}

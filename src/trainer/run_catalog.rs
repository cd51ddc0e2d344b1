//! The catalog of a folder's numbered runs: those of one pipeline's stage, and those of others.
//! Reads the disk and changes nothing.
//!
//! A run is gone on with by the pipeline and the stage that it belongs to. What another pipeline's
//! stage of that name trained, or another stage of the same matrix, is used if it is just what is
//! asked for: members of a matrix over `epochs` are trainings of their own. It is not gone on with
//! unless its number is given.

use std::path::PathBuf;

use pipe_core::failure::on_one_line;
use pipe_runs::{Metadata, Run, RunNumber, Runs, Status};
use serde_json::Value;

/// A run with its metadata.
pub(crate) type RunWithMetadata = (Run, Metadata);

/// The runs of a folder, oldest first.
pub(crate) struct RunCatalog<'a> {
    pipeline: &'a str,
    stage: &'a str,
    own: Vec<RunWithMetadata>,
    others: Vec<RunWithMetadata>,
    /// Folders with something in them and without metadata: half a copy, or what an `rm` left.
    without_metadata: Vec<PathBuf>,
    next: RunNumber,
}

impl<'a> RunCatalog<'a> {
    pub fn of(runs: &Runs, pipeline: &'a str, stage: &'a str) -> Self {
        let all = runs.list();
        let next = RunNumber(all.last().map_or(1, |run| run.number.0 + 1));
        let (own, others, without_metadata) = Default::default();
        let mut catalog = Self { pipeline, stage, own, others, without_metadata, next };
        for run in all {
            match run.metadata() {
                Ok(m) if m.pipeline == pipeline && m.stage == stage => catalog.own.push((run, m)),
                Ok(m) => catalog.others.push((run, m)),
                Err(error) if run.is_started() => tracing::warn!("{error}; this run is left alone"),
                Err(_) if run.is_empty() => {}
                Err(_) => catalog.without_metadata.push(run.folder),
            }
        }
        catalog
    }

    /// The number that a new run would have.
    pub fn next(&self) -> RunNumber {
        self.next
    }

    /// The stage's own runs, oldest first.
    pub fn own(&self) -> &[RunWithMetadata] {
        &self.own
    }

    /// The runs of the stage and of those that are declared as one with it, a matrix' members, oldest
    /// first.
    pub fn related(&self) -> impl Iterator<Item = &RunWithMetadata> {
        let is_related = |(_, m): &&RunWithMetadata| {
            m.pipeline == self.pipeline && declared(&m.stage) == declared(self.stage)
        };
        self.others.iter().filter(is_related).chain(&self.own)
    }

    /// The newest of the stage's own runs, whatever it was trained with.
    pub fn newest(&self) -> Option<&RunWithMetadata> {
        self.own.last()
    }

    /// The run to go on with: the newest own one that fits, and of its copies the first of those that
    /// came furthest. If there is none, a completed one of another pipeline or stage that `is_as_long`
    /// as what is wanted. None whose settings were changed on the way: it equals no training from the
    /// beginning.
    pub fn matching(
        &self,
        fits: impl Fn(&Run, &Metadata) -> bool,
        is_as_long: impl Fn(&Run, &Metadata) -> bool,
    ) -> Option<&RunWithMetadata> {
        let fits = |run: &Run, m: &Metadata| m.changes.is_empty() && fits(run, m);
        let is_of_use = |(run, m): &&RunWithMetadata| fits(run, m) && !has_lost_checkpoints(run, m);
        let newest = self.own.iter().rfind(is_of_use);
        newest.map(|newest| self.furthest_copy(newest, is_of_use)).or_else(|| {
            self.others.iter().rfind(|(run, m)| {
                let is_of_it = declared(&m.stage) == declared(self.stage);
                let completed = is_of_it && m.status == Status::Completed;
                completed && fits(run, m) && is_as_long(run, m)
            })
        })
    }

    /// The first of those copies of a run that came furthest. A run that was imported beside the one
    /// that it was copied from began when that one did.
    fn furthest_copy<'b>(
        &'b self,
        newest: &'b RunWithMetadata,
        is_of_use: impl Fn(&&RunWithMetadata) -> bool,
    ) -> &'b RunWithMetadata {
        let is_copy = |(run, m): &&RunWithMetadata| {
            m.created_at == newest.1.created_at && run.number != newest.0.number
        };
        let others = self.own.iter().rev().filter(is_copy).filter(is_of_use);
        let epochs = |(run, m): &RunWithMetadata| completed_epochs(run, m);
        others.fold(newest, |best, other| if epochs(other) >= epochs(best) { other } else { best })
    }

    /// What a person should know before a new run is begun: runs that look like what is wanted, and
    /// why they are not taken.
    pub fn hints(&self, fits: impl Fn(&Run, &Metadata) -> bool) -> Vec<String> {
        let is_like = |(run, m): &&RunWithMetadata| fits(run, m) && !has_lost_checkpoints(run, m);
        let same = self.others.iter().rfind(is_like);
        let same = same.map(|(run, m)| {
            let whose = if m.pipeline == self.pipeline {
                format!("stage {}", m.stage)
            } else {
                format!("stage {} of pipeline {}", m.stage, m.pipeline)
            };
            let found = format!("run {} of {whose} is the same training", run.number);
            if self.stage.contains('@') {
                // A number would be that of all stages of the matrix.
                return format!("{found}, not finished");
            }
            // `--run-number` is that of the pipeline's only training, or of its first.
            let (stage, number) = (self.stage, run.number.0);
            format!("{found}: `--set {stage}.checkpoint.run_number={number}` goes on with it")
        });
        let without_metadata = self.without_metadata.iter().map(|folder| {
            let name = folder.file_name().unwrap_or_default().to_string_lossy();
            format!(
                "{name} has no metadata.json, so nobody knows whose it is, and it is left alone; \
                 checkpoint.resume_checkpoint can name one of its checkpoints"
            )
        });
        same.into_iter().chain(without_metadata).collect()
    }
}

/// The name of a stage in its file: those of a matrix are `NAME@VALUES`.
fn declared(stage: &str) -> &str {
    stage.split('@').next().unwrap_or(stage)
}

/// The epochs whose result stands on disk.
pub(crate) fn completed_epochs(run: &Run, metadata: &Metadata) -> u64 {
    // Without checkpoints there is nothing to look at but the word of the metadata.
    let switched_off = metadata.settings["checkpoint"]["enabled"] == Value::Bool(false);
    let word = (switched_off && metadata.status == Status::Completed).then_some(metadata.epochs);
    run.epochs_on_disk(metadata).max(word.unwrap_or(0))
}

/// Whether a run was completed and nothing of it is left to go on with. It is not begun again in
/// its place: what it was stands in its metadata, logs and image grids.
pub(crate) fn has_lost_checkpoints(run: &Run, metadata: &Metadata) -> bool {
    let partial = metadata.partial_checkpoint.as_ref();
    metadata.status == Status::Completed
        && completed_epochs(run, metadata) == 0
        && !partial.is_some_and(|p| run.folder.join(&p.path).exists())
}

/// How a run that has not come to its end stands: who trains in it, or how it was left.
pub(crate) fn unfinished_reason(run: &Run, metadata: &Metadata) -> String {
    if let Some(holder) = run.holder() {
        return format!("being trained by {}", holder.0);
    }
    metadata.message.as_deref().map(on_one_line).unwrap_or_else(|| match metadata.status {
        Status::Running => "ended without a word".to_owned(),
        Status::Completed => "its newest checkpoints are gone".to_owned(),
        other => other.name().to_owned(),
    })
}

//! Which numbered run a training belongs to. Looks at the disk and changes nothing.

use pipe_engine::identity::Difference;
use pipe_engine::kind::{Request, StageError, StageId};
use pipe_runs::{Metadata, Run, Status};

use super::definition::Training;
use crate::stages::relocated_runs;
use crate::stages::run_catalog::{RunCatalog, has_lost_checkpoints};
use crate::stages::run_match::RunCriteria;

/// What became of a run that is not begun again in its place.
const LOST: &str = "was completed, and none of its checkpoints is left";

/// The run that a training goes on with, or the wish for a new one.
pub(super) enum RunSelection {
    /// A new run, with this number if one was asked for. The reason is for the plan.
    New { number: Option<u32>, reason: String, changes: Vec<Difference> },
    /// An existing run with the same identity.
    Existing(Box<(Run, Metadata)>),
    /// A run's folder without metadata: its process ended before it wrote any.
    Empty(Run),
}

impl Training<'_> {
    /// Decides which run is meant. Looks at the disk and changes nothing.
    pub(super) fn select_run(
        &self,
        request: &Request,
        pipeline: &str,
        stage: &StageId,
        criteria: &RunCriteria,
    ) -> Result<RunSelection, StageError> {
        let policy = &self.settings.checkpoint;
        let runs = self.runs(criteria.root);
        let resume = request.resume || (policy.resume_from_run.is_some() && !request.force);
        let number = self.number(request);

        if let Some(number) = number {
            let Some(run) = runs.find(number) else {
                let moved = |found: &(Run, Metadata)| {
                    found.0.number.0 == number && criteria.matches(&found.1)
                };
                let found = relocated_runs::runs(criteria.root, runs.folder(), pipeline, stage)
                    .into_iter()
                    .rfind(moved);
                if let (Some(found), false) = (found, request.force) {
                    return Ok(RunSelection::Existing(Box::new(found)));
                }
                let reason = if resume {
                    format!("no checkpoint found for run {number}; starting new training")
                } else {
                    format!("run {number} is new")
                };
                return Ok(RunSelection::New { number: Some(number), reason, changes: Vec::new() });
            };
            if request.force {
                return Err(StageError::setting(format!(
                    "run {number} exists; `--force` needs a number that is free, or none"
                )));
            }
            if !run.is_started() {
                return if run.is_empty() {
                    Ok(RunSelection::Empty(run))
                } else {
                    Err(StageError::setting(format!(
                        "run {number} has no metadata.json, so nobody knows what trained it: bring that file back (half \
                         a copy?), or choose another number"
                    )))
                };
            }
            let metadata = run.metadata()?;
            return match (
                can_continue(criteria, &run, &metadata),
                has_lost_checkpoints(&run, &metadata),
            ) {
                (false, _) => Err(StageError::setting(self.refusal(number, criteria, &metadata))),
                (true, true) => Err(StageError::setting(format!(
                    "run {number} {LOST}; start a new run by leaving the number out"
                ))),
                (true, false) => Ok(RunSelection::Existing(Box::new((run, metadata)))),
            };
        }

        let catalog = RunCatalog::of(&runs, pipeline, stage.as_str());
        if request.force {
            return Ok(RunSelection::New {
                number: None,
                reason: "forced".into(),
                changes: Vec::new(),
            });
        }
        let epochs = self.settings.epochs;
        let known = catalog.matching(|_, m| criteria.matches(m), epochs);
        if let Some(known) =
            known.or_else(|| catalog.matching(|run, m| can_continue(criteria, run, m), epochs))
        {
            return Ok(RunSelection::Existing(Box::new(known.clone())));
        }
        if catalog.newest().is_none() {
            let all = relocated_runs::runs(criteria.root, runs.folder(), pipeline, stage);
            if let Some(found) = all.into_iter().rfind(|(_, metadata)| criteria.matches(metadata)) {
                return Ok(RunSelection::Existing(Box::new(found)));
            }
        }
        let (reason, changes) = match catalog.newest() {
            None if resume => ("no checkpoint found; starting new training".to_owned(), Vec::new()),
            None => ("no run yet".to_owned(), Vec::new()),
            Some((run, m)) => {
                let (changes, words) = criteria.changes(m);
                if resume && !changes.is_empty() {
                    return Err(StageError::setting(self.refusal(run.number.0, criteria, m)));
                }
                let help = match &self.horizon_help(&changes) {
                    Some(help) if changes.len() == 1 => format!("; {help}"),
                    _ => String::new(),
                };
                let why =
                    if changes.is_empty() { format!("run {} {LOST}", run.number) } else { words };
                (format!("{why} (new run_{}{help})", catalog.next()), changes)
            }
        };
        let reason = std::iter::once(reason)
            .chain(catalog.hints(|m| criteria.matches(m)))
            .collect::<Vec<_>>()
            .join("; ");
        Ok(RunSelection::New { number: None, reason, changes })
    }

    /// Whether there is no checkpoint of the run's own to go on from.
    pub(super) fn begins_from_file(&self, selection: &RunSelection) -> bool {
        let new = match selection {
            RunSelection::New { .. } | RunSelection::Empty(_) => true,
            RunSelection::Existing(existing) => is_untrained(&existing.0, &existing.1),
        };
        new && self.settings.checkpoint.resume_checkpoint.is_some()
    }

    /// Why a run cannot be gone on with.
    fn refusal(&self, number: u32, criteria: &RunCriteria, run: &Metadata) -> String {
        let (different, words) = criteria.changes(run);
        let only_data = criteria.settings_changed(run).is_empty();
        let (what, back) = if only_data {
            ("on other images", "put the old images back")
        } else {
            ("with other settings", "go on with the settings it was begun with")
        };
        let help = self.horizon_help(&different).unwrap_or_else(|| back.to_owned());
        format!(
            "run {number} was trained {what}: {words}; {help}, or start a new run by leaving the number and `--resume` \
             out"
        )
    }

    /// What to do about a schedule that would have another length.
    fn horizon_help(&self, different: &[Difference]) -> Option<String> {
        let horizon = different.iter().find(|d| d.key == "schedule horizon")?;
        let old = horizon.old.as_ref()?.as_u64()?;
        let kind = format!("{:?}", self.settings.schedule.kind).to_lowercase();
        let learns = self.settings.epochs <= old || self.settings.schedule.min_lr_ratio > 0.0;
        Some(if learns {
            format!(
                "a {kind} schedule depends on its length: extend it with `schedule_epochs: {old}`"
            )
        } else {
            format!(
                "a {kind} schedule depends on its length, and this one ends at a learning rate of 0 after epoch {old}, \
                 so that more epochs of the same run would learn nothing: keep `epochs: {old}`"
            )
        })
    }
}

/// Whether a run can be gone on with: it fits, or nothing but its images differs and it was trained
/// on none yet.
fn can_continue(criteria: &RunCriteria, run: &Run, metadata: &Metadata) -> bool {
    let untouched = || is_untrained(run, metadata) && run.holder().is_none();
    criteria.settings_changed(metadata).is_empty()
        && (criteria.data_changed(metadata).is_none() || untouched())
}

/// Whether no epoch's result stands in a run, nor a part of one: what it was begun with can still
/// be another.
fn is_untrained(run: &Run, metadata: &Metadata) -> bool {
    let files = std::fs::read_dir(run.checkpoints()).into_iter().flatten().flatten();
    let checkpoint = |name: std::ffi::OsString| name.to_string_lossy().ends_with(".ckpt");
    metadata.status != Status::Completed
        && metadata.checkpoints.is_empty()
        && metadata.partial_checkpoint.is_none()
        && !files.map(|file| file.file_name()).any(checkpoint)
}

//! Which numbered run a training belongs to. Looks at the disk and changes nothing.

use pipe_core::shell::CommandLine;
use pipe_engine::identity::Difference;
use pipe_engine::kind::{Request, StageError, StageId};
use pipe_fs::ProjectRoot;
use pipe_runs::{Metadata, Run, Runs, Status};

use crate::budget::PlannedLength;
use crate::relocated_runs;
use crate::run_catalog::{RunCatalog, completed_epochs, has_lost_checkpoints, unfinished_reason};
use crate::run_match::RunCriteria;
use crate::training::Training;

/// What became of a run that is not begun again in its place.
const LOST: &str = "was completed, and none of its checkpoints is left";

/// The run that a training goes on with, or the wish for a new one.
pub enum RunSelection {
    /// A new run, with this number if one was asked for. The reason is for the plan.
    New { number: Option<u32>, reason: String, changes: Vec<Difference> },
    /// An existing run with the same identity.
    Existing(Box<(Run, Metadata)>),
    /// A run that goes on with other settings than those that it was trained with so far.
    Changed(Box<ChangedRun>),
    /// A run's folder without metadata: its process ended before it wrote any.
    Empty(Run),
}

/// A run that goes on with changed settings.
pub struct ChangedRun {
    pub run: Run,
    pub metadata: Metadata,
    pub different: Vec<Difference>,
}

impl Training<'_> {
    /// Decides which run is meant. Looks at the disk and changes nothing.
    pub fn select_run(
        &self,
        request: &Request,
        pipeline: &str,
        stage: &StageId,
        root: &ProjectRoot,
        criteria: &RunCriteria,
    ) -> Result<RunSelection, StageError> {
        let from_run = self.policy.resume_from_run.is_some();
        let search = RunSearch {
            training: self,
            root,
            runs: self.runs(root),
            request,
            resume: request.resume || (from_run && !request.force),
            pipeline,
            stage,
            criteria,
        };
        let selection = match self.number(request) {
            Some(number) => search.numbered(number)?,
            None => search.fitting()?,
        };
        if self.resumes { Ok(selection) } else { search.anew(selection) }
    }

    /// Whether there is no checkpoint of the run's own to go on from.
    pub fn begins_anew(&self, selection: &RunSelection) -> bool {
        match selection {
            RunSelection::New { .. } | RunSelection::Empty(_) => true,
            RunSelection::Existing(existing) => is_untrained(&existing.0, &existing.1),
            RunSelection::Changed(changed) => is_untrained(&changed.run, &changed.metadata),
        }
    }

    /// The settings that a run can go on with in the place of those that it was trained with.
    fn possible_change(&self, run: &Run, metadata: &Metadata, criteria: &RunCriteria) -> Change {
        let different = self.settings_changed(run, metadata, criteria);
        let is_lost = has_lost_checkpoints(run, metadata);
        if is_lost || different.is_empty() {
            return Change::Refused(None);
        }
        let is_fixed = |d: &&Difference| (self.changeable)(&d.key, &different).is_none();
        if let Some(fixed) = different.iter().find(is_fixed) {
            let why = format!(
                "{} stays what it is inside a run: go on with the settings it was begun with",
                fixed.key
            );
            return Change::Refused((self.advice)(&different).or(Some(why)));
        }
        if criteria.data_changed(metadata).is_some() {
            return Change::Refused(None);
        }
        let done = completed_epochs(run, metadata);
        if done >= self.total(metadata) {
            let more = done + 1;
            return Change::Refused(Some(format!(
                "all its {done} epochs are trained: it goes on with others from `epochs: {more}` on"
            )));
        }
        Change::Possible(different)
    }

    /// Why a run cannot be gone on with.
    fn refusal(
        &self,
        number: u32,
        criteria: &RunCriteria,
        run: &Metadata,
        help: Option<String>,
    ) -> String {
        let (different, words) = criteria.changes(run);
        let only_data = criteria.settings_changed(run).is_empty();
        let (what, back) = match criteria.data.filter(|_| only_data) {
            Some(data) => data.other(),
            None => ("with other settings", "go on with the settings it was begun with"),
        };
        let help = help.or_else(|| (self.advice)(&different)).unwrap_or_else(|| back.to_owned());
        format!(
            "run {number} was trained {what}: {words}; {help}, or start a new run by leaving the number and `--resume` \
             out"
        )
    }
}

/// Whether a run can go on with other settings.
enum Change {
    /// With these.
    Possible(Vec<Difference>),
    /// It cannot; what to do about it, where there is more to say than that they are others.
    Refused(Option<String>),
}

/// What the run of a training is searched by.
struct RunSearch<'a> {
    training: &'a Training<'a>,
    root: &'a ProjectRoot,
    /// Where the training's runs are.
    runs: Runs,
    request: &'a Request,
    /// A run is to be gone on with, and none begun, if there is one.
    resume: bool,
    pipeline: &'a str,
    stage: &'a StageId,
    criteria: &'a RunCriteria<'a>,
}

impl RunSearch<'_> {
    /// The run that was asked for by its number.
    fn numbered(&self, number: u32) -> Result<RunSelection, StageError> {
        let Some(run) = self.runs.find(number) else { return Ok(self.missing(number)) };
        if self.request.force {
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
        if !self.can_continue(&run, &metadata) {
            return self.changed(number, run, metadata);
        }
        if has_lost_checkpoints(&run, &metadata) {
            return Err(StageError::setting(format!(
                "run {number} {LOST}; start a new run by leaving the number out"
            )));
        }
        Ok(RunSelection::Existing(Box::new((run, metadata))))
    }

    /// Whether a run can be gone on with: it fits as far as it is trained, or nothing but its images
    /// differs and it was trained on none yet.
    fn can_continue(&self, run: &Run, metadata: &Metadata) -> bool {
        let untouched = || is_untrained(run, metadata) && run.holder().is_none();
        self.training.settings_changed(run, metadata, self.criteria).is_empty()
            && (self.criteria.data_changed(metadata).is_none() || untouched())
    }

    /// The run that a new one is to branch off from.
    fn fork(&self) -> Option<u32> {
        forked(self.request, self.stage)
    }

    /// The run of that number with other settings than those that it was trained with.
    ///
    /// # Errors
    /// `--resume` does not say that it is to go on, or it cannot go on with them.
    fn changed(
        &self,
        number: u32,
        run: Run,
        metadata: Metadata,
    ) -> Result<RunSelection, StageError> {
        let help = match self.training.possible_change(&run, &metadata, self.criteria) {
            Change::Possible(different) if self.request.resume => {
                let changed = ChangedRun { run, metadata, different };
                return Ok(RunSelection::Changed(Box::new(changed)));
            }
            Change::Possible(_) => Some(
                "with `--resume` beside its number it goes on with them, as a noted change"
                    .to_owned(),
            ),
            Change::Refused(why) => why.filter(|_| self.request.resume),
        };
        let refusal = self.training.refusal(number, self.criteria, &metadata, help);
        Err(StageError::setting(refusal))
    }

    /// A run of a number that the folder does not have: one of another folder, or a new one.
    fn missing(&self, number: u32) -> RunSelection {
        let found = self.relocated(|run, _| run.number.0 == number);
        if let (Some(found), false) = (found, self.request.force) {
            return RunSelection::Existing(Box::new(found));
        }
        let reason = if self.resume {
            format!("no checkpoint found for run {number}; starting new training")
        } else {
            format!("run {number} is new")
        };
        RunSelection::New { number: Some(number), reason, changes: Vec::new() }
    }

    /// The newest fitting run of another folder.
    fn relocated(&self, also: impl Fn(&Run, &Metadata) -> bool) -> Option<(Run, Metadata)> {
        let folder = self.runs.folder();
        relocated_runs::runs(self.root, folder, self.pipeline, self.stage).into_iter().rfind(
            |(run, metadata)| also(run, metadata) && self.training.fits(self.criteria, metadata),
        )
    }

    /// The run of a training that does not go on from a checkpoint. What an attempt before left in
    /// its run is not of the next one, which gets a run of its own.
    fn anew(&self, selection: RunSelection) -> Result<RunSelection, StageError> {
        let (training, request) = (self.training, self.request);
        let (run, metadata) = match &selection {
            RunSelection::New { .. } | RunSelection::Empty(_) => return Ok(selection),
            RunSelection::Existing(existing) => (&existing.0, &existing.1),
            RunSelection::Changed(changed) => (&changed.run, &changed.metadata),
        };
        let done = completed_epochs(run, metadata);
        let is_done = request.until.is_some_and(|until| done >= until)
            || training.has_ended(run, metadata)
            || training.finished_early(metadata).is_some();
        if is_done || is_untrained(run, metadata) || run.holder().is_some() {
            return Ok(selection);
        }
        if training.number(request).is_some() {
            let text = format!("run {} cannot be gone on with: it does not resume", run.number);
            return Err(StageError::setting(text));
        }
        let why = match metadata.status {
            Status::Completed => format!("was trained to epoch {done}"),
            _ => unfinished_reason(run, metadata),
        };
        let catalog = RunCatalog::of(&self.runs, self.pipeline, self.stage.as_str());
        let reason = format!(
            "run {}: {why}; it does not resume, and is started anew (new run_{})",
            run.number,
            catalog.next()
        );
        Ok(RunSelection::New { number: None, reason, changes: Vec::new() })
    }

    /// The run that fits best, or a new one.
    fn fitting(&self) -> Result<RunSelection, StageError> {
        let Self { criteria, .. } = *self;
        if self.request.force {
            let reason = "forced".into();
            return Ok(RunSelection::New { number: None, reason, changes: Vec::new() });
        }
        let catalog = RunCatalog::of(&self.runs, self.pipeline, self.stage.as_str());
        let (training, fork) = (self.training, self.fork());
        let is_as_long = |run: &Run, m: &Metadata| training.compare_length(run, m).is_eq();
        let known = catalog.matching(|_, m| training.fits(criteria, m), is_as_long);
        let goes_on =
            |run: &Run, m: &Metadata| self.can_continue(run, m) && training.has_wanted_length(m);
        let near = || catalog.matching(goes_on, is_as_long);
        if let Some(known) = known.or_else(|| near().filter(|_| fork.is_none())) {
            return Ok(RunSelection::Existing(Box::new(known.clone())));
        }
        if catalog.newest().is_none()
            && let Some(found) = self.relocated(|_, m| m.changes.is_empty())
        {
            return Ok(RunSelection::Existing(Box::new(found)));
        }
        let (reason, changes) = self.why_new(&catalog)?;
        let is_shorter = |run: &Run, m: &Metadata| training.compare_length(run, m).is_lt();
        let is_part = |run: &Run, m: &Metadata| {
            m.changes.is_empty() && criteria.matches(m) && is_shorter(run, m)
        };
        let reason =
            std::iter::once(reason).chain(catalog.hints(is_part)).collect::<Vec<_>>().join("; ");
        Ok(RunSelection::New { number: None, reason, changes })
    }

    /// Why none of the runs is gone on with: the reason for the plan, and what differs from the
    /// newest run.
    ///
    /// # Errors
    /// A run was to be gone on with, and other settings are why it cannot.
    fn why_new(&self, catalog: &RunCatalog) -> Result<(String, Vec<Difference>), StageError> {
        let branch = self.training.branch_of(catalog, self.criteria, self.request);
        let is_meant = |run: &Run| self.fork() == Some(run.number.0);
        let forked = catalog.own().iter().find(|(run, _)| is_meant(run));
        let Some((run, metadata)) = forked.or(catalog.newest()) else {
            let reason = if self.resume {
                "no checkpoint found; starting new training"
            } else {
                "no run yet"
            };
            // Of another member of a matrix.
            let shared = branch.map_or(String::new(), |branch| format!("; {}", branch.in_words()));
            return Ok((format!("{reason}{shared}"), Vec::new()));
        };
        let (changes, words) = self.criteria.changes(metadata);
        if self.resume && !changes.is_empty() {
            let refusal = self.training.refusal(run.number.0, self.criteria, metadata, None);
            return Err(StageError::setting(refusal));
        }
        if let (Some(number), None) = (self.fork(), &branch) {
            let help =
                (self.training.advice)(&changes).map_or(String::new(), |help| format!("; {help}"));
            let text = format!(
                "nothing can be branched off from run {number}: it differs from its first epoch on, {words}{help}"
            );
            return Err(StageError::setting(text));
        }
        if let (Some(number), Some(branch)) = (self.fork(), branch.as_ref().filter(|b| !b.stands()))
        {
            let again = CommandLine::new(["pipe", "ckpt", "again"]);
            let again = again.word(&format!("{}/{number}", self.stage));
            let again = again.options([format!("--epoch={}", branch.until)]);
            let text = format!(
                "run {number} keeps no checkpoint up to epoch {}, nor does a run that shares it: `{again}` makes it again",
                branch.until
            );
            return Err(StageError::setting(text));
        }
        let help = match (self.training.advice)(&changes) {
            _ if branch.is_some() => {
                branch.map(|branch| format!("; {}", branch.in_words())).unwrap_or_default()
            }
            Some(help) if changes.len() == 1 => format!("; {help}"),
            _ => String::new(),
        };
        let why = match metadata.changes.last() {
            _ if !changes.is_empty() => words,
            Some(change) => {
                let (number, told) = (run.number, change.in_words());
                format!("run {number} was changed {told}; it is used where its number is given")
            }
            None => match PlannedLength::of(metadata) {
                Some(planned) if !self.training.has_wanted_length(metadata) => {
                    format!("run {} was planned for a {}", run.number, planned.limit)
                }
                _ => format!("run {} {LOST}", run.number),
            },
        };
        Ok((format!("{why} (new run_{}{help})", catalog.next()), changes))
    }
}

/// The run of a stage that a new one is to branch off from, where that is asked for.
fn forked(request: &Request, stage: &StageId) -> Option<u32> {
    let fork = request.fork.as_ref().filter(|fork| fork.stage == *stage)?;
    Some(fork.run_number)
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

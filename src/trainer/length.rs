//! How long a training is, as its runs know it: asked for, or fixed on the way where it is to end in
//! time.

use std::cmp::Ordering;

use chrono::Local;
use pipe_engine::kind::Forecast;
use pipe_runs::{Metadata, Run, Status};

use crate::budget::{EpochTime, HORIZON, IN_TIME, PlannedLength, TimeLimits};
use crate::forecast::Pace;
use crate::run_catalog::completed_epochs;
use crate::run_match::RunCriteria;
use crate::stopping::Trained;
use crate::training::Training;

/// So many epochs as there is time, or as there are steps, for.
pub const UNLIMITED: u64 = u64::MAX;

impl Training<'_> {
    /// Epochs of a run in all. Where time decides, and has not yet, as many as fit by what is known
    /// now.
    pub(crate) fn total(&self, run: &Metadata) -> u64 {
        let most = self.epochs.on(&run.dataset);
        if let Some(planned) = self.limits().and_then(|_| PlannedLength::of(run)) {
            return planned.epochs;
        }
        let is_open = most == UNLIMITED || run.manifest.get(HORIZON) == Some(&IN_TIME.into());
        if !is_open || self.limits().is_none() {
            return most;
        }
        if run.status == Status::Completed && self.stopping.is_timed_out(run) {
            return run.epochs;
        }
        let done = run.history.last().map_or(0, |last| last.epoch);
        let fit = Pace::of(run).and_then(|pace| self.fit(Trained::of_run(run, done), pace));
        done.saturating_add(fit.unwrap_or(1)).min(most).max(1)
    }

    /// How far a run is trained against what is wanted.
    pub(crate) fn compare_length(&self, run: &Run, metadata: &Metadata) -> Ordering {
        let done = completed_epochs(run, metadata);
        let steps = Trained::of_run(metadata, done).steps;
        let is_over = self.stopping.max_steps.is_some_and(|most| steps > most);
        if is_over { Ordering::Greater } else { done.cmp(&self.epochs.on(&metadata.dataset)) }
    }

    /// The same of a run that is to be begun, by what an epoch took of one that was like it.
    pub(crate) fn total_of_new(&self, like: &Metadata, pace: Pace) -> u64 {
        let most = self.epochs.on(&like.dataset);
        most.min(self.fit(Trained::default(), pace).unwrap_or(most))
    }

    /// What a new run takes where no run was like it: the time that it is given.
    pub(crate) fn forecast_of_limits(&self) -> Option<Forecast> {
        let seconds = Some(self.limits()?.budget?.0.as_secs_f64());
        Some(Forecast { seconds, bytes: None, memory: None, from: "its budget".to_owned() })
    }

    /// Whether a run is the training that is wanted: settings, data, and, where time decides its
    /// length, that it was decided for the time that it is given now, or has had it.
    pub(crate) fn fits(&self, criteria: &RunCriteria, run: &Metadata) -> bool {
        criteria.matches(run) && self.has_wanted_length(run)
    }

    pub(crate) fn has_wanted_length(&self, run: &Metadata) -> bool {
        let (Some(limits), Some(planned)) = (self.limits(), PlannedLength::of(run)) else {
            return true;
        };
        let done = run.history.last().map_or(0, |last| last.epoch);
        planned.limit == limits.words() || limits.is_used(Trained::of_run(run, done).seconds)
    }

    fn limits(&self) -> Option<&TimeLimits> {
        Some(&self.stopping.limits).filter(|limits| limits.is_set())
    }

    /// Further epochs that fit, if time decides.
    fn fit(&self, trained: Trained, pace: Pace) -> Option<u64> {
        let each = EpochTime { trained: pace.seconds(), passed: pace.seconds() };
        self.limits()?.clone().begun(Local::now(), None).fit(trained, each)
    }
}

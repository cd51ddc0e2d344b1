//! A training as its numbered runs see it, whoever trains: a model of this program, or a program of
//! the user's. What stands on disk for it, and how it begins and ends.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pipe_core::number_text;
use pipe_core::progress::Event;
use pipe_engine::identity::{Difference, in_words};
use pipe_engine::kind::{
    Forecast, InspectContext, Inspection, NextCommand, Outcome, Request, RunContext, StageError,
    StageState,
};
use pipe_fs::ProjectRoot;
use pipe_runs::changes::{self, Place};
use pipe_runs::policy::CheckpointPolicy;
use pipe_runs::{
    CheckpointManager, CheckpointRecord, EpochRecord, Metadata, Run, RunNumber, Runs, Status,
};
use serde_json::Value;

use crate::artifacts::Checkpoints;
use crate::following::judged_metric;
use crate::forecast::Pace;
use crate::run_catalog::{completed_epochs, unfinished_reason};
use crate::run_match::RunCriteria;
use crate::selection::{ChangedRun, RunSelection};
use crate::stopping::{
    StoppingRules, TotalEpochs, Trained, finished_early, forget_ending, is_ended_by_rule,
};

/// What a training is as its runs know it.
pub struct Training<'a> {
    pub policy: &'a CheckpointPolicy,
    /// The stage's settings as they are recorded.
    pub settings: &'a Value,
    /// Folder of the numbered runs, if the policy names none.
    pub base_dir: &'a str,
    /// The pipeline's name without one.
    pub experiment_name: Option<&'a str>,
    pub seed: u64,
    /// In all.
    pub epochs: TotalEpochs<'a>,
    /// What ends it before that.
    pub stopping: StoppingRules,
    /// Whether it goes on from a checkpoint. One that does not is begun anew in another run.
    pub resumes: bool,
    /// What to do about differences to a run that it could go on with, where there is more to say
    /// than that they are there.
    pub advice: &'a dyn Fn(&[Difference]) -> Option<String>,
    /// Where a run can go on with another value of a setting, by its key in the manifest; `None`
    /// where it cannot. The second argument: all that is different.
    pub changeable: &'a dyn Fn(&str, &[Difference]) -> Option<Changeable>,
    /// How many times as long an epoch takes with another value of a setting, which the manifest
    /// has; `None` where nobody knows.
    pub pace: &'a dyn Fn(&Difference) -> Option<f64>,
    /// The epochs that it has in common, bit by bit, with a run that is different in this; `None`
    /// where it has none.
    pub same_until: &'a dyn Fn(&[Difference], &Metadata) -> Option<u64>,
}

/// Where a setting of a run may be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changeable {
    /// It counts from the next step on.
    Anywhere,
    /// A position inside an epoch means nothing with another value.
    BetweenEpochs,
}

impl Training<'_> {
    /// The folder of its numbered runs, relative to the project.
    pub fn folder(&self) -> PathBuf {
        self.policy.base_dir.as_deref().unwrap_or(self.base_dir).into()
    }

    /// The run that is asked for by its number.
    pub(crate) fn number(&self, request: &Request) -> Option<u32> {
        request.run_number.or(self.policy.run_number).or(self.policy.resume_from_run)
    }

    pub(crate) fn runs(&self, root: &ProjectRoot) -> Runs {
        Runs::at(root.disk(), root.join(self.folder()))
    }

    /// Where a run is that lies in another folder than new ones would.
    fn place(&self, root: &ProjectRoot, run: &Run) -> String {
        match run.folder.parent() {
            Some(folder) if folder != self.runs(root).folder() => {
                format!(" in {}", folder.strip_prefix(root).unwrap_or(folder).display())
            }
            _ => String::new(),
        }
    }

    /// What stands on disk for it. `check` looks at the run that is meant before anything is said
    /// of it.
    pub fn inspect(
        &self,
        o: &InspectContext,
        criteria: &RunCriteria,
        check: impl FnOnce(&RunSelection) -> Result<(), StageError>,
    ) -> Result<Inspection, StageError> {
        let selection = self.select_run(o.request, o.pipeline, o.stage, o.root, criteria)?;
        check(&selection)?;
        match selection {
            RunSelection::New { reason, changes, .. } => {
                let forecast = self.forecast_new(o, criteria);
                let state = StageState::Absent { reason, changes };
                Ok(Inspection { forecast, ..state.into() })
            }
            RunSelection::Empty(run) => {
                let reason = format!("run {} has no checkpoint yet", run.number);
                let forecast = self.forecast_new(o, criteria);
                Ok(Inspection { forecast, ..StageState::absent(reason).into() })
            }
            RunSelection::Existing(existing) => {
                let (run, metadata) = *existing;
                let values = o.request.monitor.as_deref().map(|name| values(&metadata, name));
                if let Some(part) = self.first_part(&run, &metadata, criteria) {
                    return Ok(self.of_first_part(o, run, part, values.unwrap_or_default()));
                }
                let (number, pace) = (run.number, Pace::of(&metadata));
                let found = self.inspect_run(o, run, metadata);
                let forecast = pace.and_then(|pace| self.forecast(pace, &found.state, number));
                Ok(Inspection { values: values.unwrap_or_default(), forecast, ..found })
            }
            RunSelection::Changed(changed) => {
                let ChangedRun { run, metadata, different } = *changed;
                let (done, total) = (completed_epochs(&run, &metadata), self.total(&metadata));
                let words = in_words(&different);
                let reason = format!("run {}: goes on with a change, {words}", run.number);
                let state = StageState::Partial { done, total, reason };
                let pace = Pace::of(&metadata);
                let forecast = pace.and_then(|pace| self.forecast(pace, &state, run.number));
                Ok(Inspection { forecast, ..state.into() })
            }
        }
    }

    /// What stands of a run that went on otherwise behind the epochs that are wanted.
    fn of_first_part(
        &self,
        o: &InspectContext,
        run: Run,
        part: Metadata,
        values: BTreeMap<u64, f64>,
    ) -> Inspection {
        let epochs = number_text::counted(part.epochs, "epoch");
        let reason = format!(
            "up to date, the first {epochs} of run {}, which was trained with other settings behind them",
            run.number
        );
        Inspection { values, ..done_by(o, run, part, reason) }
    }

    fn inspect_run(&self, o: &InspectContext, run: Run, metadata: Metadata) -> Inspection {
        let total = self.total(&metadata);
        let done = completed_epochs(&run, &metadata);
        let rules = self.stopping.clone().until(o.request.until);
        let ending = rules.ending(&metadata.history, Trained::of_run(&metadata, done));
        let to = o.request.until.map_or(total, |until| until.min(total));
        if (done >= total || ending.is_some()) && metadata.status != Status::Completed {
            // Its process ended between the last checkpoint and the end: what is left is to put
            // things in order.
            let (trained, why) = (trained(done, total), unfinished_reason(&run, &metadata));
            let reason = format!("run {}: {trained}, {why}", run.number);
            return StageState::Partial { done, total: total.max(done), reason }.into();
        }
        let said = self.finished_early(&metadata);
        let early = ending.as_ref().map(|ending| ending.reason.as_str()).or(said);
        if done >= total || early.is_some() {
            let is_gone =
                |best: &CheckpointRecord| !run.best().exists() && !run.file_of(best).is_dir();
            if metadata.best_checkpoint.as_ref().is_some_and(is_gone) {
                let reason = format!("run {}: best.ckpt is gone", run.number);
                return StageState::Partial { done, total: total.max(done), reason }.into();
            }
            let reason = self.why_done(o, &run, &metadata, done, early);
            return done_by(o, run, metadata, reason);
        }
        if done >= metadata.epochs || finished_early(&metadata).is_some() {
            return StageState::Extendable { from: done, to }.into();
        }
        let reason = format!("run {}: {}", run.number, unfinished_reason(&run, &metadata));
        StageState::Partial { done, total: to, reason }.into()
    }

    /// Why a run ended before its last epoch, where that still counts.
    pub(crate) fn finished_early<'a>(&self, metadata: &'a Metadata) -> Option<&'a str> {
        let is_as_long = self.total(metadata) <= metadata.epochs && !is_ended_by_rule(metadata);
        finished_early(metadata).filter(|_| is_as_long || self.stopping.is_timed_out(metadata))
    }

    /// Whether nothing is left to train of a run.
    pub(crate) fn has_ended(&self, run: &Run, metadata: &Metadata) -> bool {
        let done = completed_epochs(run, metadata);
        let trained = Trained::of_run(metadata, done);
        done >= self.total(metadata) || self.stopping.ending(&metadata.history, trained).is_some()
    }

    /// What is left of a run.
    fn forecast(&self, pace: Pace, state: &StageState, run: RunNumber) -> Option<Forecast> {
        let (from, to) = match *state {
            StageState::Partial { done, total, .. } => (done, total),
            StageState::Extendable { from, to } => (from, to),
            StageState::Absent { .. } | StageState::Done { .. } | StageState::Transient => {
                return None;
            }
        };
        Some(pace.forecast(self.policy, to.saturating_sub(from), format!("run {run}")))
    }

    /// All of a new run, as long as one that was like it; the newest that differs in nothing that
    /// an epoch takes longer by, or else the newest.
    fn forecast_new(&self, o: &InspectContext, criteria: &RunCriteria) -> Option<Forecast> {
        let is_own = |stage: &str| stage.split('@').next() == Some(o.stage.declared());
        let all = self.runs(o.root).list().into_iter().rev();
        let known = all.filter_map(|run| Some((run.number, run.metadata().ok()?)));
        let (mut other, mut same) = (None, None);
        for (number, metadata) in known {
            let Some(pace) = Pace::of(&metadata)
                .filter(|_| metadata.pipeline == o.pipeline && is_own(&metadata.stage))
            else {
                continue;
            };
            let changed = criteria.settings_changed(&metadata);
            let paces: Vec<Option<f64>> =
                changed.iter().map(|change| (self.pace)(change)).collect();
            let is_same = criteria.data_changed(&metadata).is_none()
                && paces.iter().all(|pace| *pace == Some(1.0));
            if is_same {
                same = Some((pace, metadata, format!("run {number}")));
                break;
            }
            let times: f64 = paces.iter().flatten().product();
            let scaled = match format!("{times:.1}").trim_end_matches(".0") {
                "1" => String::new(),
                times => format!(" ({times} times)"),
            };
            let from = format!("run {number}, which has other settings{scaled}");
            other = other.or(Some((pace.times(times), metadata, from)));
        }
        let Some((pace, metadata, from)) = same.or(other) else {
            return self.forecast_of_limits();
        };
        let total = self.total_of_new(&metadata, pace);
        let to = o.request.until.map_or(total, |until| until.min(total));
        Some(pace.of_new_run().forecast(self.policy, to, from))
    }

    fn why_done(
        &self,
        o: &InspectContext,
        run: &Run,
        metadata: &Metadata,
        done: u64,
        early: Option<&str>,
    ) -> String {
        let whose = if metadata.pipeline != o.pipeline {
            format!(" of pipeline {}", metadata.pipeline)
        } else if metadata.stage != o.stage.as_str() {
            format!(" of stage {}", metadata.stage)
        } else {
            String::new()
        };
        let total = self.total(metadata);
        let (place, number) = (self.place(o.root, run), run.number);
        if let Some(why) = early.filter(|_| done < total) {
            format!(
                "up to date, run {number}{whose}{place}: ended at epoch {done} of {total}, {why}"
            )
        } else if done > total {
            format!(
                "run {number}{whose}{place} was {}: it is handed on as it is; `--force` trains a new run",
                trained(done, total)
            )
        } else {
            format!("up to date, run {number}{whose}{place}")
        }
    }

    /// Notes in the run that it is under way. `at`: where it goes on.
    pub fn note_running(
        &self,
        context: &RunContext,
        manager: &mut CheckpointManager,
        at: Place,
        device: &str,
    ) -> Result<(), StageError> {
        manager.update(|m| {
            // Behind its newest good checkpoint nothing was changed.
            changes::settle(&mut m.changes, at);
            m.status = Status::Running;
            m.message = None;
            forget_ending(m);
            // What came behind is done again, or never was to be.
            m.history.retain(|e| e.epoch <= at.epoch);
            m.epochs = self.total(m).max(at.epoch);
            if self.number(&context.request).is_some() {
                // A run that was named belongs to those who named it from now on.
                (m.pipeline, m.stage) = (context.pipeline.clone(), context.stage.to_string());
            }
            m.device = device.to_owned();
            if let Some(name) = self.experiment_name {
                m.experiment_name = name.to_owned();
            }
        })?;
        Ok(())
    }

    /// Tells of the end of a run that was completed, and hands its checkpoints on. `next`: what one
    /// would type with its best checkpoint.
    pub fn outcome(
        &self,
        context: &RunContext,
        manager: &CheckpointManager,
        next: impl FnOnce(&str) -> Option<NextCommand>,
    ) -> Outcome {
        let (run, metadata) = (manager.run(), &manager.joined_metadata());
        let directory = shown(&run.folder, context);
        let best = metadata.best_checkpoint.as_ref();
        let monitor = &self.policy.monitor;
        // The stage that judges the checkpoints tells of the best one when it has looked at all.
        let judge = judged_metric(monitor).map(|(stage, _)| stage);
        let judge = judge.filter(|_| manager.is_awaited());
        let best = best.filter(|_| judge.is_none());
        let value = best.and_then(|b| b.metrics.get(monitor).copied());
        context.event(Event::Completed {
            best: best.map(|b| b.epoch),
            monitor: monitor.clone(),
            value,
        });
        let score = value.map(|value| self.policy.mode.score(value));
        let next = best.and_then(|best| next(&format!("{directory}/{}", best.path)));
        let next = next.map(|next| NextCommand { score, ..next });
        let best = match (best, value) {
            (Some(best), Some(value)) => {
                let (epoch, path) = (best.epoch, &best.path);
                let value = number_text::short(value);
                format!(", best {monitor} {value} at epoch {epoch}: {directory}/{path}")
            }
            _ => judge.map(|stage| format!(", `{stage}` finds the best")).unwrap_or_default(),
        };
        let epochs = self.total(metadata);
        let early = finished_early(metadata);
        let untold = if early.is_some() { 0 } else { epochs };
        let done = metadata.history.last().map_or(untold, |last| last.epoch);
        let trained = match early {
            Some(why) if done < epochs => format!("{done} of {epochs} epochs ({why})"),
            _ => number_text::counted(epochs.max(done), "epoch"),
        };
        let summary = format!("run {}, {trained}{best}", run.number);
        let artifact = Checkpoints::of_run(run.clone(), metadata.clone()).artifact();
        Outcome { artifact: Some(artifact), summary, next }
    }
}

/// How far a run is trained that has all epochs which are asked for.
fn trained(done: u64, total: u64) -> String {
    if done > total {
        format!("trained for {done} epochs, more than the {total} asked for")
    } else {
        "trained".to_owned()
    }
}

/// A metric by epoch.
fn values(metadata: &Metadata, name: &str) -> BTreeMap<u64, f64> {
    let of = |epoch: &EpochRecord| Some((epoch.epoch, *epoch.metrics.get(name)?));
    metadata.history.iter().filter_map(of).collect()
}

/// A path as people are told it: from the project's folder.
pub fn shown(path: &Path, context: &RunContext) -> String {
    path.strip_prefix(&context.root).unwrap_or(path).display().to_string()
}

/// What stands for a training that a run has done.
fn done_by(o: &InspectContext, run: Run, metadata: Metadata, reason: String) -> Inspection {
    let folder = run.folder.strip_prefix(o.root).unwrap_or(&run.folder).to_owned();
    let artifact = Some(Checkpoints::of_run(run, metadata).artifact());
    Inspection { run: Some(folder), ..Inspection::new(StageState::Done { reason }, artifact) }
}

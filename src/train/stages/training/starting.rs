//! Where a training begins: at its run's newest good checkpoint, at a file that was named, or at
//! the first step.

use burn::tensor::Device;
use pipe_core::progress::Event;
use pipe_engine::kind::{RunContext, StageError};
use pipe_runs::{CheckpointManager, EpochRecord, Header, Loaded};
use pipe_trainer::{Branch, shown};

use super::definition::Training;
use super::device_group::DeviceGroup;
use crate::architecture::Network;
use crate::data::{Dataset, Split};
use crate::nn::{Scope, param_paths};
use crate::stages::init;
use crate::stages::resume_checkpoint::{self, Settings};
use crate::trainer::{
    EMA_WEIGHTS, Horizon, InitSettings, ModelInfo, Position, Schedule, TrainState,
};

/// The state before the first step of this process, and how far it is.
pub(super) struct StartingPoint {
    pub state: TrainState,
    pub position: Position,
    /// See [`TrainingContext`](crate::trainer::TrainingContext).
    pub other_steps: i64,
    /// What is told of a checkpoint that it comes from.
    pub told: Vec<Event>,
}

/// What is about to be trained, and on what.
pub(super) struct Beginner<'a> {
    /// The settings that positions depend on.
    pub reached_with: &'a Settings,
    pub dataset: &'a Dataset,
    pub info: &'a ModelInfo,
    /// A run that is the same training up to some epoch.
    pub branch: Option<Branch>,
}

impl Training<'_> {
    /// `state` is that of a new training.
    pub(super) fn starting_point(
        &self,
        context: &RunContext,
        keeper: &mut CheckpointManager,
        mut state: TrainState,
        device: &Device,
        what: &Beginner,
    ) -> Result<StartingPoint, StageError> {
        let Beginner { reached_with, dataset, info, branch } = what;
        let mut is_branch = false;
        let mut newest = self.with_runs(|training| training.newest(context, keeper))?;
        if newest.is_none() {
            newest = branch.as_ref().and_then(|branch| of_branch(branch, context));
            if let (Some(checkpoint), Some(branch)) = (&newest, branch) {
                let path = shown(checkpoint.path(), context);
                keeper.update(|m| (m.resumed_from, m.history) = (Some(path), branch.history()))?;
                is_branch = true;
            }
        }
        let named = || resume_checkpoint::load(self.settings, &context.root);
        let Some(mut checkpoint) = newest.map_or_else(named, |found| Ok(Some(found)))? else {
            let (position, mut told) = (Position::default(), Vec::new());
            if let Some(init) = &self.settings.init {
                (state, told) = begin_with(init, context, keeper, state, (device, info))?;
            }
            return Ok(StartingPoint { state, position, other_steps: 0, told });
        };
        let images = dataset.indices(Split::Train).len();
        let mut position = Position::of(checkpoint.header());
        if !is_branch && !checkpoint.path().starts_with(&keeper.run().folder) {
            let then = resume_checkpoint::reached_with(checkpoint.path(), checkpoint.header());
            let before = self.periods.steps(checkpoint.header().epoch, images);
            let (begin, said) =
                resume_checkpoint::begin(checkpoint.header(), then.as_ref(), reached_with, before);
            position = begin;
            said.into_iter().for_each(|text| context.event(Event::Warning { text }));
        }
        state = state.restore(&mut checkpoint, device)?;
        let history = &keeper.metadata().history;
        let previous =
            history.iter().rfind(|e| e.epoch == position.epoch).map(|e| e.metrics.clone());
        let resumed = Event::Resumed {
            file: shown(checkpoint.path(), context),
            position: position.epoch,
            step: position.step_in_epoch,
            metrics: previous.unwrap_or_else(|| checkpoint.header().metrics.clone()),
        };
        let changes = &keeper.metadata().changes;
        let settings = &self.periods.at(position.epoch).settings;
        let steps = settings.steps_per_epoch(images);
        let other_steps = if changes.is_empty() {
            self.periods.other_steps(position.epoch, images)
        } else {
            other_steps(&position, steps)
        };
        let begins = changes.last().is_some_and(|change| change.place() == position.place());
        let before = previous_rate(checkpoint.header(), history, &position, (steps, other_steps));
        let step = position.global_step.saturating_add_signed(-other_steps);
        let rate =
            settings.schedule.rate(settings.learning_rate, step, settings.horizon_steps(steps));
        let jump = before.filter(|before| begins && *before != rate).map(|before| {
            let text = format!(
                "The learning rate was {before:.3e} in the last step, and goes on at {rate:.3e}"
            );
            Event::Message { text }
        });
        let told = std::iter::once(resumed).chain(jump).collect();
        Ok(StartingPoint { state, position, other_steps, told })
    }

    /// Tells of the run, and notes in its metadata that it is under way.
    pub(super) fn begin(
        &self,
        context: &RunContext,
        keeper: &mut CheckpointManager,
        start: &mut StartingPoint,
        devices: &DeviceGroup,
    ) -> Result<(), StageError> {
        let StartingPoint { state, position, told, .. } = start;
        let parameters = parameters(&state.model, &Scope::All);
        let trainable = self::parameters(&state.model, &state.scope);
        let bytes = state.checkpoint_bytes(trainable);
        self.with_runs(|training| training.check_disk_space(context, keeper, bytes))?;
        context.event(Event::WorkOpened {
            number: keeper.run().number.0,
            title: keeper.metadata().experiment_name.clone(),
            directory: shown(&keeper.run().folder, context),
            device: devices.name.clone(),
            size: parameters,
            changing: trainable,
        });
        std::mem::take(told).into_iter().for_each(|event| context.event(event));
        self.with_runs(|training| {
            training.note_running(context, keeper, position.place(), &devices.name)
        })?;
        if devices.micro_batches > 1 {
            // Sums in another order: the bits differ from those of whole batches.
            keeper.update(|m| {
                m.other.insert("pieces_per_batch".into(), devices.micro_batches.into());
            })?;
        }
        Ok(())
    }
}

/// The checkpoint of a run that is the same training up to there. Without it all is trained anew,
/// to the same end.
fn of_branch(branch: &Branch, context: &RunContext) -> Option<Loaded> {
    branch.load()?.map_err(|e| context.event(Event::Warning { text: e.to_string() })).ok()
}

/// The state of a new training with the weights that `init` names.
fn begin_with(
    init: &InitSettings,
    context: &RunContext,
    keeper: &mut CheckpointManager,
    state: TrainState,
    (device, info): (&Device, &ModelInfo),
) -> Result<(TrainState, Vec<Event>), StageError> {
    let file = init::require(init, &context.inputs, &context.root)?;
    let found = init::beginning(init, &file, (&state.model, &state.scope), info)?;
    let mut checkpoint = init::load(file)?;
    let state = state.begin_with(&mut checkpoint, &found.taken, device)?;
    let path = shown(checkpoint.path(), context);
    let which = if found.taken.prefix == EMA_WEIGHTS { "EMA weights" } else { "weights" };
    let optimizer = if init.optimizer { " and the optimizer's state" } else { "" };
    let epoch = checkpoint.header().epoch;
    let text = format!("Begins with the {which}{optimizer} of {path} (epoch {epoch})");
    keeper.update(|m| m.resumed_from = Some(path))?;
    let told = std::iter::once(text).chain(found.notes).map(|text| Event::Message { text });
    Ok((state, told.collect()))
}

/// Steps that were done besides those that a position makes with so many steps an epoch.
fn other_steps(position: &Position, steps: u64) -> i64 {
    let now = position.epoch * steps + position.step_in_epoch;
    position.global_step as i64 - now as i64
}

/// The learning rate of the step before a position, if there was one. Inside an epoch the steps of
/// an epoch are those of before.
fn previous_rate(
    header: &Header,
    history: &[EpochRecord],
    position: &Position,
    (steps, other_steps): (u64, i64),
) -> Option<f64> {
    if position.step_in_epoch == 0 {
        return history.iter().rfind(|e| e.epoch == position.epoch).map(|e| e.learning_rate);
    }
    let then = &header.scheduler_state_dict;
    let schedule: Schedule = serde_json::from_value(then["schedule"].clone()).ok()?;
    let (peak, horizon) = (then["base_lr"].as_f64()?, then["horizon_epochs"].as_u64()?);
    let step = position.global_step.saturating_add_signed(-other_steps).checked_sub(1)?;
    Some(schedule.rate(peak, step, Horizon { epochs: horizon, steps_per_epoch: steps }))
}

/// How many numbers the parameters of a part of the network are.
fn parameters(model: &Network, scope: &Scope) -> u64 {
    let trained = param_paths(model).into_iter().filter(|(_, name, _)| scope.holds(name));
    trained.map(|(.., shape)| shape.iter().product::<usize>() as u64).sum()
}

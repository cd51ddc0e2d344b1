//! What training writes down: checkpoints, figures, and events for whoever watches.

use std::collections::BTreeMap;

use pipe_engine::events::{EventFile, MetricsFile};
use pipe_engine::kind::{Failure, RunContext, StageError};
use pipe_engine::progress::Event;
use pipe_engine::store::{EpochRecord, Header, Keeper, Saved, Status, StoreError, atomic};
use serde_json::{Value, json};

use super::run::Position;
use super::settings::TrainSettings;
use super::state::TrainState;

/// The writing side of one training.
pub struct Recorder<'a> {
    context: &'a RunContext<'a>,
    settings: &'a TrainSettings,
    keeper: Keeper,
    metrics: MetricsFile,
    events: EventFile,
    model_config: Value,
    classes: Vec<String>,
    /// Optimizer step of the newest checkpoint.
    saved_step: Option<u64>,
}

/// How an epoch went, apart from what was learned.
pub struct EpochTimes {
    pub seconds: f64,
    /// Images per second.
    pub speed: f64,
    /// Share of the time spent waiting for images.
    pub wait_share: f64,
    /// Learning rate of the last step.
    pub rate: f64,
}

impl<'a> Recorder<'a> {
    /// Opens the logs to go on after `position`.
    pub fn open(
        context: &'a RunContext<'a>,
        settings: &'a TrainSettings,
        keeper: Keeper,
        position: &Position,
        model_config: Value,
        classes: Vec<String>,
    ) -> Result<Self, StageError> {
        let logs = keeper.run().logs();
        let failed =
            |e: std::io::Error| StageError::new(Failure::Storage, format!("failed to write the logs: {e}"));
        atomic::create_folder(&logs).map_err(|e| storage(e.into()))?;
        let metrics = MetricsFile::open(&logs.join("metrics.jsonl"), position.global_step).map_err(failed)?;
        let events = EventFile::create(&logs, position.global_step).map_err(failed)?;
        let saved_step = (position.global_step > 0).then_some(position.global_step);
        Ok(Self { context, settings, keeper, metrics, events, model_config, classes, saved_step })
    }

    pub fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    /// Figures of one optimizer step.
    pub fn step(&mut self, epoch: u64, step: u64, loss: f64, rate: f64) -> Result<(), StageError> {
        let values = [("train_loss_step", loss), ("learning_rate", rate)];
        self.write(step, epoch, &values)
    }

    /// Figures of one epoch.
    pub fn epoch(
        &mut self,
        position: &Position,
        metrics: &BTreeMap<String, f64>,
        times: EpochTimes,
    ) -> Result<(), StageError> {
        let mut values: Vec<(&str, f64)> =
            metrics.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        values.extend([
            ("epoch_seconds", times.seconds),
            ("images_per_second", times.speed),
            ("data_wait", times.wait_share),
        ]);
        self.write(position.global_step, position.epoch, &values)?;
        self.keeper.note_epoch(EpochRecord {
            epoch: position.epoch,
            global_step: position.global_step,
            metrics: metrics.clone(),
            learning_rate: times.rate,
            seconds: times.seconds,
            images_per_second: times.speed,
            data_wait: times.wait_share,
        });
        Ok(())
    }

    fn write(&mut self, step: u64, epoch: u64, values: &[(&str, f64)]) -> Result<(), StageError> {
        let written = self
            .metrics
            .append(step, epoch, values.iter().copied())
            .and_then(|()| self.events.scalars(step, values.iter().copied()));
        written.map_err(|e| StageError::new(Failure::Storage, format!("failed to write the logs: {e}")))
    }

    /// Whether the policy wants a checkpoint at this optimizer step.
    pub fn wants_step(&self, global_step: u64) -> bool {
        let policy = &self.settings.checkpoint;
        policy.enabled && policy.save_every_n_steps.is_some_and(|n| global_step.is_multiple_of(n))
    }

    /// Carries out what the policy says at an epoch's end.
    pub fn save_epoch(
        &mut self,
        position: &Position,
        metrics: &BTreeMap<String, f64>,
        state: &TrainState,
        is_final: bool,
    ) -> Result<(), StageError> {
        let header = self.header(position, metrics.clone());
        let saved = self.keeper.save_epoch(&header, is_final, || state.tensors()).map_err(storage)?;
        let Some(saved) = saved else { return Ok(()) };
        self.saved_step = Some(position.global_step);
        let best = saved.is_best;
        self.tell(saved);
        let monitor = &self.settings.checkpoint.monitor;
        if let (true, Some(value)) = (best, metrics.get(monitor)) {
            self.context.event(Event::NewBest { monitor: monitor.clone(), value: *value });
        }
        Ok(())
    }

    /// Saves inside an epoch.
    pub fn save_inside_epoch(&mut self, position: &Position, state: &TrainState) -> Result<(), StageError> {
        if !self.settings.checkpoint.enabled {
            return Ok(());
        }
        let header = self.header(position, BTreeMap::new());
        let saved = self.keeper.save_partial(&header, &state.tensors()).map_err(storage)?;
        self.saved_step = Some(position.global_step);
        self.tell(saved);
        Ok(())
    }

    /// Saves between epochs if the policy left this epoch out.
    pub fn make_sure_of(&mut self, position: &Position, state: &TrainState) -> Result<(), StageError> {
        if self.saved_step == Some(position.global_step) {
            Ok(())
        } else {
            self.save_inside_epoch(position, state)
        }
    }

    /// Notes how the run ended.
    pub fn end(&mut self, status: Status, message: Option<String>) -> Result<(), StageError> {
        self.keeper.end(status, message).map_err(storage)
    }

    fn tell(&self, saved: Saved) {
        self.context.event(Event::Saved { file: saved.file, bytes: saved.bytes, seconds: saved.seconds });
    }

    fn header(&self, position: &Position, metrics: BTreeMap<String, f64>) -> Header {
        let schedule = serde_json::to_value(&self.settings.schedule).unwrap_or_default();
        Header {
            epoch: position.epoch,
            global_step: position.global_step,
            step_in_epoch: position.step_in_epoch,
            metrics,
            scheduler_state_dict: json!({
                "schedule": schedule,
                "last_step": position.global_step,
                "base_lr": self.settings.learning_rate,
                "horizon_epochs": self.settings.horizon(),
            }),
            loop_state: json!({ "sums": position.sums }),
            saved_at: chrono::Utc::now(),
            identity: self.context.identity.clone(),
            seed: self.settings.seed,
            model_config: self.model_config.clone(),
            extra: BTreeMap::from([
                ("class_names".to_owned(), json!(self.classes).to_string()),
                ("stage".to_owned(), self.context.stage.to_string()),
            ]),
        }
    }
}

/// A failure to read or write the run.
pub fn storage(error: StoreError) -> StageError {
    let failure = match &error {
        StoreError::Held { .. } => Failure::Setting,
        _ => Failure::Storage,
    };
    StageError::new(failure, error.to_string())
}

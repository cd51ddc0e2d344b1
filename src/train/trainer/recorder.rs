//! What training writes down: checkpoints, metrics, and events for whoever watches.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use pipe_core::progress::Event;
use pipe_engine::kind::{Failure, RunContext, StageError};
use pipe_fs::atomic;
use pipe_fs::atomic::Log;
use pipe_runs::events::{EventFile, MetricsFile};
use pipe_runs::tensor::HostTensor;
use pipe_runs::{CheckpointManager, EpochRecord, Header, Run, Saved, Status};
use serde_json::json;

use super::checkpoint_writer::CheckpointWriter;
use super::settings::TrainingSettings;
use super::train_state::TrainState;
use super::training_loop::{Position, TrainingContext};
use crate::architecture::ModelConfig;
use crate::sampling::{Format, GridRequest};

/// The writing side of one training.
pub struct Recorder<'a> {
    context: &'a RunContext<'a>,
    settings: &'a TrainingSettings,
    run: Run,
    experiment: String,
    /// Of the run, which every checkpoint of it has.
    identity: String,
    writer: CheckpointWriter,
    metrics: MetricsFile,
    events: EventFile,
    model_info: ModelInfo,
    on_new_best: Option<OnNewBest>,
    /// Optimizer step of the newest checkpoint.
    saved_step: Option<u64>,
    /// Of the checkpoint that is being written.
    pending: PendingSave,
    /// Seconds that the loop has waited for it.
    waited: f64,
}

/// What is told of a checkpoint once it stands.
#[derive(Clone, Copy, Default)]
struct PendingSave {
    /// Seconds that the loop stood still for it.
    blocked: f64,
    /// What the policy compares checkpoints by.
    monitored: Option<f64>,
    /// The epoch that it ends.
    epoch: u64,
}

/// What else to write when a checkpoint is the new best: from the checkpoint's path, into the run's
/// folder.
pub type OnNewBest = fn(&Path, &Path) -> Result<(), StageError>;

/// What a checkpoint says of its model.
#[derive(Debug, Clone)]
pub struct ModelInfo {
    pub config: ModelConfig,
    pub classes: Vec<String>,
    /// Further keys of the header.
    pub extra: BTreeMap<String, String>,
}

/// How an epoch went, apart from what was learned.
pub struct EpochTiming {
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
        settings: &'a TrainingSettings,
        keeper: CheckpointManager,
        position: &Position,
        model_info: ModelInfo,
        on_new_best: Option<OnNewBest>,
    ) -> Result<Self, StageError> {
        let logs = keeper.run().logs();
        atomic::create_folder(&logs)?;
        let metrics = MetricsFile::open(&logs.join("metrics.jsonl"), position.global_step)?;
        let events = EventFile::create(&logs, position.global_step)?;
        let saved_step = (position.global_step > 0).then_some(position.global_step);
        let (run, experiment) = (keeper.run().clone(), keeper.metadata().experiment_name.clone());
        let identity = keeper.metadata().identity.clone();
        let (writer, pending) = (CheckpointWriter::start(keeper)?, PendingSave::default());
        Ok(Self {
            context,
            settings,
            run,
            experiment,
            identity,
            writer,
            metrics,
            events,
            model_info,
            on_new_best,
            saved_step,
            pending,
            waited: 0.0,
        })
    }

    /// Writes the metrics of one optimizer step.
    pub fn log_step(
        &mut self,
        epoch: u64,
        step: u64,
        loss: f64,
        rate: f64,
    ) -> Result<(), StageError> {
        let values = [("train_loss_step", loss), ("learning_rate", rate)];
        self.write(step, epoch, &values)
    }

    /// Writes the metrics of one epoch.
    pub fn log_epoch(
        &mut self,
        position: &Position,
        metrics: &BTreeMap<String, f64>,
        times: EpochTiming,
    ) -> Result<(), StageError> {
        let mut values: Vec<(&str, f64)> =
            metrics.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        values.extend([
            ("epoch_seconds", times.seconds),
            ("images_per_second", times.speed),
            ("data_wait", times.wait_share),
        ]);
        self.write(position.global_step, position.epoch, &values)?;
        self.flush()?;
        self.writer.manager()?.record_epoch(EpochRecord {
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

    /// What the metrics up to now were written to. A checkpoint stands for them: training goes on
    /// behind it, and does not write them again. So they are made durable before it, by the thread
    /// that writes it.
    fn logs(&self) -> [Arc<Log>; 2] {
        [self.metrics.log(), self.events.log()]
    }

    fn write(&mut self, step: u64, epoch: u64, values: &[(&str, f64)]) -> Result<(), StageError> {
        self.metrics.append(step, epoch, values.iter().copied())?;
        Ok(self.events.scalars(step, values.iter().copied())?)
    }

    /// Whether the policy wants a checkpoint at this optimizer step.
    pub fn is_save_step(&self, global_step: u64) -> bool {
        let policy = &self.settings.checkpoint;
        policy.enabled && policy.save_every_n_steps.is_some_and(|n| global_step.is_multiple_of(n))
    }

    /// Begins what the policy says at an epoch's end.
    pub fn save_epoch(
        &mut self,
        position: &Position,
        metrics: &BTreeMap<String, f64>,
        state: &TrainState,
        is_final: bool,
    ) -> Result<(), StageError> {
        self.flush()?;
        let started = Instant::now();
        let header = self.header(position, metrics.clone());
        let wanted = self.writer.manager()?.wants(&header, is_final);
        let tensors = if wanted { state.tensors()? } else { Vec::new() };
        if wanted {
            self.saved_step = Some(position.global_step);
        }
        let monitored = metrics.get(&self.settings.checkpoint.monitor).copied();
        self.pending =
            PendingSave { blocked: self.blocked_since(started), monitored, epoch: position.epoch };
        let (on_new_best, logs) = (self.on_new_best, self.logs());
        self.writer.begin(move |keeper| {
            sync(&logs)?;
            let step = header.global_step;
            let saved = keeper.save_epoch(&header, is_final, || require_finite(tensors, step))?;
            if let (Some(Saved { is_best: true, .. }), Some(write)) = (&saved, on_new_best) {
                write(&keeper.run().best(), &keeper.run().folder)?;
            }
            Ok(saved)
        });
        Ok(())
    }

    /// Begins to save inside an epoch.
    pub fn save_mid_epoch(
        &mut self,
        position: &Position,
        state: &TrainState,
    ) -> Result<(), StageError> {
        if !self.settings.checkpoint.enabled {
            return Ok(());
        }
        self.flush()?;
        let started = Instant::now();
        let header = self.header(position, BTreeMap::new());
        let tensors = state.tensors()?;
        self.saved_step = Some(position.global_step);
        self.pending = PendingSave {
            blocked: self.blocked_since(started),
            monitored: None,
            epoch: position.epoch,
        };
        let logs = self.logs();
        self.writer.begin(move |keeper| {
            sync(&logs)?;
            let tensors = require_finite(tensors, header.global_step)?;
            Ok(Some(keeper.save_partial(&header, &tensors)?))
        });
        Ok(())
    }

    /// Tells of a checkpoint that stands now. Does not wait.
    ///
    /// # Errors
    /// What went wrong when it was written.
    pub fn poll(&mut self) -> Result<(), StageError> {
        let finished = self.writer.finished()?;
        self.report_saved(finished);
        Ok(())
    }

    /// Waits until nothing is being written any more.
    ///
    /// # Errors
    /// What went wrong when it was written.
    pub fn flush(&mut self) -> Result<(), StageError> {
        let started = Instant::now();
        let finished = self.writer.wait();
        self.waited += started.elapsed().as_secs_f64();
        self.report_saved(finished?);
        Ok(())
    }

    fn blocked_since(&mut self, started: Instant) -> f64 {
        std::mem::take(&mut self.waited) + started.elapsed().as_secs_f64()
    }

    /// Saves between epochs if the policy left this epoch out.
    pub fn ensure_saved(
        &mut self,
        position: &Position,
        state: &TrainState,
    ) -> Result<(), StageError> {
        if self.saved_step == Some(position.global_step) {
            Ok(())
        } else {
            self.save_mid_epoch(position, state)
        }
    }

    /// Samples the image grid of an epoch that ended, if it is not there. `false`: it was asked to
    /// stop before it was.
    pub fn sample_if_missing(
        &mut self,
        position: &Position,
        state: &TrainState,
        training: &TrainingContext,
    ) -> Result<bool, StageError> {
        if self.samples_path(position).is_file() {
            Ok(true)
        } else {
            self.sample_epoch(position, state, training)
        }
    }

    /// The image grid of an epoch.
    fn samples_path(&self, position: &Position) -> PathBuf {
        self.run.folder.join(format!("samples/epoch_{:03}.png", position.epoch))
    }

    /// Samples some images of each class as `samples/epoch_NNN.png`, and shows them in TensorBoard.
    /// `false`: it was asked to stop before they were sampled.
    pub fn sample_epoch(
        &mut self,
        position: &Position,
        state: &TrainState,
        training: &TrainingContext,
    ) -> Result<bool, StageError> {
        let title = format!("{}, epoch {}", self.experiment, position.epoch);
        let (seed, batch_size) = (self.settings.seed, self.settings.batch_size);
        let conditional = training.config.num_classes() > 0;
        let (request, part) =
            GridRequest::for_epoch(&title, &self.model_info.classes, conditional, seed, batch_size);
        let device = training.device.clone().inner();
        let going_on = |_, _| self.context.stop.requested().is_none();
        let sampled = request.sample(
            &state.weights(),
            training.config,
            &self.model_info.classes,
            &device,
            going_on,
        )?;
        let Some(grid) = sampled else { return Ok(false) };
        let grid = grid.render();
        let (size, png) = ([grid.width(), grid.height()], Format::Png.encode(&grid)?);
        let file = self.samples_path(position);
        file.parent().map_or(Ok(()), atomic::create_folder)?;
        // Sampled again unless the file stands.
        self.events.image(position.global_step, "samples", size, &png)?;
        self.events.log().sync()?;
        atomic::write(&file, |out| out.write_all(&png))?;
        let part = part.map(|part| format!(": {part}")).unwrap_or_default();
        let text = format!("Drew samples/epoch_{:03}.png{part}", position.epoch);
        self.context.event(Event::Message { text });
        Ok(true)
    }

    /// Notes how the run ended, once nothing is being written any more. Its files go back to the
    /// caller.
    ///
    /// # Errors
    /// What went wrong when the last checkpoint was written, or now.
    pub fn finish(
        mut self,
        status: Status,
        message: Option<String>,
    ) -> Result<CheckpointManager, StageError> {
        let written = self.flush().and_then(|()| sync(&self.logs()));
        let mut keeper = self.writer.into_manager()?;
        keeper.end(status, message)?;
        written.map(|()| keeper)
    }

    fn report_saved(&self, saved: Option<Saved>) {
        let Some(Saved { file, bytes, seconds, is_best }) = saved else { return };
        let PendingSave { blocked, monitored, epoch } = self.pending;
        self.context.event(Event::Saved { file, bytes, seconds, blocked });
        if let (true, Some(value)) = (is_best, monitored) {
            let monitor = self.settings.checkpoint.monitor.clone();
            self.context.event(Event::NewBest { monitor, value, position: epoch });
        }
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
            loop_state: json!({ "sums": position.loss_totals }),
            saved_at: chrono::Utc::now(),
            identity: self.identity.clone(),
            seed: self.settings.seed,
            model_config: serde_json::to_value(&self.model_info.config).unwrap_or_default(),
            extra: self
                .model_info
                .extra
                .clone()
                .into_iter()
                .chain([
                    ("class_names".to_owned(), json!(self.model_info.classes).to_string()),
                    ("stage".to_owned(), self.context.stage.to_string()),
                ])
                .collect(),
        }
    }
}

fn sync(logs: &[Arc<Log>]) -> Result<(), StageError> {
    Ok(logs.iter().try_for_each(|log| log.sync())?)
}

/// The state as it is to be saved. A step whose loss was finite can still have spoilt the weights;
/// a checkpoint of those would take the place of the last good one.
fn require_finite(
    tensors: Vec<HostTensor>,
    global_step: u64,
) -> Result<Vec<HostTensor>, StageError> {
    match tensors.iter().find(|t| !t.is_finite()) {
        None => Ok(tensors),
        Some(wrong) => Err(StageError::new(
            Failure::NotFinite,
            format!(
                "{} is not finite after step {global_step}; the last good checkpoint stands. A lower learning_rate \
                 or gradient_clip_val: 1.0 often helps",
                wrong.name
            ),
        )),
    }
}

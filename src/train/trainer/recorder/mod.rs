//! What training writes down: checkpoints, metrics, and events for whoever watches.

mod samples;
mod saving;

pub use samples::SampleGrid;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::Device;
use pipe_core::number_text;
use pipe_core::progress::Event;
use pipe_engine::kind::{RunContext, StageError};
use pipe_fs::atomic;
use pipe_fs::atomic::Log;
use pipe_runs::events::{EventFile, MetricsFile, UsageMeter};
use pipe_runs::{CheckpointManager, EpochRecord, LiveRequest, LiveRequests, Run, Saved, Status};
use pipe_trainer::{
    Ending, PlannedLength, StoppingRules, Trained, epoch_seconds, note_ending, note_memory,
};

use super::checkpoint_writer::CheckpointWriter;
use super::periods::{Period, Periods};
use super::settings::TrainingSettings;
use super::training_context::Position;
use crate::architecture::ModelConfig;

/// The writing side of one training.
pub struct Recorder<'a> {
    context: &'a RunContext<'a>,
    periods: &'a Periods,
    /// Of the period that the training is in.
    settings: &'a TrainingSettings,
    /// What headers of checkpoints of the period say.
    extra: &'a BTreeMap<String, String>,
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
    requests: LiveRequests,
    usage: UsageMeter,
    /// On which it trains.
    devices: Vec<Device>,
    /// Bytes of main memory that the process had at most.
    memory: Cell<u64>,
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
pub type OnNewBest = fn(&Path, &Run) -> Result<(), StageError>;

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
        periods: &'a Periods,
        keeper: CheckpointManager,
        position: &Position,
        model_info: ModelInfo,
        on_new_best: Option<OnNewBest>,
    ) -> Result<Self, StageError> {
        let Period { settings, extra, .. } = periods.at(position.epoch);
        let logs = keeper.run().logs();
        let disk = keeper.run().disk();
        atomic::create_folder(disk, &logs)?;
        let metrics = MetricsFile::open(disk, &logs.join("metrics.jsonl"), position.global_step)?;
        let mut events = EventFile::create(disk, &logs, position.global_step)?;
        events.settings(&keeper.metadata().experiment_name, &keeper.metadata().manifest)?;
        let saved_step = (position.global_step > 0).then_some(position.global_step);
        let (run, experiment) = (keeper.run().clone(), keeper.metadata().experiment_name.clone());
        let identity = keeper.metadata().identity.clone();
        let requests = LiveRequests::to(&run);
        let (writer, pending) = (CheckpointWriter::start(keeper)?, PendingSave::default());
        Ok(Self {
            context,
            periods,
            settings,
            extra,
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
            requests,
            usage: UsageMeter::start(),
            devices: Vec::new(),
            memory: Cell::new(0),
        })
    }

    /// Has the log tell how much memory of these devices the process has.
    pub fn watching(self, devices: impl IntoIterator<Item = Device>) -> Self {
        Self { devices: devices.into_iter().collect(), ..self }
    }

    /// Bytes of the devices' own memory that the process has, none where that is main memory.
    fn device_memory(&self) -> Option<(&'static str, f64)> {
        let usage = self.devices.iter().filter_map(Device::memory_pool_usage);
        let bytes = usage.map(|usage| usage.bytes_reserved).sum::<u64>();
        (bytes > 0).then_some(("gpu_memory_bytes", bytes as f64))
    }

    /// Goes on by the settings of the period that follows so many completed epochs.
    pub fn enter(&mut self, epochs: u64) {
        let Period { settings, extra, .. } = self.periods.at(epochs);
        (self.settings, self.extra) = (settings, extra);
    }

    /// Whether a person asks for this now.
    pub fn takes_request(&mut self, request: LiveRequest) -> Result<bool, StageError> {
        Ok(self.requests.take(request)?)
    }

    /// Bytes of main memory that the process has now, where the system says so. The most of them is
    /// noted in the end.
    pub fn sees_memory(&self) -> Option<u64> {
        let now = memory_stats::memory_stats().map(|m| m.physical_mem as u64)?;
        self.memory.set(self.memory.get().max(now));
        Some(now)
    }

    /// Writes the metrics of one optimizer step.
    pub fn log_step(
        &mut self,
        epoch: u64,
        step: u64,
        loss: f64,
        rate: f64,
    ) -> Result<(), StageError> {
        let mut values = vec![("train_loss_step", loss), ("learning_rate", rate)];
        let usage = self.usage.take_if_due();
        if !usage.is_empty() {
            values.extend(usage);
            values.extend(self.device_memory());
        }
        self.write(step, epoch, &values)
    }

    /// Writes what the validation inside an epoch found.
    pub fn log_validation(&mut self, epoch: u64, step: u64, loss: f64) -> Result<(), StageError> {
        self.write(step, epoch, &[("val_loss", loss)])?;
        let text = format!("Step {step}: val_loss={}", number_text::short(loss));
        self.context.event(Event::Message { text });
        Ok(())
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
        values.extend(self.usage.take());
        values.extend(self.device_memory());
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
            saved: None,
        });
        Ok(())
    }

    /// How far the training is at a position, as the rules see it that end it, and which of them
    /// has ended it there. Waits until nothing is being written.
    pub fn ending(
        &mut self,
        position: &Position,
        rules: &StoppingRules,
    ) -> Result<(Trained, Option<Ending>), StageError> {
        self.flush()?;
        let metadata = self.writer.manager()?.metadata();
        let history = &metadata.history;
        let inside = position.seconds_in_epoch;
        let trained = Trained::of(history, position.epoch, position.global_step, inside);
        let rules = rules.clone().until(self.context.request.until);
        Ok((trained, rules.ending(history, trained)))
    }

    /// Seconds of an epoch, by the newest up to one.
    pub fn epoch_seconds(&mut self, until: u64) -> Result<Option<f64>, StageError> {
        let history = &self.writer.manager()?.metadata().history;
        Ok(epoch_seconds(history.iter().rev().skip_while(|e| e.epoch > until)))
    }

    /// Fixes the number of epochs, and keeps the checkpoint of the last one that every length has in
    /// common.
    pub fn note_length(&mut self, length: &PlannedLength, common: u64) -> Result<(), StageError> {
        self.flush()?;
        let manager = self.writer.manager()?;
        manager.keep_epoch(common);
        manager.update(|metadata| length.note(metadata))?;
        let PlannedLength { epochs, limit } = length;
        let text = format!(
            "{epochs} epochs in all fit ({limit}): the learning rate falls from the end of epoch {common} on"
        );
        self.context.event(Event::Message { text });
        Ok(())
    }

    /// Waits until nothing is being written, and notes why the training ends before its last epoch.
    pub fn note_ending(&mut self, ending: Option<Ending>) -> Result<(), StageError> {
        self.flush()?;
        let Some(ending) = ending else { return Ok(()) };
        Ok(self.writer.manager()?.update(|metadata| note_ending(metadata, &ending))?)
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
        let memory = self.memory.get();
        if memory > 0 {
            keeper.update(|metadata| note_memory(metadata, memory))?;
        }
        // What stages have found out about the checkpoints up to now.
        let settled = keeper.settle()?.is_some();
        if let Some(write) = self.on_new_best.filter(|_| settled) {
            write(&keeper.run().best(), keeper.run())?;
        }
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
}

/// Makes what the logs were given durable.
fn sync(logs: &[Arc<Log>]) -> Result<(), StageError> {
    Ok(logs.iter().try_for_each(|log| log.sync())?)
}

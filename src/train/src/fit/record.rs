//! What training writes down: checkpoints, figures, and events for whoever watches.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use pipe_engine::events::{EventFile, MetricsFile};
use pipe_engine::kind::{Failure, RunContext, StageError};
use pipe_engine::progress::Event;
use pipe_engine::store::atomic::{self, Log};
use pipe_engine::store::tensor::HostTensor;
use pipe_engine::store::{EpochRecord, Header, Keeper, Run, Saved, Status};
use serde_json::json;

use super::run::{Job, Position};
use super::settings::FitSettings;
use super::state::TrainState;
use super::writer::Writer;
use crate::architecture::ModelConfig;
use crate::sample::{Format, Request};

/// The writing side of one training.
pub struct Recorder<'a> {
    context: &'a RunContext<'a>,
    settings: &'a FitSettings,
    run: Run,
    experiment: String,
    /// Of the run, which every checkpoint of it has.
    identity: String,
    writer: Writer,
    metrics: MetricsFile,
    events: EventFile,
    about: About,
    after_best: Option<AfterBest>,
    /// Optimizer step of the newest checkpoint.
    saved_step: Option<u64>,
    /// Of the checkpoint that is being written.
    writing: Writing,
    /// Seconds that the loop has waited for it.
    waited: f64,
}

/// What is told of a checkpoint once it stands.
#[derive(Clone, Copy, Default)]
struct Writing {
    /// Seconds that the loop stood still for it.
    blocked: f64,
    /// What the policy compares checkpoints by.
    monitored: Option<f64>,
    /// The epoch that it ends.
    epoch: u64,
}

/// What else to write when a checkpoint is the new best: from the checkpoint's path, into the run's
/// folder.
pub type AfterBest = fn(&Path, &Path) -> Result<(), StageError>;

/// What a checkpoint says of its model.
#[derive(Debug, Clone)]
pub struct About {
    pub config: ModelConfig,
    pub classes: Vec<String>,
    /// Further keys of the header.
    pub extra: BTreeMap<String, String>,
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
        settings: &'a FitSettings,
        keeper: Keeper,
        position: &Position,
        about: About,
        after_best: Option<AfterBest>,
    ) -> Result<Self, StageError> {
        let logs = keeper.run().logs();
        atomic::create_folder(&logs)?;
        let metrics = MetricsFile::open(&logs.join("metrics.jsonl"), position.global_step)?;
        let events = EventFile::create(&logs, position.global_step)?;
        let saved_step = (position.global_step > 0).then_some(position.global_step);
        let (run, experiment) = (keeper.run().clone(), keeper.metadata().experiment_name.clone());
        let identity = keeper.metadata().identity.clone();
        let (writer, writing) = (Writer::start(keeper)?, Writing::default());
        Ok(Self {
            context,
            settings,
            run,
            experiment,
            identity,
            writer,
            metrics,
            events,
            about,
            after_best,
            saved_step,
            writing,
            waited: 0.0,
        })
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
        self.settle()?;
        self.writer.keeper()?.note_epoch(EpochRecord {
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

    /// What the figures up to now were written to. A checkpoint stands for them: training goes on
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
    pub fn wants_step(&self, global_step: u64) -> bool {
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
        self.settle()?;
        let started = Instant::now();
        let header = self.header(position, metrics.clone());
        let wanted = self.writer.keeper()?.wants(&header, is_final);
        let tensors = if wanted { state.tensors()? } else { Vec::new() };
        if wanted {
            self.saved_step = Some(position.global_step);
        }
        let monitored = metrics.get(&self.settings.checkpoint.monitor).copied();
        self.writing =
            Writing { blocked: self.blocked_since(started), monitored, epoch: position.epoch };
        let (after_best, logs) = (self.after_best, self.logs());
        self.writer.begin(move |keeper| {
            sync(&logs)?;
            let step = header.global_step;
            let saved = keeper.save_epoch(&header, is_final, || good(tensors, step))?;
            if let (Some(Saved { is_best: true, .. }), Some(write)) = (&saved, after_best) {
                write(&keeper.run().best(), &keeper.run().folder)?;
            }
            Ok(saved)
        });
        Ok(())
    }

    /// Begins to save inside an epoch.
    pub fn save_inside_epoch(
        &mut self,
        position: &Position,
        state: &TrainState,
    ) -> Result<(), StageError> {
        if !self.settings.checkpoint.enabled {
            return Ok(());
        }
        self.settle()?;
        let started = Instant::now();
        let header = self.header(position, BTreeMap::new());
        let tensors = state.tensors()?;
        self.saved_step = Some(position.global_step);
        self.writing = Writing {
            blocked: self.blocked_since(started),
            monitored: None,
            epoch: position.epoch,
        };
        let logs = self.logs();
        self.writer.begin(move |keeper| {
            sync(&logs)?;
            let tensors = good(tensors, header.global_step)?;
            Ok(Some(keeper.save_partial(&header, &tensors)?))
        });
        Ok(())
    }

    /// Tells of a checkpoint that stands now. Does not wait.
    ///
    /// # Errors
    /// What went wrong when it was written.
    pub fn look(&mut self) -> Result<(), StageError> {
        let finished = self.writer.finished()?;
        self.tell(finished);
        Ok(())
    }

    /// Waits until nothing is being written any more.
    ///
    /// # Errors
    /// What went wrong when it was written.
    pub fn settle(&mut self) -> Result<(), StageError> {
        let started = Instant::now();
        let finished = self.writer.wait();
        self.waited += started.elapsed().as_secs_f64();
        self.tell(finished?);
        Ok(())
    }

    fn blocked_since(&mut self, started: Instant) -> f64 {
        std::mem::take(&mut self.waited) + started.elapsed().as_secs_f64()
    }

    /// Saves between epochs if the policy left this epoch out.
    pub fn make_sure_of(
        &mut self,
        position: &Position,
        state: &TrainState,
    ) -> Result<(), StageError> {
        if self.saved_step == Some(position.global_step) {
            Ok(())
        } else {
            self.save_inside_epoch(position, state)
        }
    }

    /// Draws the samples of an epoch that ended, if they are not there. `false`: it was asked to
    /// stop before they were.
    pub fn draw_missing_samples(
        &mut self,
        position: &Position,
        state: &TrainState,
        job: &Job,
    ) -> Result<bool, StageError> {
        match self.samples(position).is_file() {
            true => Ok(true),
            false => self.draw_samples(position, state, job),
        }
    }

    /// The picture of an epoch's samples.
    fn samples(&self, position: &Position) -> PathBuf {
        self.run.folder.join(format!("samples/epoch_{:03}.png", position.epoch))
    }

    /// Draws some images of each class as `samples/epoch_NNN.png`, and shows them in TensorBoard.
    /// `false`: it was asked to stop before they were drawn.
    pub fn draw_samples(
        &mut self,
        position: &Position,
        state: &TrainState,
        job: &Job,
    ) -> Result<bool, StageError> {
        let title = format!("{}, epoch {}", self.experiment, position.epoch);
        let (seed, batch_size) = (self.settings.seed, self.settings.batch_size);
        let conditional = job.config.num_classes() > 0;
        let (request, part) =
            Request::of_epoch(&title, &self.about.classes, conditional, seed, batch_size);
        let device = job.device.clone().inner();
        let going_on = |_, _| self.context.stop.requested().is_none();
        let drawn = request.picture(
            &state.weights(),
            job.config,
            &self.about.classes,
            &device,
            going_on,
        )?;
        let Some(picture) = drawn else { return Ok(false) };
        let picture = picture.render();
        let (size, png) = ([picture.width(), picture.height()], Format::Png.encode(&picture)?);
        let file = self.samples(position);
        file.parent().map_or(Ok(()), atomic::create_folder)?;
        // Drawn again unless the file stands.
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
    pub fn end(mut self, status: Status, message: Option<String>) -> Result<Keeper, StageError> {
        let written = self.settle().and_then(|()| sync(&self.logs()));
        let mut keeper = self.writer.into_keeper()?;
        keeper.end(status, message)?;
        written.map(|()| keeper)
    }

    fn tell(&self, saved: Option<Saved>) {
        let Some(Saved { file, bytes, seconds, is_best }) = saved else { return };
        let Writing { blocked, monitored, epoch } = self.writing;
        self.context.event(Event::Saved { file, bytes, seconds, blocked });
        if let (true, Some(value)) = (is_best, monitored) {
            let monitor = self.settings.checkpoint.monitor.clone();
            self.context.event(Event::NewBest { monitor, value, epoch });
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
            loop_state: json!({ "sums": position.sums }),
            saved_at: chrono::Utc::now(),
            identity: self.identity.clone(),
            seed: self.settings.seed,
            model_config: serde_json::to_value(&self.about.config).unwrap_or_default(),
            extra: self
                .about
                .extra
                .clone()
                .into_iter()
                .chain([
                    ("class_names".to_owned(), json!(self.about.classes).to_string()),
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
fn good(tensors: Vec<HostTensor>, global_step: u64) -> Result<Vec<HostTensor>, StageError> {
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

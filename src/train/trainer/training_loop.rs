//! The training loop, from top to bottom: [`fit`] is its table of contents, and each heading in it
//! a function below, in the same order.
//!
//! Names no model, and writes no file itself: that is [`Recorder`]'s work.

mod ending;
mod length;
mod looks;
mod periods;
mod probing;
mod throttle;

use std::collections::BTreeMap;
use std::time::Instant;

use burn::optim::{GradientsAccumulator, GradientsParams};
use pipe_core::progress::Event;
use pipe_engine::kind::{Failure, StageError};
use pipe_runs::LiveRequest;
use pipe_trainer::{Ending, StoppingRules, Trained, UNLIMITED};

use self::periods::InPeriod;
use self::throttle::Throttle;
use super::backward::Backward;
use super::batches::TimedBatches;
use super::data_parallel::DataParallel;
use super::ema;
use super::loss_meter::{LossMeter, LossTotals};
use super::noised_batch::{BatchKey, LabelDropout, NoisedBatch};
use super::optimizer::StepSettings;
use super::periods::Period;
use super::recorder::{EpochTiming, Recorder};
use super::train_state::TrainState;
use super::training_context::{Position, TrainingContext};
use super::validation::validation_loss;
use crate::architecture::Denoiser;
use crate::data::{Loader, Split};

/// Trains from `position` to the last epoch, or until a setting ends it before that. On a signal, saves and fails with
/// [`Failure::Interrupted`].
pub fn fit(
    training: &TrainingContext,
    state: &mut TrainState,
    position: Position,
    recorder: &mut Recorder,
) -> Result<(), StageError> {
    let mut trainer = Trainer::new(training, state, position, recorder)?;
    trainer.sample_if_missing()?;
    let mut data_parallel = trainer.start_workers()?;
    let mut ending = trainer.ending()?;
    trainer.plan_length()?;
    'epochs: while ending.is_none() && trainer.position.epoch < trainer.last_epoch() {
        // ---- Other settings, if an entry of `then` begins here
        if trainer.enter_period()? {
            data_parallel = trainer.restart_workers(data_parallel)?;
        }
        let mut epoch = trainer.begin_epoch(trainer.position.epoch + 1);
        for step in trainer.position.step_in_epoch..trainer.steps_per_epoch {
            // ---- Gradients of one or more batches, on all devices
            let gradients = trainer.gradients(&mut epoch, step, &mut data_parallel)?;

            // ---- One optimizer step
            let rate = trainer.optimizer_step(gradients);
            trainer.position.global_step += 1;
            trainer.position.step_in_epoch = step + 1;

            // ---- Logs: the only place inside an epoch that waits for the device
            trainer.log_step(&mut epoch, rate)?;
            trainer.report_step(&mut epoch);
            if trainer.is_probed_to_the_end() {
                return Ok(());
            }

            // ---- Validation and an image grid inside the epoch, if it is time
            trainer.look_inside(&epoch)?;

            // ---- The checkpoint that is being written beside this: whether it stands, and what
            // went wrong
            trainer.recorder.poll()?;

            // ---- A checkpoint inside the epoch: because it is time, a person asks, a signal
            // came, or the training ends here
            ending = trainer.save_inside(&mut epoch)?;
            if ending.is_some() {
                break 'epochs;
            }
        }
        // ---- The epoch's metrics
        let metrics = trainer.log_epoch(epoch)?;

        // ---- The epoch's checkpoint and image grid
        ending = trainer.ending()?;
        trainer.plan_length()?;
        let is_final = trainer.position.epoch >= trainer.last_epoch() || ending.is_some();
        trainer.save_epoch(&metrics, is_final)?;
    }
    let ending = ending.filter(|_| trainer.position.epoch < trainer.last_epoch());
    let ending = ending.or_else(|| trainer.ending_in_time());
    trainer.recorder.note_ending(ending)
}

/// A training under way.
struct Trainer<'a, 'r> {
    // ---- What stays the same for the whole run
    training: &'a TrainingContext<'a>,
    stopping: StoppingRules,
    /// When this process began with its first step.
    began: Instant,
    /// Epochs that were complete then.
    epochs_before: u64,

    // ---- What changes from period to period
    period: &'a Period,
    labels: LabelDropout,
    backward: Backward,
    loader: Loader,
    steps_per_epoch: u64,
    /// See [`TrainingContext::other_steps`].
    other_steps: i64,

    // ---- What steps change
    state: &'a mut TrainState,
    position: Position,
    recorder: &'a mut Recorder<'r>,
    /// How far it was at the end of the last epoch.
    trained_before: Trained,

    // ---- What time may change
    /// The last epoch as people are told of it: where time decides, as many as fit by now.
    target: u64,
    /// The number of epochs, where time has decided it.
    planned: Option<u64>,
}

/// An epoch under way.
struct Epoch {
    number: u64,
    loss_meter: LossMeter,
    batches: TimedBatches,
    started: Instant,
    /// Seconds that it was trained for before this process went on with it.
    seconds_before: f64,
    throttle: Throttle,
}

impl Epoch {
    /// Seconds that it was trained for so far.
    fn seconds(&self) -> f64 {
        self.seconds_before + self.started.elapsed().as_secs_f64()
    }
}

impl<'a, 'r> Trainer<'a, 'r> {
    fn new(
        training: &'a TrainingContext<'a>,
        state: &'a mut TrainState,
        position: Position,
        recorder: &'a mut Recorder<'r>,
    ) -> Result<Self, StageError> {
        let TrainingContext { settings, periods, dataset, context, planned, .. } = training;
        let period = periods.at(position.epoch);
        let InPeriod { labels, backward, loader, steps_per_epoch } =
            InPeriod::of(training, period)?;
        let images = dataset.indices(Split::Train).len();
        let epochs = planned.unwrap_or(training.epochs);
        let all = periods.steps(epochs, images);
        let all = settings.max_steps.map_or(all, |max| all.min(max));
        let limits = settings.limits();
        let length = match planned {
            None if limits.is_set() && epochs == UNLIMITED => limits.words(),
            _ => format!("{all} in all"),
        };
        let steps = if steps_per_epoch == 1 { "step" } else { "steps" };
        let text = format!("{images} images, {steps_per_epoch} {steps} an epoch, {length}\n");
        context.event(Event::Message { text });
        if position.step_in_epoch == 0 && position.epoch == period.after {
            period.begins().into_iter().for_each(|event| context.event(event));
        }
        state.enter(period);
        recorder.enter(position.epoch);
        Ok(Self {
            training,
            stopping: settings.stopping().begun(context.request.walltime),
            period,
            labels,
            backward,
            loader,
            steps_per_epoch,
            began: Instant::now(),
            epochs_before: position.epoch,
            other_steps: training.other_steps,
            state,
            position,
            recorder,
            trained_before: Trained::default(),
            target: if epochs == UNLIMITED { position.epoch + 1 } else { epochs },
            planned: *planned,
        })
    }

    fn start_workers(&self) -> Result<DataParallel, StageError> {
        let weights = self.state.weights_in(self.period.settings.precision);
        DataParallel::start(self.training.workers, &weights, self.backward)
    }

    fn begin_epoch(&self, number: u64) -> Epoch {
        let first_step = self.position.step_in_epoch as usize;
        let first_batch = first_step * self.period.settings.accumulate_grad_batches;
        Epoch {
            number,
            loss_meter: LossMeter::resume(self.position.loss_totals),
            batches: TimedBatches::new(self.loader.epoch(number, first_batch), number),
            started: Instant::now(),
            seconds_before: self.position.seconds_in_epoch,
            throttle: Throttle::default(),
        }
    }

    /// Gradients of the mean loss over the batches of one optimizer step, of which there may be
    /// fewer at an epoch's end. The losses go to the epoch's meter.
    fn gradients(
        &self,
        epoch: &mut Epoch,
        step: u64,
        data_parallel: &mut DataParallel,
    ) -> Result<GradientsParams, StageError> {
        let (settings, device) = (&self.period.settings, &self.training.device);
        let accumulate = settings.accumulate_grad_batches;
        let first_batch = step as usize * accumulate;
        let group = accumulate.min(self.loader.batches_per_epoch() - first_batch);
        let (mut gradients, mut losses) = (GradientsAccumulator::new(), Vec::with_capacity(group));
        let weights = self.state.weights_in(settings.precision);
        let objective = weights.objective();
        data_parallel.broadcast_weights(&weights)?;
        for number in 0..group {
            let batch = epoch.batches.next(first_batch + number)?;
            let key = BatchKey {
                seed: settings.seed,
                epoch: epoch.number,
                batch: (first_batch + number) as u64,
            };
            let indices = self.is_probed().then(|| batch.indices.clone());
            let noised = NoisedBatch::for_training(batch, key, &objective, self.labels);
            if let Some(indices) = indices {
                self.probe_images(&indices, &noised, &weights)?;
            }
            let shard = data_parallel.scatter(noised, number, group)?;
            losses.extend(self.backward.add(&mut gradients, &weights, shard, group, device)); // [1]
        }
        // With several devices: what the others found.
        let gradients = data_parallel.reduce_gradients(gradients.grads(), &mut losses, &weights)?;
        self.probe_step(epoch.number, &losses, &weights, &gradients)?;
        let step = self.position.global_step + 1;
        losses.into_iter().for_each(|loss| epoch.loss_meter.add(step, loss));
        Ok(gradients)
    }

    /// New weights, and their moving average. Gives the learning rate.
    fn optimizer_step(&mut self, gradients: GradientsParams) -> f64 {
        let (settings, done) = (&self.period.settings, self.position.global_step);
        let step = self.schedule_step(done);
        let rate = settings.schedule.rate(settings.learning_rate, step, self.horizon());
        let step = StepSettings {
            learning_rate: rate,
            clip: settings.gradient_clip_val,
            ema_decay: ema::decay_at(settings.ema.decay, done),
            done,
        };
        self.state.step(gradients, step);
        rate
    }

    /// The step of the schedule that an optimizer step is: counted as if all epochs had as many as
    /// today's.
    fn schedule_step(&self, global_step: u64) -> u64 {
        global_step.saturating_add_signed(-self.other_steps)
    }

    /// The metrics of a step, every `log_every_n_steps`.
    fn log_step(&mut self, epoch: &mut Epoch, rate: f64) -> Result<(), StageError> {
        let step = self.position.global_step;
        if step.is_multiple_of(self.training.settings.log_every_n_steps) {
            epoch.loss_meter.read()?;
            if let Some(loss) = epoch.loss_meter.last() {
                self.recorder.log_step(epoch.number, step, loss, rate)?;
            }
        }
        Ok(())
    }

    /// Tells whoever watches how far the epoch is.
    fn report_step(&self, epoch: &mut Epoch) {
        if !epoch.throttle.due() {
            return;
        }
        self.training.context.event(Event::Step {
            position: epoch.number,
            target: self.target.max(epoch.number),
            step: self.position.step_in_epoch,
            steps: self.steps_per_epoch,
            value: epoch.loss_meter.last(),
            rate: epoch.batches.images as f64 / epoch.started.elapsed().as_secs_f64(),
            memory: self.recorder.sees_memory(),
        });
    }

    /// Saves between two steps of an epoch, if it is time or a person asks. Saves too where a setting
    /// ends the training there, which is what it gives, and on a signal, which ends it.
    fn save_inside(&mut self, epoch: &mut Epoch) -> Result<Option<Ending>, StageError> {
        let step = self.position.step_in_epoch;
        if step == self.steps_per_epoch {
            return Ok(None);
        }
        let (ending, stop) = (self.ending_inside(epoch), self.interrupted());
        let is_last = ending.is_some() || stop.is_some();
        let is_asked = self.recorder.takes_request(LiveRequest::Checkpoint)?;
        if is_last || is_asked || self.recorder.is_save_step(self.position.global_step) {
            self.position.loss_totals = epoch.loss_meter.read()?;
            self.position.seconds_in_epoch = epoch.seconds();
            self.recorder.save_mid_epoch(&self.position, self.state)?;
        }
        let (None, Some((failure, signal))) = (&ending, stop) else { return Ok(ending) };
        self.recorder.flush()?;
        let text = format!(
            "stopped by {signal} in epoch {}, step {step} of {}",
            epoch.number, self.steps_per_epoch
        );
        Err(StageError::new(failure, text))
    }

    /// Ends an epoch: its metrics, validated and written down.
    fn log_epoch(&mut self, epoch: Epoch) -> Result<BTreeMap<String, f64>, StageError> {
        let Epoch { number, mut loss_meter, batches, started, seconds_before, .. } = epoch;
        let (waited, images) = batches.end();
        let settings = &self.period.settings;
        let totals = loss_meter.read()?;
        let mut metrics = BTreeMap::from([("train_loss".to_owned(), totals.mean())]);
        let validates = !self.training.dataset.indices(Split::Validation).is_empty();
        if validates && self.training.probe.is_none() {
            let loss = validation_loss(self.training, self.state)?;
            metrics.insert("val_loss".to_owned(), loss);
        }
        let own = started.elapsed().as_secs_f64();
        let (seconds, speed) = (seconds_before + own, images as f64 / own);
        self.position = Position {
            epoch: number,
            step_in_epoch: 0,
            loss_totals: LossTotals::default(),
            seconds_in_epoch: 0.0,
            ..self.position
        };
        let step = self.schedule_step(self.position.global_step - 1);
        let rate = settings.schedule.rate(settings.learning_rate, step, self.horizon());
        self.training.context.event(Event::Round {
            position: number,
            target: self.target.max(number),
            metrics: metrics.clone(),
            seconds,
            rate: speed,
        });
        let wait_share = waited.as_secs_f64() / own;
        let timing = EpochTiming { seconds, speed, wait_share, rate };
        self.recorder.log_epoch(&self.position, &metrics, timing)?;
        Ok(metrics)
    }

    /// What an ended epoch leaves: a checkpoint, if the policy wants one, and an image grid, if it
    /// is time. On a signal ends the training behind a checkpoint.
    fn save_epoch(
        &mut self,
        metrics: &BTreeMap<String, f64>,
        is_final: bool,
    ) -> Result<(), StageError> {
        let epoch = self.position.epoch;
        self.recorder.save_epoch(&self.position, metrics, self.state, is_final)?;
        let sampled = self.sample()?;
        // After the last epoch only the image grid can still be missing.
        if (!is_final || !sampled)
            && let Some((failure, signal)) = self.interrupted()
        {
            self.recorder.ensure_saved(&self.position, self.state)?;
            self.recorder.flush()?;
            let text = format!("stopped by {signal} after epoch {epoch}");
            return Err(StageError::new(failure, text));
        }
        Ok(())
    }

    /// The signal that asked the training to stop, if one did.
    fn interrupted(&self) -> Option<(Failure, &'static str)> {
        let signal = self.training.context.stop.requested()?;
        Some((Failure::Interrupted(signal), signal.name()))
    }
}

//! The training loop, one function from top to bottom.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::optim::GradientsAccumulator;
use burn::tensor::Device;
use pipe_core::progress::Event;
use pipe_engine::kind::{Failure, RunContext, StageError};
use pipe_runs::Header;

use super::backward::Backward;
use super::data_parallel::{DataParallel, Worker};
use super::ema;
use super::loss_meter::{LossMeter, LossTotals};
use super::noised_batch::{BatchKey, LabelDropout, NoisedBatch};
use super::optimizer::clip_by_norm;
use super::recorder::Recorder;
use super::settings::TrainingSettings;
use super::train_state::TrainState;
use crate::architecture::ModelConfig;
use crate::data::{DataError, Dataset, Loader, LoaderOptions, Split};
use crate::device;
use crate::diffit::Pass;
use crate::diffusion::Edm;

/// All that the loop needs.
pub struct TrainingContext<'a> {
    pub settings: &'a TrainingSettings,
    pub config: &'a ModelConfig,
    /// Share of images that are trained without their label.
    pub label_dropout: f64,
    /// Share of the inputs of LoRA's factors that are dropped.
    pub lora_dropout: f64,
    /// Micro-batches that each device's shard of a batch is cut into, to save memory.
    pub micro_batches: usize,
    pub dataset: Arc<Dataset>,
    /// The main device, with autodiff.
    pub device: Device,
    /// Further devices, which take their shard of each batch.
    pub workers: &'a [Worker],
    pub context: &'a RunContext<'a>,
}

/// How far training is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Position {
    /// Completed epochs.
    pub epoch: u64,
    /// Optimizer steps since the start.
    pub global_step: u64,
    /// Optimizer steps into the epoch after the completed ones; 0 between epochs.
    pub step_in_epoch: u64,
    /// Losses of the epoch that is under way.
    pub loss_totals: LossTotals,
}

impl Position {
    /// Where the training was that wrote a checkpoint.
    pub fn of(header: &Header) -> Self {
        Self {
            epoch: header.epoch,
            global_step: header.global_step,
            step_in_epoch: header.step_in_epoch,
            loss_totals: serde_json::from_value(header.loop_state["sums"].clone())
                .unwrap_or_default(),
        }
    }
}

/// Trains from `position` to the last epoch. On a signal, saves and fails with
/// [`Failure::Interrupted`].
pub fn fit(
    training: &TrainingContext,
    state: &mut TrainState,
    mut position: Position,
    recorder: &mut Recorder,
) -> Result<(), StageError> {
    // ---- What stays the same for the whole run
    let TrainingContext { settings, config, dataset, device, context, .. } = training;
    let edm = Edm::default();
    let labels = LabelDropout { classes: config.num_classes(), dropout: training.label_dropout };
    let backward =
        Backward::new(config, settings.precision, training.lora_dropout, training.micro_batches);
    let options = LoaderOptions {
        batch_size: settings.batch_size,
        num_workers: settings.num_workers,
        seed: settings.seed,
    };
    let loader = Loader::new(dataset.clone(), Split::Train, options).map_err(data_error)?;
    let batches_per_epoch = loader.batches_per_epoch();
    if batches_per_epoch == 0 {
        return Err(StageError::new(Failure::Input, "the data set has no training images"));
    }
    let (accumulate, precision) = (settings.accumulate_grad_batches, settings.precision);
    let steps_per_epoch = batches_per_epoch.div_ceil(accumulate) as u64;
    let total_steps = steps_per_epoch * settings.horizon();
    let (images, all) = (dataset.indices(Split::Train).len(), steps_per_epoch * settings.epochs);
    let text = format!("{images} images, {steps_per_epoch} steps an epoch, {all} in all\n");
    context.event(Event::Message { text });
    let interrupted =
        || context.stop.requested().map(|signal| (Failure::Interrupted(signal), signal.name()));

    let due = |epoch: u64| settings.sample_every_n_epochs.is_some_and(|n| epoch.is_multiple_of(n));
    if position.epoch > 0 && position.step_in_epoch == 0 && due(position.epoch) {
        // Unless the process ended before it was sampled.
        let sampled = recorder.sample_if_missing(&position, state, training)?;
        if !sampled && let Some((failure, signal)) = interrupted() {
            let text = format!("stopped by {signal} after epoch {}", position.epoch);
            return Err(StageError::new(failure, text));
        }
    }

    let mut data_parallel =
        DataParallel::start(training.workers, &precision.weights(&state.model), backward)?;
    for epoch in position.epoch + 1..=settings.epochs {
        let first_step = position.step_in_epoch;
        let mut loss_meter = LossMeter::resume(position.loss_totals);
        let mut batches = loader.epoch(epoch, first_step as usize * accumulate);
        let (started, mut waited, mut images) = (Instant::now(), Duration::ZERO, 0usize);
        let mut throttle = Throttle::default();

        for step in first_step..steps_per_epoch {
            // ---- Gradients of one or more batches
            let first_batch = step as usize * accumulate;
            let group = accumulate.min(batches_per_epoch - first_batch);
            let (mut gradients, mut losses) =
                (GradientsAccumulator::new(), Vec::with_capacity(group));
            let weights = precision.weights(&state.model);
            data_parallel.broadcast_weights(&weights)?;
            for number in 0..group {
                let asked = Instant::now();
                let Some(batch) = batches.next() else {
                    let missing = format!("no batch {} in epoch {epoch}", first_batch + number);
                    return Err(StageError::new(Failure::Bug, missing));
                };
                let batch = batch.map_err(data_error)?;
                waited += asked.elapsed();
                images += batch.labels.len();
                let key =
                    BatchKey { seed: settings.seed, epoch, batch: (first_batch + number) as u64 };
                let shard = data_parallel.scatter(
                    NoisedBatch::for_training(batch, key, &edm, labels),
                    number,
                    group,
                )?;
                losses.extend(backward.add(&mut gradients, &weights, shard, group, device)); // [1]
            }

            // ---- With several devices: what the others found
            let mut gradients =
                data_parallel.reduce_gradients(gradients.grads(), &mut losses, &weights)?;
            losses.into_iter().for_each(|loss| loss_meter.add(position.global_step + 1, loss));

            // ---- One optimizer step
            if let Some(max) = settings.gradient_clip_val {
                gradients = clip_by_norm(&state.model, gradients, max);
            }
            let rate =
                settings.schedule.rate(settings.learning_rate, position.global_step, total_steps);
            state.model = state.optimizer.step(rate, state.model.clone(), gradients);
            if let Some(mean) = state.ema.take() {
                let decay = ema::decay_at(settings.ema.decay, position.global_step);
                state.ema = Some(ema::update(mean, &state.model, decay));
            }
            position.global_step += 1;
            position.step_in_epoch = step + 1;

            // ---- Logs: the only place inside an epoch that waits for the device
            if position.global_step.is_multiple_of(settings.log_every_n_steps) {
                loss_meter.read()?;
                if let Some(loss) = loss_meter.last() {
                    recorder.log_step(epoch, position.global_step, loss, rate)?;
                }
            }
            let speed = images as f64 / started.elapsed().as_secs_f64();
            if throttle.due() {
                context.event(Event::Step {
                    position: epoch,
                    target: settings.epochs,
                    step: step + 1,
                    steps: steps_per_epoch,
                    value: loss_meter.last(),
                    rate: speed,
                    memory: memory_stats::memory_stats().map(|m| m.physical_mem as u64),
                });
            }

            // ---- The checkpoint that is being written beside this: whether it stands, and what
            // went wrong
            recorder.poll()?;

            // ---- A checkpoint inside the epoch: because it is time, or because of a signal
            let inside = step + 1 < steps_per_epoch;
            let stop = interrupted();
            if inside && (stop.is_some() || recorder.is_save_step(position.global_step)) {
                position.loss_totals = loss_meter.read()?;
                recorder.save_mid_epoch(&position, state)?;
            }
            if inside && let Some((failure, signal)) = stop {
                recorder.flush()?;
                let text = format!(
                    "stopped by {signal} in epoch {epoch}, step {} of {steps_per_epoch}",
                    step + 1
                );
                return Err(StageError::new(failure, text));
            }
        }
        drop(batches);

        // ---- The epoch's metrics
        let totals = loss_meter.read()?;
        let mut metrics = BTreeMap::from([("train_loss".to_owned(), totals.mean())]);
        if !dataset.indices(Split::Validation).is_empty() {
            metrics.insert("val_loss".to_owned(), validation_loss(training, state, &edm)?);
        }
        let seconds = started.elapsed().as_secs_f64();
        let speed = images as f64 / seconds;
        position =
            Position { epoch, step_in_epoch: 0, loss_totals: LossTotals::default(), ..position };
        let rate =
            settings.schedule.rate(settings.learning_rate, position.global_step - 1, total_steps);
        let (epochs, logged) = (settings.epochs, metrics.clone());
        context.event(Event::Round {
            position: epoch,
            target: epochs,
            metrics: logged,
            seconds,
            rate: speed,
        });
        let wait_share = waited.as_secs_f64() / seconds;
        recorder.log_epoch(
            &position,
            &metrics,
            super::recorder::EpochTiming { seconds, speed, wait_share, rate },
        )?;

        // ---- The epoch's checkpoint and image grid
        recorder.save_epoch(&position, &metrics, state, epoch == settings.epochs)?;
        let sampled = !due(epoch) || recorder.sample_epoch(&position, state, training)?;
        // After the last epoch only the image grid can still be missing.
        if (epoch < settings.epochs || !sampled)
            && let Some((failure, signal)) = interrupted()
        {
            recorder.ensure_saved(&position, state)?;
            recorder.flush()?;
            return Err(StageError::new(
                failure,
                format!("stopped by {signal} after epoch {epoch}"),
            ));
        }
    }
    recorder.flush()
}

/// Mean loss over the validation images, with the weights that would be sampled from.
fn validation_loss(
    training: &TrainingContext,
    state: &TrainState,
    edm: &Edm,
) -> Result<f64, StageError> {
    let TrainingContext { settings, config, dataset, device, .. } = training;
    let options = LoaderOptions {
        batch_size: settings.batch_size,
        num_workers: settings.num_workers,
        seed: settings.seed,
    };
    let loader = Loader::new(dataset.clone(), Split::Validation, options).map_err(data_error)?;
    let (weights, device) = (state.weights(), device.clone().inner());
    let (mut sum, mut count) = (0.0, 0);
    for (number, batch) in loader.epoch(0, 0).enumerate() {
        let batch = batch.map_err(data_error)?;
        let images = batch.labels.len();
        let key = BatchKey { seed: settings.seed, epoch: 0, batch: number as u64 };
        let noised = NoisedBatch::for_validation(batch, key, edm);
        let inputs = noised.on_device(config.num_classes(), config.image_size(), &device);
        let pass = Pass::inference();
        let loss =
            edm.loss(&weights, inputs.image, inputs.sigma, inputs.noise, inputs.label, &pass);
        let loss = device::read(loss)?.iter::<f64>().sum::<f64>();
        sum += loss * images as f64;
        count += images;
    }
    Ok(sum / f64::from(count.max(1) as u32))
}

fn data_error(error: DataError) -> StageError {
    let failure = match error {
        DataError::Setting { .. } => Failure::Setting,
        _ => Failure::Input,
    };
    StageError::new(failure, error.to_string())
}

/// Renews the progress line often enough to look alive, too seldom to cost
/// anything.
#[derive(Default)]
struct Throttle(Option<Instant>);

impl Throttle {
    fn due(&mut self) -> bool {
        let due = self.0.is_none_or(|at| at.elapsed() > Duration::from_millis(100));
        if due {
            self.0 = Some(Instant::now());
        }
        due
    }
}

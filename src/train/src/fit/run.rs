//! The training loop, one function from top to bottom.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::optim::GradientsAccumulator;
use burn::tensor::Device;
use pipe_engine::kind::{Failure, RunContext, StageError};
use pipe_engine::progress::Event;
use pipe_engine::store::Header;

use super::backward::Backward;
use super::draw::{Drawn, Key, Labels};
use super::ema;
use super::optimizer::clip_by_norm;
use super::record::Recorder;
use super::replicas::{Other, Replicas};
use super::settings::FitSettings;
use super::state::TrainState;
use super::tally::{Sums, Tally};
use crate::architecture::ModelConfig;
use crate::data::{DataError, Dataset, Loader, LoaderOptions, Split};
use crate::device;
use crate::diffit::Pass;
use crate::noise::Edm;

/// All that a training needs.
pub struct Job<'a> {
    pub settings: &'a FitSettings,
    pub config: &'a ModelConfig,
    /// Share of images that are trained without their label.
    pub label_dropout: f64,
    /// Share of the inputs of LoRA's factors that are dropped.
    pub lora_dropout: f64,
    /// Pieces in which each device's share of a batch goes through the network, to save memory.
    pub pieces: usize,
    pub dataset: Arc<Dataset>,
    /// The main device, with autodiff.
    pub device: Device,
    /// Further devices, which take their share of each batch.
    pub others: &'a [Other],
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
    pub sums: Sums,
}

impl Position {
    /// Where the training was that wrote a checkpoint.
    pub fn of(header: &Header) -> Self {
        Self {
            epoch: header.epoch,
            global_step: header.global_step,
            step_in_epoch: header.step_in_epoch,
            sums: serde_json::from_value(header.loop_state["sums"].clone()).unwrap_or_default(),
        }
    }
}

/// Trains from `position` to the last epoch. On a signal, saves and fails with
/// [`Failure::Interrupted`].
pub fn fit(
    job: &Job,
    state: &mut TrainState,
    mut position: Position,
    recorder: &mut Recorder,
) -> Result<(), StageError> {
    // ---- What stays the same for the whole run
    let Job { settings, config, dataset, device, context, .. } = job;
    let edm = Edm::default();
    let labels = Labels { classes: config.num_classes(), dropout: job.label_dropout };
    let backward = Backward::new(config, settings.precision, job.lora_dropout, job.pieces);
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
        // Unless the process ended before it was drawn.
        let drawn = recorder.draw_missing_samples(&position, state, job)?;
        if !drawn && let Some((failure, signal)) = interrupted() {
            let text = format!("stopped by {signal} after epoch {}", position.epoch);
            return Err(StageError::new(failure, text));
        }
    }

    let mut replicas = Replicas::start(job.others, &precision.weights(&state.model), backward)?;
    for epoch in position.epoch + 1..=settings.epochs {
        let first_step = position.step_in_epoch;
        let mut tally = Tally::from(position.sums);
        let mut batches = loader.epoch(epoch, first_step as usize * accumulate);
        let (started, mut waited, mut images) = (Instant::now(), Duration::ZERO, 0usize);
        let mut shown = Shown::default();

        for step in first_step..steps_per_epoch {
            // ---- Gradients of one or more batches
            let first_batch = step as usize * accumulate;
            let group = accumulate.min(batches_per_epoch - first_batch);
            let (mut gradients, mut losses) =
                (GradientsAccumulator::new(), Vec::with_capacity(group));
            let weights = precision.weights(&state.model);
            replicas.renew(&weights)?;
            for number in 0..group {
                let asked = Instant::now();
                let Some(batch) = batches.next() else {
                    let missing = format!("no batch {} in epoch {epoch}", first_batch + number);
                    return Err(StageError::new(Failure::Bug, missing));
                };
                let batch = batch.map_err(data_error)?;
                waited += asked.elapsed();
                images += batch.labels.len();
                let key = Key { seed: settings.seed, epoch, batch: (first_batch + number) as u64 };
                let share =
                    replicas.begin(Drawn::train(batch, key, &edm, labels), number, group)?;
                losses.extend(backward.add(&mut gradients, &weights, share, group, device)); // [1]
            }

            // ---- With several devices: what the others found
            let mut gradients = replicas.collect(gradients.grads(), &mut losses, &weights)?;
            losses.into_iter().for_each(|loss| tally.add(position.global_step + 1, loss));

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
                tally.read()?;
                if let Some(loss) = tally.last() {
                    recorder.step(epoch, position.global_step, loss, rate)?;
                }
            }
            let speed = images as f64 / started.elapsed().as_secs_f64();
            if shown.due() {
                context.event(Event::Step {
                    epoch,
                    epochs: settings.epochs,
                    step: step + 1,
                    steps: steps_per_epoch,
                    loss: tally.last(),
                    images_per_second: speed,
                    memory: memory_stats::memory_stats().map(|m| m.physical_mem as u64),
                });
            }

            // ---- The checkpoint that is being written beside this: whether it stands, and what
            // went wrong
            recorder.look()?;

            // ---- A checkpoint inside the epoch: because it is time, or because of a signal
            let inside = step + 1 < steps_per_epoch;
            let stop = interrupted();
            if inside && (stop.is_some() || recorder.wants_step(position.global_step)) {
                position.sums = tally.read()?;
                recorder.save_inside_epoch(&position, state)?;
            }
            if inside && let Some((failure, signal)) = stop {
                recorder.settle()?;
                let text = format!(
                    "stopped by {signal} in epoch {epoch}, step {} of {steps_per_epoch}",
                    step + 1
                );
                return Err(StageError::new(failure, text));
            }
        }
        drop(batches);

        // ---- The epoch's figures
        let sums = tally.read()?;
        let mut metrics = BTreeMap::from([("train_loss".to_owned(), sums.mean())]);
        if !dataset.indices(Split::Validation).is_empty() {
            metrics.insert("val_loss".to_owned(), validation_loss(job, state, &edm)?);
        }
        let seconds = started.elapsed().as_secs_f64();
        let speed = images as f64 / seconds;
        position = Position { epoch, step_in_epoch: 0, sums: Sums::default(), ..position };
        let rate =
            settings.schedule.rate(settings.learning_rate, position.global_step - 1, total_steps);
        let (epochs, shown) = (settings.epochs, metrics.clone());
        context.event(Event::Epoch {
            epoch,
            epochs,
            metrics: shown,
            seconds,
            images_per_second: speed,
        });
        let wait_share = waited.as_secs_f64() / seconds;
        recorder.epoch(
            &position,
            &metrics,
            super::record::EpochTimes { seconds, speed, wait_share, rate },
        )?;

        // ---- The epoch's checkpoint and picture
        recorder.save_epoch(&position, &metrics, state, epoch == settings.epochs)?;
        let drawn = !due(epoch) || recorder.draw_samples(&position, state, job)?;
        // After the last epoch only the picture can still be missing.
        if (epoch < settings.epochs || !drawn)
            && let Some((failure, signal)) = interrupted()
        {
            recorder.make_sure_of(&position, state)?;
            recorder.settle()?;
            return Err(StageError::new(
                failure,
                format!("stopped by {signal} after epoch {epoch}"),
            ));
        }
    }
    recorder.settle()
}

/// Mean loss over the validation images, with the weights that would be sampled from.
fn validation_loss(job: &Job, state: &TrainState, edm: &Edm) -> Result<f64, StageError> {
    let Job { settings, config, dataset, device, .. } = job;
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
        let key = Key { seed: settings.seed, epoch: 0, batch: number as u64 };
        let drawn = Drawn::validate(batch, key, edm);
        let inputs = drawn.on_device(config.num_classes(), config.image_size(), &device);
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

/// When the progress line was last renewed: often enough to look alive, too seldom to cost
/// anything.
#[derive(Default)]
struct Shown(Option<Instant>);

impl Shown {
    fn due(&mut self) -> bool {
        let due = self.0.is_none_or(|at| at.elapsed() > Duration::from_millis(100));
        if due {
            self.0 = Some(Instant::now());
        }
        due
    }
}

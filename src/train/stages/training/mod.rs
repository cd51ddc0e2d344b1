//! What all stages that train have in common: which numbered run a training belongs to, and the way
//! into the loop and out of it.

mod definition;
mod device_group;
mod opening;
mod selection;

use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
pub(super) use definition::Training;
use pipe_core::progress::Event;
use pipe_core::shell::CommandLine;
use pipe_engine::kind::{
    Failure, InspectContext, Inspection, NextCommand, Outcome, RunContext, StageError, StageState,
};
use pipe_runs::{CheckpointManager, Run, Status};
use serde_json::json;

use self::device_group::{DeviceGroup, refused_precision};
use self::opening::{copy_base_model, write_config};
use self::selection::RunSelection;
use crate::architecture::Network;
use crate::data::{Dataset, DatasetSummary, Split, batches_per_epoch};
use crate::device::{self, GpuAssignment};
use crate::diffit::{Scope, param_paths};
use crate::kernels;
use crate::stages::artifacts::{ModelFile, TrainedRun, dataset_summary};
use crate::stages::resume_checkpoint::{self, REACHED_WITH};
use crate::stages::resume_compatibility;
use crate::stages::run_catalog::{completed_epochs, unfinished_reason};
use crate::stages::run_match::{DATA, RunCriteria};
use crate::trainer::{
    ModelInfo, OnNewBest, Position, Recorder, TrainState, TrainingContext, TrainingSettings, fit,
    self_test,
};

/// What is trained, before the first step.
pub(super) struct TrainingSetup {
    /// On an autodiff device; frozen outside `scope`.
    pub model: Network,
    pub scope: Scope,
    pub model_info: ModelInfo,
    pub label_dropout: f64,
    pub lora_dropout: f64,
    /// The file that the frozen weights come from; the run keeps it.
    pub base: Option<ModelFile>,
    pub on_new_best: Option<OnNewBest>,
}

impl Training<'_> {
    pub fn observe(&self, o: &InspectContext) -> Result<Inspection, StageError> {
        let data = o.inputs.get(DATA).and_then(dataset_summary);
        let criteria = RunCriteria {
            root: o.root,
            manifest: o.manifest,
            unknown: o.unknown,
            data: data.as_ref(),
        };
        let selection = self.select_run(o.request, o.pipeline, o.stage, &criteria)?;
        if !o.pending && self.begins_from_file(&selection) {
            resume_checkpoint::open(self.settings, o.root)?;
        }
        let (run, metadata) = match selection {
            RunSelection::New { reason, changes, .. } => {
                return Ok(StageState::Absent { reason, changes }.into());
            }
            RunSelection::Empty(run) => {
                return Ok(
                    StageState::absent(format!("run {} has no checkpoint yet", run.number)).into()
                );
            }
            RunSelection::Existing(existing) => *existing,
        };
        let total = self.settings.epochs;
        let done = completed_epochs(&run, &metadata);
        if done >= total && metadata.status != Status::Completed {
            // Its process ended between the last checkpoint and the end: what is left is to put
            // things in order.
            let reason =
                format!("run {}: trained, {}", run.number, unfinished_reason(&run, &metadata));
            return Ok(StageState::Partial { done: total, total, reason }.into());
        }
        if done >= total {
            if metadata.best_checkpoint.is_some() && !run.best().is_file() {
                let reason = format!("run {}: best.ckpt is gone", run.number);
                return Ok(StageState::Partial { done: total, total, reason }.into());
            }
            let whose = if metadata.pipeline == o.pipeline {
                String::new()
            } else {
                format!(" of pipeline {}", metadata.pipeline)
            };
            let place = self.place(o.root, &run);
            let reason = if done > total {
                format!(
                    "run {}{whose}{place} was trained for {done} epochs, more than the {total} asked for: it is handed \
                     on as it is; `--force` trains a new run",
                    run.number
                )
            } else {
                format!("up to date, run {}{whose}{place}", run.number)
            };
            let artifact = Some(TrainedRun { run, metadata }.artifact());
            return Ok(Inspection { state: StageState::Done { reason }, artifact });
        }
        if done >= metadata.epochs {
            return Ok(StageState::Extendable { from: done, to: total }.into());
        }
        let reason = format!("run {}: {}", run.number, unfinished_reason(&run, &metadata));
        Ok(StageState::Partial { done, total, reason }.into())
    }

    /// Trains. `start` makes what is trained from the data set and the device (with autodiff).
    pub fn run(
        &self,
        context: &RunContext,
        start: impl FnOnce(&Dataset, &Device) -> Result<TrainingSetup, StageError>,
    ) -> Result<Outcome, StageError> {
        let mut opened = None;
        let ended = self.run_in(context, start, &mut opened);
        if let (Err(error), Some(run)) = (&ended, opened) {
            // The first error is the one to report.
            let _ = CheckpointManager::record_failed_start(&run, &error.message);
        }
        ended
    }

    /// The same; `opened` is the run as soon as it is one.
    fn run_in(
        &self,
        context: &RunContext,
        start: impl FnOnce(&Dataset, &Device) -> Result<TrainingSetup, StageError>,
        opened: &mut Option<Run>,
    ) -> Result<Outcome, StageError> {
        let settings = self.settings;
        let Some(dataset) = context.inputs.get("dataset").and_then(|a| a.get::<Arc<Dataset>>())
        else {
            return Err(StageError::new(Failure::Bug, "the data set did not reach the training"));
        };
        let dataset: Arc<Dataset> = (*dataset).clone();
        if settings.checkpoint.monitor == "val_loss"
            && dataset.indices(Split::Validation).is_empty()
        {
            return Err(StageError::setting(
                "checkpoint.monitor is val_loss, and the data set has no validation images; set its val_split to a \
                 share such as 0.1, or monitor train_loss",
            ));
        }
        let devices = device::resolve_all(&settings.devices(), GpuAssignment::of(context))
            .map_err(|e| StageError::setting(e.to_string()))?;
        let micro_batches =
            1usize.checked_shl(context.adjustment.micro_batch_splits).unwrap_or(usize::MAX);
        if micro_batches > settings.batch_size.div_ceil(devices.len()) {
            return Err(StageError::setting(
                "the device's memory does not suffice even for one image at a time",
            ));
        }
        if let Some(device) = devices.iter().find(|d| !settings.precision.runs_on(&d.device)) {
            return Err(StageError::setting(refused_precision(settings.precision.name(), device)));
        }
        for device in &devices {
            self_test::require(&context.root, device, settings.precision, |text| {
                context.event(Event::Message { text });
            })?;
        }
        let DeviceGroup { main: autodiff, workers, threads, name: device } =
            DeviceGroup::of(devices)?;
        let start = start(&dataset, &autodiff)?;

        // The run: an old one to go on with, or a new one.
        let data = DatasetSummary::of(&dataset);
        let criteria = RunCriteria {
            root: &context.root,
            manifest: &context.manifest,
            unknown: &[],
            data: Some(&data),
        };
        let selection =
            self.select_run(&context.request, &context.pipeline, &context.stage, &criteria)?;
        if self.begins_from_file(&selection)
            && let Some(file) = resume_checkpoint::open(settings, &context.root)?
        {
            let name = settings.checkpoint.resume_checkpoint.as_deref().unwrap_or_default();
            let doubt = resume_compatibility::check(file.header(), name, &start.model_info)?;
            doubt.into_iter().for_each(|text| context.event(Event::Warning { text }));
        }
        let mut keeper = self.open_run(context, selection, &dataset, &device)?;
        *opened = Some(keeper.run().clone());
        let shown =
            |path: &Path| path.strip_prefix(&context.root).unwrap_or(path).display().to_string();
        let directory = shown(&keeper.run().folder);
        write_config(&keeper, context)?;
        if let Some(base) = &start.base {
            copy_base_model(keeper.run(), base)?;
        }

        // Where to begin: the run's newest good checkpoint, a file that was named, or the start.
        let mut from = self.newest(context, &keeper)?;
        let TrainingSetup {
            model,
            scope,
            mut model_info,
            label_dropout,
            lora_dropout,
            on_new_best,
            ..
        } = start;
        let reached_with = resume_checkpoint::of_position(&context.manifest, dataset.digest());
        model_info.extra.insert(REACHED_WITH.to_owned(), json!(reached_with).to_string());
        let parameters = parameters(&model, &Scope::All);
        let trainable = self::parameters(&model, &scope);
        let mut state = TrainState::new(model, scope, settings);
        let mut position = Position::default();
        if let Some(checkpoint) = &mut from {
            position = Position::of(checkpoint.header());
            if !checkpoint.path().starts_with(&keeper.run().folder) {
                let then = resume_checkpoint::reached_with(checkpoint.path(), checkpoint.header());
                let steps = steps_per_epoch(settings, &dataset);
                let (begin, said) = resume_checkpoint::begin(
                    checkpoint.header(),
                    then.as_ref(),
                    &reached_with,
                    steps,
                );
                position = begin;
                said.into_iter().for_each(|text| context.event(Event::Warning { text }));
            }
            state = state.restore(checkpoint, &autodiff)?;
        }
        self.check_disk_space(context, &keeper, state.checkpoint_bytes(trainable))?;
        context.event(Event::WorkOpened {
            number: keeper.run().number.0,
            title: keeper.metadata().experiment_name.clone(),
            directory: directory.clone(),
            device: device.clone(),
            size: parameters,
            changing: trainable,
        });
        if let Some(checkpoint) = &from {
            let history = &keeper.metadata().history;
            let previous =
                history.iter().rfind(|e| e.epoch == position.epoch).map(|e| e.metrics.clone());
            context.event(Event::Resumed {
                file: shown(checkpoint.path()),
                position: position.epoch,
                step: position.step_in_epoch,
                metrics: previous.unwrap_or_else(|| checkpoint.header().metrics.clone()),
            });
        }

        let experiment = settings.experiment_name.clone();
        keeper.update(|m| {
            m.status = Status::Running;
            m.message = None;
            m.epochs = settings.epochs.max(position.epoch);
            if self.number(&context.request).is_some() {
                // A run that was named belongs to those who named it from now on.
                (m.pipeline, m.stage) = (context.pipeline.clone(), context.stage.to_string());
            }
            m.device = device.clone();
            if micro_batches > 1 {
                // Sums in another order: the bits differ from those of whole batches.
                m.other.insert("pieces_per_batch".into(), micro_batches.into());
            }
            if let Some(name) = experiment {
                m.experiment_name = name;
            }
        })?;
        let config = model_info.config.clone();
        let mut recorder =
            Recorder::open(context, settings, keeper, &position, model_info, on_new_best)?;
        let training = TrainingContext {
            settings,
            config: &config,
            label_dropout,
            lora_dropout,
            micro_batches,
            dataset,
            device: autodiff,
            workers: &workers,
            context,
        };
        let fitted = kernels::in_own_pool_of(threads, || {
            fit(&training, &mut state, position, &mut recorder)
        });
        let keeper = match fitted {
            Ok(()) => recorder.finish(Status::Completed, None)?,
            Err(error) => {
                let status = match error.failure {
                    Failure::Interrupted(_) => Status::Interrupted,
                    _ => Status::Failed,
                };
                // The first error is the one to report.
                let _ = recorder.finish(status, Some(error.message.clone()));
                return Err(error);
            }
        };
        self.finish(context, &keeper, &directory)
    }

    fn finish(
        &self,
        context: &RunContext,
        keeper: &CheckpointManager,
        directory: &str,
    ) -> Result<Outcome, StageError> {
        let best = keeper.metadata().best_checkpoint.clone();
        let monitor = self.settings.checkpoint.monitor.clone();
        let value = best.as_ref().and_then(|b| b.metrics.get(&monitor).copied());
        context.event(Event::Completed {
            best: best.as_ref().map(|b| b.epoch),
            monitor: monitor.clone(),
            value,
        });
        let score = value.map(|value| self.settings.checkpoint.mode.score(value));
        let next = best.as_ref().map(|best| NextCommand {
            score,
            ..sample_command(&format!("{directory}/{}", best.path))
        });
        let best = match (&best, value) {
            (Some(best), Some(value)) => {
                format!(
                    ", best {monitor} {value:.4} at epoch {}: {directory}/{}",
                    best.epoch, best.path
                )
            }
            _ => String::new(),
        };
        let run = keeper.run().clone();
        let plural = if self.settings.epochs == 1 { "" } else { "s" };
        let summary = format!("run {}, {} epoch{plural}{best}", run.number, self.settings.epochs);
        let artifact = TrainedRun { run, metadata: keeper.metadata().clone() }.artifact();
        Ok(Outcome { artifact: Some(artifact), summary, next })
    }
}

/// Optimizer steps in an epoch.
fn steps_per_epoch(settings: &TrainingSettings, dataset: &Dataset) -> u64 {
    let images = dataset.indices(Split::Train).len();
    batches_per_epoch(Split::Train, images, settings.batch_size)
        .div_ceil(settings.accumulate_grad_batches) as u64
}

fn parameters(model: &Network, scope: &Scope) -> u64 {
    let trained = param_paths(model).into_iter().filter(|(_, name, _)| scope.holds(name));
    trained.map(|(.., shape)| shape.iter().product::<usize>() as u64).sum()
}

/// The command that samples from a checkpoint.
pub(super) fn sample_command(checkpoint: &str) -> NextCommand {
    let line = CommandLine::new(["pipe", "sample"]).path(Path::new(checkpoint));
    line.options(["--n=16"]).word("-o").word("samples.png").into()
}

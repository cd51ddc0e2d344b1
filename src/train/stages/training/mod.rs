//! What all stages that train have in common: which numbered run a training belongs to, and the way
//! into the loop and out of it.

mod definition;
mod device_group;
mod opening;
mod selection;
mod starting;

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

use self::device_group::DeviceGroup;
use self::opening::{copy_base_model, write_config};
use self::selection::RunSelection;
use self::starting::{StartingPoint, shown};
use crate::architecture::Network;
use crate::data::{Dataset, DatasetSummary, Split};
use crate::kernels;
use crate::nn::Scope;
use crate::stages::artifacts::{CheckpointFile, Checkpoints, dataset_summary};
use crate::stages::resume_checkpoint::{self, REACHED_WITH};
use crate::stages::resume_compatibility;
use crate::stages::run_catalog::{completed_epochs, unfinished_reason};
use crate::stages::run_match::{DATA, RunCriteria};
use crate::trainer::{ModelInfo, OnNewBest, Recorder, TrainState, TrainingContext, fit};

/// What is trained, before the first step.
pub(super) struct TrainingSetup {
    /// On an autodiff device; frozen outside `scope`.
    pub model: Network,
    pub scope: Scope,
    pub model_info: ModelInfo,
    pub label_dropout: f64,
    pub lora_dropout: f64,
    /// The file that the frozen weights come from; the run keeps it.
    pub base: Option<CheckpointFile>,
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
            let artifact = Some(Checkpoints::of_run(run, metadata).artifact());
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

    /// Trains; `opened` is the run as soon as there is one, whatever happens behind it.
    fn run_in(
        &self,
        context: &RunContext,
        start: impl FnOnce(&Dataset, &Device) -> Result<TrainingSetup, StageError>,
        opened: &mut Option<Run>,
    ) -> Result<Outcome, StageError> {
        let dataset = self.dataset(context)?;
        let devices = DeviceGroup::resolve(self.settings, context)?;
        let setup = start(&dataset, &devices.main)?;

        // ---- The run: an old one to go on with, or a new one
        let selection = self.select_for(context, &dataset, &setup.model_info)?;
        let mut keeper = self.open_run(context, selection, &dataset, &devices.name)?;
        *opened = Some(keeper.run().clone());
        let directory = shown(&keeper.run().folder, context);
        write_config(&keeper, context)?;
        if let Some(base) = &setup.base {
            copy_base_model(keeper.run(), base)?;
        }

        // ---- Where to begin
        let reached_with = resume_checkpoint::of_position(&context.manifest, dataset.digest());
        let TrainingSetup { model, scope, mut model_info, on_new_best, .. } = setup;
        model_info.extra.insert(REACHED_WITH.to_owned(), json!(reached_with).to_string());
        let state = TrainState::new(model, scope, self.settings);
        let mut start =
            self.starting_point(context, &keeper, state, &devices.main, &reached_with, &dataset)?;
        self.begin(context, &mut keeper, &mut start, &devices)?;

        // ---- The loop, and how it ended
        let StartingPoint { mut state, position, .. } = start;
        let config = model_info.config.clone();
        let mut recorder =
            Recorder::open(context, self.settings, keeper, &position, model_info, on_new_best)?;
        let training = TrainingContext {
            settings: self.settings,
            config: &config,
            label_dropout: setup.label_dropout,
            lora_dropout: setup.lora_dropout,
            micro_batches: devices.micro_batches,
            dataset,
            device: devices.main,
            workers: &devices.workers,
            context,
        };
        let fitted = kernels::in_own_pool_of(devices.threads, || {
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

    /// The data set to train on.
    fn dataset(&self, context: &RunContext) -> Result<Arc<Dataset>, StageError> {
        let Some(dataset) = context.inputs.get("dataset").and_then(|a| a.get::<Arc<Dataset>>())
        else {
            return Err(StageError::new(Failure::Bug, "the data set did not reach the training"));
        };
        let dataset: Arc<Dataset> = (*dataset).clone();
        if self.settings.checkpoint.monitor == "val_loss"
            && dataset.indices(Split::Validation).is_empty()
        {
            return Err(StageError::setting(
                "checkpoint.monitor is val_loss, and the data set has no validation images; set its val_split to a \
                 share such as 0.1, or monitor train_loss",
            ));
        }
        Ok(dataset)
    }

    /// The run to be opened, once a checkpoint file that it is to begin from was looked at.
    fn select_for(
        &self,
        context: &RunContext,
        dataset: &Dataset,
        model_info: &ModelInfo,
    ) -> Result<RunSelection, StageError> {
        let data = DatasetSummary::of(dataset);
        let criteria = RunCriteria {
            root: &context.root,
            manifest: &context.manifest,
            unknown: &[],
            data: Some(&data),
        };
        let selection =
            self.select_run(&context.request, &context.pipeline, &context.stage, &criteria)?;
        if self.begins_from_file(&selection)
            && let Some(file) = resume_checkpoint::open(self.settings, &context.root)?
        {
            let name = self.settings.checkpoint.resume_checkpoint.as_deref().unwrap_or_default();
            let doubt = resume_compatibility::check(file.header(), name, model_info)?;
            doubt.into_iter().for_each(|text| context.event(Event::Warning { text }));
        }
        Ok(selection)
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
        let artifact = Checkpoints::of_run(run, keeper.metadata().clone()).artifact();
        Ok(Outcome { artifact: Some(artifact), summary, next })
    }
}

/// The command that samples from a checkpoint.
pub(super) fn sample_command(checkpoint: &str) -> NextCommand {
    let line = CommandLine::new(["pipe", "sample"]).path(Path::new(checkpoint));
    line.options(["--n=16"]).word("-o").word("samples.png").into()
}

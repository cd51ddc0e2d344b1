//! What all stages that train have in common: which numbered run a training belongs to, and the way
//! into the loop and out of it.

mod base_model;
mod definition;
mod device_group;
mod starting;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
pub(super) use definition::Training;
use pipe_core::progress::Event;
use pipe_core::shell::CommandLine;
use pipe_engine::kind::{
    Failure, InspectContext, Inspection, NextCommand, Outcome, RunContext, StageError,
};
use pipe_models::header::{OBJECTIVE, describe_objective};
use pipe_runs::{CheckpointManager, DatasetRecord, Run, Status};
use pipe_trainer::run_match::{RunCriteria, TrainingData};
use pipe_trainer::{Branch, PlannedLength, RunSelection, write_config};
use serde_json::json;

use self::base_model::copy_base_model;
use self::device_group::DeviceGroup;
use self::starting::{Beginner, StartingPoint};
use crate::architecture::{Denoiser, Network};
use crate::checkpoint::LABEL_DROPOUT;
use crate::data::{Dataset, DatasetSummary, Split};
use crate::diffusion::Objective;
use crate::kernels;
use crate::nn::Scope;
use crate::stages::artifacts::{CheckpointFile, dataset_summary};
use crate::stages::images::{DATA, Images, is_data};
use crate::stages::init;
use crate::stages::lint::VAL_LOSS;
use crate::stages::resume_checkpoint::{self, REACHED_WITH};
use crate::stages::resume_compatibility::{self, check_holds};
use crate::trainer::{
    ModelInfo, OnNewBest, Period, Periods, Recorder, StepProbe, TrainState, TrainingContext,
    TrainingSettings, fit,
};

/// What is trained, before the first step.
pub(super) struct TrainingSetup {
    /// On an autodiff device; frozen outside `scope`.
    pub model: Network,
    pub scope: Scope,
    pub model_info: ModelInfo,
    /// The file that the frozen weights come from; the run keeps it.
    pub base: Option<CheckpointFile>,
    pub on_new_best: Option<OnNewBest>,
}

impl Training<'_> {
    pub fn observe(&self, o: &InspectContext) -> Result<Inspection, StageError> {
        let data = o.inputs.get(DATA).and_then(dataset_summary);
        let images = data.as_ref().map(|seen| Images { root: o.root, seen });
        let criteria = RunCriteria {
            manifest: o.manifest,
            unknown: o.unknown,
            is_data: &is_data,
            data: images.as_ref().map(|images| images as &dyn TrainingData),
        };
        self.with_runs(|training| {
            training.inspect(o, &criteria, |selection| {
                if o.pending || !training.begins_anew(selection) {
                    return Ok(());
                }
                resume_checkpoint::open(self.settings, o.root)?;
                let Some(init) = &self.settings.init else { return Ok(()) };
                let Some(file) = init::open(init, o.inputs, o.root)? else { return Ok(()) };
                let shown = file.path().strip_prefix(o.root).unwrap_or(file.path());
                check_holds(&file, init::KEY, &shown.display().to_string(), self.factors)
            })
        })
    }

    /// Trains. `start` makes what is trained from the data set and the device (with autodiff).
    pub fn run(
        &self,
        context: &RunContext,
        start: impl FnOnce(&Dataset, &Device) -> Result<TrainingSetup, StageError>,
    ) -> Result<Outcome, StageError> {
        if context.aside.is_some() {
            let aside =
                |period: &Period| Period { settings: period.settings.aside(), ..period.clone() };
            let periods = &self.periods.map(aside);
            let settings = &periods.first().settings;
            let aside = Training { settings, periods, value: self.value.clone(), ..*self };
            return aside.run_in(context, start, &mut None);
        }
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
        let devices = DeviceGroup::resolve(self.periods, context)?;
        let mut setup = start(&dataset, &devices.main)?;
        setup.model_info.extra.extend(describe_objective(setup.model.objective()));

        // ---- The run: an old one to go on with, or a new one
        let (selection, branch) = self.select_for(context, &dataset, (&setup, &devices.name))?;
        let record = DatasetRecord {
            source: dataset.source().name().to_owned(),
            digest: dataset.digest().to_owned(),
            classes: dataset.class_names().to_vec(),
            train_images: dataset.indices(Split::Train).len() as u64,
            validation_images: dataset.indices(Split::Validation).len() as u64,
        };
        let mut keeper = self
            .with_runs(|training| training.open_run(context, selection, &record, &devices.name))?;
        *opened = Some(keeper.run().clone());
        write_config(&keeper, context)?;
        if let Some(base) = &setup.base {
            copy_base_model(keeper.run(), base)?;
        }

        // ---- Where to begin
        let reached_with = &resume_checkpoint::of_position(&context.manifest, dataset.digest());
        let TrainingSetup { model, scope, mut model_info, on_new_best, .. } = setup;
        let periods = &self.described(&mut model_info, reached_with, model.objective());
        let TrainingSettings { optimizer, ema, .. } = self.settings;
        let state =
            TrainState::new(model, scope, optimizer, ema.enabled).with_lengths(&ema.lengths);
        let what = Beginner { reached_with, dataset: &dataset, info: &model_info, branch };
        let mut start = self.starting_point(context, &mut keeper, state, &devices.main, &what)?;
        self.begin(context, &mut keeper, &mut start, &devices)?;

        // ---- The loop, and how it ended
        let StartingPoint { mut state, position, other_steps, .. } = start;
        let planned = self.planned(context, &keeper);
        let config = model_info.config.clone();
        let mut recorder =
            Recorder::open(context, periods, keeper, &position, model_info, on_new_best)?
                .watching(devices.all().cloned());
        let training = TrainingContext {
            settings: self.settings,
            periods,
            epochs: self.last_epoch(context, &dataset),
            planned,
            config: &config,
            micro_batches: devices.micro_batches,
            other_steps,
            dataset,
            device: devices.main,
            workers: &devices.workers,
            context,
            probe: probe(context),
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
        Ok(self.with_runs(|training| {
            training.outcome(context, &keeper, |best| Some(sample_command(best)))
        }))
    }

    /// The number of epochs, where time has decided it by now.
    fn planned(&self, context: &RunContext, keeper: &CheckpointManager) -> Option<u64> {
        let is_open = self.settings.places_decay() || context.aside.is_some();
        PlannedLength::of(keeper.metadata()).filter(|_| is_open).map(|planned| planned.epochs)
    }

    /// The periods with what headers of their checkpoints say, which those of the whole training do
    /// not say then. `reached_with`: what positions of the first one depend on.
    fn described(
        &self,
        info: &mut ModelInfo,
        reached_with: &resume_checkpoint::Settings,
        objective: Objective,
    ) -> Periods {
        info.extra.remove(OBJECTIVE);
        // What was learned without labels stays.
        let (mut reached_with, mut unlabelled) = (reached_with.clone(), 0.0_f64);
        let says_label_dropout = info.extra.contains_key(LABEL_DROPOUT);
        if let Some(of_base) = info.extra.get(LABEL_DROPOUT).and_then(|text| text.parse().ok()) {
            unlabelled = of_base;
        }
        self.periods.map(|period| {
            let changed = period.changed.iter().filter(|d| reached_with.contains_key(&d.key));
            let changed: Vec<_> =
                changed.filter_map(|d| d.new.clone().map(|new| (d.key.clone(), new))).collect();
            reached_with.extend(changed);
            unlabelled = unlabelled.max(period.label_dropout);
            let mut extra =
                BTreeMap::from([(REACHED_WITH.to_owned(), json!(reached_with).to_string())]);
            if says_label_dropout {
                extra.insert(LABEL_DROPOUT.to_owned(), unlabelled.to_string());
            }
            extra.extend(describe_objective(period.objective.unwrap_or(objective)));
            Period { extra, ..period.clone() }
        })
    }

    /// The epoch that it ends with.
    fn last_epoch(&self, context: &RunContext, dataset: &Dataset) -> u64 {
        let all = self.periods.epochs_on(dataset.indices(Split::Train).len());
        context.aside.as_ref().map_or(all, |aside| aside.until)
    }

    /// The data set to train on.
    fn dataset(&self, context: &RunContext) -> Result<Arc<Dataset>, StageError> {
        let Some(dataset) = context.inputs.get("dataset").and_then(|a| a.get::<Arc<Dataset>>())
        else {
            return Err(StageError::new(Failure::Bug, "the data set did not reach the training"));
        };
        let dataset: Arc<Dataset> = (*dataset).clone();
        let (stopping, monitor) = (self.settings.stopping(), &self.settings.checkpoint.monitor);
        let is_wanted = [
            ("checkpoint.monitor is val_loss", monitor == VAL_LOSS, "monitor train_loss"),
            (
                "early_stopping.monitor is val_loss",
                stopping.monitor() == Some(VAL_LOSS),
                "monitor train_loss",
            ),
            (
                "validate_every_n_steps is set",
                self.settings.validate_every_n_steps.is_some(),
                "leave it out",
            ),
        ];
        if dataset.indices(Split::Validation).is_empty()
            && let Some((what, _, or)) = is_wanted.into_iter().find(|(_, is_wanted, _)| *is_wanted)
        {
            return Err(StageError::setting(format!(
                "{what}, and the data set has no validation images; set its val_split to a share such as 0.1, {or}"
            )));
        }
        Ok(dataset)
    }

    /// The run to be opened, once a checkpoint that it is to begin from was looked at; and for a new
    /// one the run that it is a branch of.
    fn select_for(
        &self,
        context: &RunContext,
        dataset: &Dataset,
        (setup, device): (&TrainingSetup, &str),
    ) -> Result<(RunSelection, Option<Branch>), StageError> {
        let data = DatasetSummary::of(dataset);
        let images = Images { root: &context.root, seen: &data };
        let criteria = RunCriteria {
            manifest: &context.manifest,
            unknown: &[],
            is_data: &is_data,
            data: Some(&images),
        };
        if let Some(aside) = &context.aside {
            let selected = self.with_runs(|training| {
                training.select_aside(context, aside, &criteria, Some(device))
            });
            return Ok((selected?, None));
        }
        let (selection, begins_anew) = self.with_runs(|training| {
            let (request, root) = (&context.request, &context.root);
            let selection =
                training.select_run(request, &context.pipeline, &context.stage, root, &criteria)?;
            let begins_anew = training.begins_anew(&selection);
            Ok::<_, StageError>((selection, begins_anew))
        })?;
        if !begins_anew {
            return Ok((selection, None));
        }
        if let Some(file) = resume_checkpoint::open(self.settings, &context.root)? {
            let name = self.settings.checkpoint.resume_checkpoint.as_deref().unwrap_or_default();
            let doubt = resume_compatibility::check(&file, name, &setup.model_info)?;
            doubt.into_iter().for_each(|text| context.event(Event::Warning { text }));
        }
        if let Some(init) = &self.settings.init {
            let file = init::require(init, &context.inputs, &context.root)?;
            let what = (&setup.model, &setup.scope);
            let found = init::beginning(init, &file, what, &setup.model_info)?;
            found.doubts.into_iter().for_each(|text| context.event(Event::Warning { text }));
        }
        let branch = self.with_runs(|training| {
            let of = (context.pipeline.as_str(), &context.stage);
            training.branch(&context.request, of, &context.root, &criteria)
        });
        Ok((selection, branch.filter(|_| !context.request.force)))
    }
}

/// What looks at the steps of a replay.
fn probe(context: &RunContext) -> Option<Arc<StepProbe>> {
    context.aside.as_ref()?.observer.clone()?.downcast().ok()
}

/// The command that samples from a checkpoint.
pub(super) fn sample_command(checkpoint: &str) -> NextCommand {
    let line = CommandLine::new(["pipe", "sample"]).path(Path::new(checkpoint));
    line.options(["--n=16"]).word("-o").word("samples.png").into()
}

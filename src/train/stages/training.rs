//! What all stages that train have in common: which numbered run a training belongs to, and the way
//! into the loop and out of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use pipe_core::progress::Event;
use pipe_core::shell::CommandLine;
use pipe_engine::identity::Difference;
use pipe_engine::kind::{
    Failure, Files, InspectContext, Inspection, NextCommand, Outcome, Request, RunContext,
    StageError, StageId, StageState,
};
use pipe_fs::copy::copy;
use pipe_fs::{atomic, disk_space};
use pipe_runs::{
    Checkpoint, CheckpointManager, DatasetRecord, Loaded, Metadata, Run, Runs, SCHEMA_VERSION,
    Status, StoreError,
};
use serde_json::{Map, Value, json};

use super::artifacts::{ModelFile, TrainedRun, dataset_summary};
use super::resume_checkpoint::{self, REACHED_WITH};
use super::run_catalog::{RunCatalog, completed_epochs, has_lost_checkpoints, unfinished_reason};
use super::run_match::{DATA, RunCriteria};
use super::{relocated_runs, resume_compatibility};
use crate::architecture::Network;
use crate::checkpoint::BASE_FILE;
use crate::data::{Dataset, DatasetSummary, Split, batches_per_epoch};
use crate::device::{self, GpuAssignment, ResolvedDevice};
use crate::diffit::{Scope, param_paths};
use crate::kernels;
use crate::trainer::{
    ModelInfo, OnNewBest, Position, Recorder, TrainState, TrainingContext, TrainingSettings,
    Worker, fit, self_test,
};

/// A training as a stage sees it.
pub(super) struct Training<'a> {
    pub settings: &'a TrainingSettings,
    /// The stage's settings as they are recorded.
    pub value: Value,
    /// Folder of the numbered runs, if the settings name none.
    pub base_dir: &'static str,
}

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

/// The run that a training goes on with, or the wish for a new one.
enum RunSelection {
    /// A new run, with this number if one was asked for. The reason is for the plan.
    New { number: Option<u32>, reason: String, changes: Vec<Difference> },
    /// An existing run with the same identity.
    Existing(Box<(Run, Metadata)>),
    /// A run's folder without metadata: its process ended before it wrote any.
    Empty(Run),
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
        context.event(Event::RunOpened {
            number: keeper.run().number.0,
            experiment: keeper.metadata().experiment_name.clone(),
            directory: directory.clone(),
            device: device.clone(),
            parameters,
            trainable,
        });
        if let Some(checkpoint) = &from {
            let history = &keeper.metadata().history;
            let previous =
                history.iter().rfind(|e| e.epoch == position.epoch).map(|e| e.metrics.clone());
            context.event(Event::Resumed {
                checkpoint: shown(checkpoint.path()),
                epoch: position.epoch,
                step_in_epoch: position.step_in_epoch,
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

    /// The newest checkpoint to go on from, if there is any.
    fn newest(
        &self,
        context: &RunContext,
        keeper: &CheckpointManager,
    ) -> Result<Option<Loaded>, StageError> {
        let found = keeper.newest_good();
        for passed in &found.passed_over {
            context.event(Event::Warning {
                text: format!("passed over a damaged checkpoint: {passed}"),
            });
        }
        for path in &found.foreign {
            let shown = path.strip_prefix(&context.root).unwrap_or(path).display();
            let text = format!("passed over {shown}: it is no checkpoint of this run by that name");
            context.event(Event::Warning { text });
        }
        if found.checkpoint.is_some() {
            return Ok(found.checkpoint);
        }
        if !found.passed_over.is_empty() {
            let number = keeper.run().number;
            let fresh_start_hint = fresh_start_hint(&context.request);
            let message = format!("run {number} has no good checkpoint left; {fresh_start_hint}");
            return Err(StageError::new(Failure::Storage, message));
        }
        resume_checkpoint::load(self.settings, &context.root)
    }

    /// Whether there is no checkpoint of the run's own to go on from.
    fn begins_from_file(&self, selection: &RunSelection) -> bool {
        let new = match selection {
            RunSelection::New { .. } | RunSelection::Empty(_) => true,
            RunSelection::Existing(existing) => is_untrained(&existing.0, &existing.1),
        };
        new && self.settings.checkpoint.resume_checkpoint.is_some()
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
            best_epoch: best.as_ref().map(|b| b.epoch),
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

    fn runs(&self, root: &Path) -> Runs {
        Runs::at(root.join(self.folder()))
    }

    /// Where a run is that lies in another folder than new ones would.
    fn place(&self, root: &Path, run: &Run) -> String {
        match run.folder.parent() {
            Some(folder) if folder != self.runs(root).folder() => {
                format!(" in {}", folder.strip_prefix(root).unwrap_or(folder).display())
            }
            _ => String::new(),
        }
    }

    /// Files that other stages may write.
    pub fn files(&self) -> Files {
        resume_checkpoint::files(self.settings)
    }

    /// Digests of files that decide the result.
    pub fn content(&self, root: &Path) -> BTreeMap<String, String> {
        resume_checkpoint::content(self.settings, root)
    }

    /// The folder of its numbered runs, relative to the project.
    pub fn folder(&self) -> PathBuf {
        self.settings.checkpoint.base_dir.as_deref().unwrap_or(self.base_dir).into()
    }
}

/// The devices of a training, by what they do.
struct DeviceGroup {
    /// With autodiff.
    main: Device,
    workers: Vec<Worker>,
    /// Threads of the main one, if it is not to have all cores.
    threads: Option<usize>,
    /// Of all, for people and metadata.
    name: String,
}

impl DeviceGroup {
    fn of(devices: Vec<ResolvedDevice>) -> Result<Self, StageError> {
        let name = devices.iter().map(|d| d.name.as_str()).collect::<Vec<_>>().join(" + ");
        // Where the CPU is listed several times, each one has its share of the cores.
        let cpus = devices.iter().filter(|d| !d.is_gpu).count();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = |d: &ResolvedDevice| (!d.is_gpu && cpus > 1).then(|| (cores / cpus).max(1));
        let mut devices = devices.into_iter();
        let Some(main) = devices.next() else {
            return Err(StageError::new(Failure::Bug, "a training without a device"));
        };
        let worker = |d: ResolvedDevice| {
            let threads = if d.is_gpu { None } else { Some(threads(&d).unwrap_or(cores)) };
            Worker { device: d.device.autodiff(), name: d.name, threads }
        };
        let own = threads(&main);
        Ok(Self {
            main: main.device.autodiff(),
            workers: devices.map(worker).collect(),
            threads: own,
            name,
        })
    }
}

/// Why a device cannot train in a precision, and what can be done.
fn refused_precision(precision: &str, device: &ResolvedDevice) -> String {
    let can =
        device.adapter.as_ref().map_or("f32".into(), |adapter| adapter.precisions().join(" or "));
    format!(
        "precision: {} cannot compute with {precision}; use {can}, or `device: cpu`, which can (see `pipe devices`)",
        device.name
    )
}

/// Optimizer steps in an epoch.
fn steps_per_epoch(settings: &TrainingSettings, dataset: &Dataset) -> u64 {
    let images = dataset.indices(Split::Train).len();
    batches_per_epoch(Split::Train, images, settings.batch_size)
        .div_ceil(settings.accumulate_grad_batches) as u64
}

/// Whether no epoch's result stands in a run, nor a part of one: what it was begun with can still
/// be another.
fn is_untrained(run: &Run, metadata: &Metadata) -> bool {
    let files = std::fs::read_dir(run.checkpoints()).into_iter().flatten().flatten();
    let checkpoint = |name: std::ffi::OsString| name.to_string_lossy().ends_with(".ckpt");
    metadata.status != Status::Completed
        && metadata.checkpoints.is_empty()
        && metadata.partial_checkpoint.is_none()
        && !files.map(|file| file.file_name()).any(checkpoint)
}

fn parameters(model: &Network, scope: &Scope) -> u64 {
    let trained = param_paths(model).into_iter().filter(|(_, name, _)| scope.holds(name));
    trained.map(|(.., shape)| shape.iter().product::<usize>() as u64).sum()
}

/// Puts a copy of the base model beside the checkpoints that need it.
fn copy_base_model(run: &Run, base: &ModelFile) -> Result<(), StageError> {
    let kept = run.folder.join(BASE_FILE);
    let same = |a: &Path, b: &Path| {
        let digest = |path| Checkpoint::open(path).ok().and_then(|c| c.digest().map(str::to_owned));
        digest(a).is_some_and(|found| digest(b) == Some(found))
    };
    if kept.exists() && same(&kept, &base.path) {
        return Ok(());
    }
    Ok(copy(&base.path, &kept)?)
}

/// What became of a run that is not begun again in its place.
const LOST: &str = "was completed, and none of its checkpoints is left";

impl Training<'_> {
    /// The run that is asked for by its number.
    fn number(&self, request: &Request) -> Option<u32> {
        let policy = &self.settings.checkpoint;
        request.run_number.or(policy.run_number).or(policy.resume_from_run)
    }

    /// Decides which run is meant. Looks at the disk and changes nothing.
    fn select_run(
        &self,
        request: &Request,
        pipeline: &str,
        stage: &StageId,
        criteria: &RunCriteria,
    ) -> Result<RunSelection, StageError> {
        let policy = &self.settings.checkpoint;
        let runs = self.runs(criteria.root);
        let resume = request.resume || (policy.resume_from_run.is_some() && !request.force);
        let number = self.number(request);

        if let Some(number) = number {
            let Some(run) = runs.find(number) else {
                let moved = |found: &(Run, Metadata)| {
                    found.0.number.0 == number && criteria.matches(&found.1)
                };
                let found = relocated_runs::runs(criteria.root, runs.folder(), pipeline, stage)
                    .into_iter()
                    .rfind(moved);
                if let (Some(found), false) = (found, request.force) {
                    return Ok(RunSelection::Existing(Box::new(found)));
                }
                let reason = if resume {
                    format!("no checkpoint found for run {number}; starting new training")
                } else {
                    format!("run {number} is new")
                };
                return Ok(RunSelection::New { number: Some(number), reason, changes: Vec::new() });
            };
            if request.force {
                return Err(StageError::setting(format!(
                    "run {number} exists; `--force` needs a number that is free, or none"
                )));
            }
            if !run.is_started() {
                return if run.is_empty() {
                    Ok(RunSelection::Empty(run))
                } else {
                    Err(StageError::setting(format!(
                        "run {number} has no metadata.json, so nobody knows what trained it: bring that file back (half \
                         a copy?), or choose another number"
                    )))
                };
            }
            let metadata = run.metadata()?;
            return match (
                can_continue(criteria, &run, &metadata),
                has_lost_checkpoints(&run, &metadata),
            ) {
                (false, _) => Err(StageError::setting(self.refusal(number, criteria, &metadata))),
                (true, true) => Err(StageError::setting(format!(
                    "run {number} {LOST}; start a new run by leaving the number out"
                ))),
                (true, false) => Ok(RunSelection::Existing(Box::new((run, metadata)))),
            };
        }

        let catalog = RunCatalog::of(&runs, pipeline, stage.as_str());
        if request.force {
            return Ok(RunSelection::New {
                number: None,
                reason: "forced".into(),
                changes: Vec::new(),
            });
        }
        let epochs = self.settings.epochs;
        let known = catalog.matching(|_, m| criteria.matches(m), epochs);
        if let Some(known) =
            known.or_else(|| catalog.matching(|run, m| can_continue(criteria, run, m), epochs))
        {
            return Ok(RunSelection::Existing(Box::new(known.clone())));
        }
        if catalog.newest().is_none() {
            let all = relocated_runs::runs(criteria.root, runs.folder(), pipeline, stage);
            if let Some(found) = all.into_iter().rfind(|(_, metadata)| criteria.matches(metadata)) {
                return Ok(RunSelection::Existing(Box::new(found)));
            }
        }
        let (reason, changes) = match catalog.newest() {
            None if resume => ("no checkpoint found; starting new training".to_owned(), Vec::new()),
            None => ("no run yet".to_owned(), Vec::new()),
            Some((run, m)) => {
                let (changes, words) = criteria.changes(m);
                if resume && !changes.is_empty() {
                    return Err(StageError::setting(self.refusal(run.number.0, criteria, m)));
                }
                let help = match &self.horizon_help(&changes) {
                    Some(help) if changes.len() == 1 => format!("; {help}"),
                    _ => String::new(),
                };
                let why =
                    if changes.is_empty() { format!("run {} {LOST}", run.number) } else { words };
                (format!("{why} (new run_{}{help})", catalog.next()), changes)
            }
        };
        let reason = std::iter::once(reason)
            .chain(catalog.hints(|m| criteria.matches(m)))
            .collect::<Vec<_>>()
            .join("; ");
        Ok(RunSelection::New { number: None, reason, changes })
    }

    /// Why a run cannot be gone on with.
    fn refusal(&self, number: u32, criteria: &RunCriteria, run: &Metadata) -> String {
        let (different, words) = criteria.changes(run);
        let only_data = criteria.settings_changed(run).is_empty();
        let (what, back) = if only_data {
            ("on other images", "put the old images back")
        } else {
            ("with other settings", "go on with the settings it was begun with")
        };
        let help = self.horizon_help(&different).unwrap_or_else(|| back.to_owned());
        format!(
            "run {number} was trained {what}: {words}; {help}, or start a new run by leaving the number and `--resume` \
             out"
        )
    }

    /// What to do about a schedule that would have another length.
    fn horizon_help(&self, different: &[Difference]) -> Option<String> {
        let horizon = different.iter().find(|d| d.key == "schedule horizon")?;
        let old = horizon.old.as_ref()?.as_u64()?;
        let kind = format!("{:?}", self.settings.schedule.kind).to_lowercase();
        let learns = self.settings.epochs <= old || self.settings.schedule.min_lr_ratio > 0.0;
        Some(if learns {
            format!(
                "a {kind} schedule depends on its length: extend it with `schedule_epochs: {old}`"
            )
        } else {
            format!(
                "a {kind} schedule depends on its length, and this one ends at a learning rate of 0 after epoch {old}, \
                 so that more epochs of the same run would learn nothing: keep `epochs: {old}`"
            )
        })
    }

    /// Fails if not even one checkpoint of `each` bytes fits on the disk; warns if not all that
    /// will be kept fit.
    fn check_disk_space(
        &self,
        context: &RunContext,
        keeper: &CheckpointManager,
        each: u64,
    ) -> Result<(), StageError> {
        let (policy, epochs) = (&self.settings.checkpoint, self.settings.epochs);
        let folder = &keeper.run().folder;
        let Some(free) = disk_space::free(folder).filter(|_| policy.enabled) else { return Ok(()) };
        let listed = &keeper.metadata().checkpoints;
        let older: u64 = listed.iter().rev().skip(1).map(|c| c.bytes).sum();
        let newest = listed.last().map_or(0, |c| c.bytes);
        let shown = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
        let place = folder.display();
        if free + older < each {
            return Err(StageError::new(
                Failure::Storage,
                format!(
                    "a checkpoint takes {}, and only {} are free at {place} (make room before the training begins)",
                    shown(each),
                    shown(free)
                ),
            ));
        }
        // Those that the policy keeps, the best, and the one being written.
        let saved = epochs.div_ceil(policy.save_every_n_epochs);
        let kept = policy.keep_last_n.map_or(saved, |keep| saved.min(keep.saturating_add(2)));
        let all = kept.saturating_mul(each);
        if free.saturating_add(older + newest) < all {
            let text = format!(
                "{kept} checkpoints will take {}, and only {} are free at {place}; lower checkpoint.keep_last_n or make room",
                shown(all),
                shown(free)
            );
            context.event(Event::Warning { text });
        }
        Ok(())
    }

    fn open_run(
        &self,
        context: &RunContext,
        selection: RunSelection,
        dataset: &Dataset,
        device: &str,
    ) -> Result<CheckpointManager, StageError> {
        let policy = self.settings.checkpoint.clone();
        let runs = self.runs(&context.root);
        let run = match selection {
            RunSelection::Existing(existing) => {
                let (run, metadata) = *existing;
                let mut keeper = CheckpointManager::reopen(run, policy)?;
                if metadata.dataset.digest != dataset.digest() {
                    // Nothing was trained on the images that it was begun with, such as a corrupt
                    // one.
                    let first = self.first_metadata(context, keeper.run(), dataset, device);
                    keeper.update(|m| {
                        (m.dataset, m.manifest, m.identity) =
                            (first.dataset, first.manifest, first.identity);
                        m.history.clear();
                    })?;
                }
                return Ok(keeper);
            }
            RunSelection::Empty(run) => run,
            RunSelection::New { number: Some(number), reason, .. } => {
                if context.request.resume {
                    context.event(Event::Message { text: capitalized(&reason) });
                }
                let created = runs.create_numbered(number)?;
                created.ok_or_else(|| {
                    StageError::new(
                        Failure::Setting,
                        format!("run {number} was just begun by another process"),
                    )
                })?
            }
            RunSelection::New { number: None, reason, .. } => {
                if context.request.resume {
                    context.event(Event::Message { text: capitalized(&reason) });
                }
                // A folder without metadata is one that a process claimed and died before it wrote
                // any.
                let abandoned = runs.list().pop().filter(|run| !run.is_started() && run.is_empty());
                let mut run = abandoned.map_or_else(|| runs.create(), Ok)?;
                loop {
                    let metadata = self.first_metadata(context, &run, dataset, device);
                    match CheckpointManager::begin(run, policy.clone(), metadata) {
                        // Not abandoned: its process was just about to begin.
                        Err(StoreError::Held { .. }) => run = runs.create()?,
                        begun => return Ok(begun?),
                    }
                }
            }
        };
        let metadata = self.first_metadata(context, &run, dataset, device);
        Ok(CheckpointManager::begin(run, policy, metadata)?)
    }

    fn first_metadata(
        &self,
        context: &RunContext,
        run: &Run,
        dataset: &Dataset,
        device: &str,
    ) -> Metadata {
        let now = chrono::Utc::now();
        Metadata {
            schema_version: SCHEMA_VERSION,
            run_number: run.number.0,
            experiment_name: self
                .settings
                .experiment_name
                .clone()
                .unwrap_or_else(|| context.pipeline.clone()),
            pipeline: context.pipeline.clone(),
            stage: context.stage.to_string(),
            status: Status::Running,
            message: None,
            created_at: now,
            updated_at: now,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            git_commit: git_commit(&context.root),
            device: device.to_owned(),
            seed: self.settings.seed,
            epochs: self.settings.epochs,
            identity: context.identity.clone(),
            manifest: context.manifest.clone(),
            settings: self.value.clone(),
            dataset: DatasetRecord {
                source: dataset.source().name().to_owned(),
                digest: dataset.digest().to_owned(),
                classes: dataset.class_names().to_vec(),
                train_images: dataset.indices(Split::Train).len() as u64,
                validation_images: dataset.indices(Split::Validation).len() as u64,
            },
            resumed_from: self.settings.checkpoint.resume_checkpoint.clone(),
            checkpoints: Vec::new(),
            best_checkpoint: None,
            partial_checkpoint: None,
            history: Vec::new(),
            other: Map::new(),
        }
    }
}

/// Whether a run can be gone on with: it fits, or nothing but its images differs and it was trained
/// on none yet.
fn can_continue(criteria: &RunCriteria, run: &Run, metadata: &Metadata) -> bool {
    let untouched = || is_untrained(run, metadata) && run.holder().is_none();
    criteria.settings_changed(metadata).is_empty()
        && (criteria.data_changed(metadata).is_none() || untouched())
}

/// How one starts anew.
fn fresh_start_hint(request: &Request) -> &'static str {
    if request.resume || request.run_number.is_some() {
        "start a new run with --force, without --resume and --run-number"
    } else {
        "start a new run with --force"
    }
}

/// `config.yaml`: a pipeline file that repeats the run.
fn write_config(keeper: &CheckpointManager, context: &RunContext) -> Result<(), StageError> {
    let path = keeper.run().config_path();
    let stage = context.stage.as_str();
    let mut again = CommandLine::new(["pipe", "run"])
        .path(path.strip_prefix(&context.root).unwrap_or(&path))
        .word(stage)
        .options(["--force"]);
    // A number that was asked for is taken now.
    for key in ["run_number", "resume_from_run"] {
        let policy = &keeper.metadata().settings["checkpoint"];
        if !policy[key].is_null() {
            again = again.options([format!("--set={stage}.checkpoint.{key}=null")]);
        }
    }
    // A path with the end of a line in it would leave the comment.
    let again = again.to_string().replace(char::is_control, "?");
    let text = format!(
        "# The resolved settings of this run. It can be repeated with: {again}\n{}",
        context.resolved()
    );
    Ok(atomic::write(&path, |out| out.write_all(text.as_bytes()))?)
}

fn git_commit(root: &Path) -> Option<String> {
    let output = std::process::Command::new("git")
        .args(["rev-parse", "HEAD"])
        .current_dir(root)
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// The command that samples from a checkpoint.
pub(super) fn sample_command(checkpoint: &str) -> NextCommand {
    let line = CommandLine::new(["pipe", "sample"]).path(Path::new(checkpoint));
    line.options(["--n=16"]).word("-o").word("samples.png").into()
}

//! What all stages that train have in common: which numbered run a training belongs to, and the way
//! into the loop and out of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use pipe_engine::identity::Difference;
use pipe_engine::kind::{
    Failure, Files, Next, Observation, Observer, Outcome, Request, RunContext, StageError, StageId,
    State,
};
use pipe_engine::progress::Event;
use pipe_engine::shell::Line;
use pipe_engine::store::copy::copy;
use pipe_engine::store::{
    Checkpoint, DatasetRecord, Keeper, Loaded, Metadata, Run, Runs, SCHEMA_VERSION, Status,
    StoreError, atomic, room,
};
use serde_json::{Map, Value, json};

use super::belonging::{Shelf, completed_epochs, ending, is_lost};
use super::choice::{DATA, Wanted};
use super::elsewhere;
use super::from_file::{self, REACHED_WITH};
use super::handed::{ModelFile, TrainedRun, seen};
use super::source;
use crate::architecture::Network;
use crate::checkpoint::BASE_FILE;
use crate::data::{Dataset, Seen, Split, batches};
use crate::device::{self, ResolvedDevice, Share};
use crate::diffit::{Scope, param_paths};
use crate::fit::{
    About, AfterBest, FitSettings, Job, Other, Position, Recorder, TrainState, fit, self_test,
};
use crate::kernels;

/// A training as a stage sees it.
pub(super) struct Training<'a> {
    pub settings: &'a FitSettings,
    /// The stage's settings as they are recorded.
    pub value: Value,
    /// Folder of the numbered runs, if the settings name none.
    pub base_dir: &'static str,
}

/// What is trained, before the first step.
pub(super) struct Start {
    /// On an autodiff device; frozen outside `scope`.
    pub model: Network,
    pub scope: Scope,
    pub about: About,
    pub label_dropout: f64,
    pub lora_dropout: f64,
    /// The file that the frozen weights come from; the run keeps it.
    pub base: Option<ModelFile>,
    pub after_best: Option<AfterBest>,
}

/// The run that a training goes on with, or the wish for a new one.
enum Choice {
    /// A new run, with this number if one was asked for. The reason is for the plan.
    New { number: Option<u32>, reason: String, changes: Vec<Difference> },
    /// An existing run with the same identity.
    Existing(Box<(Run, Metadata)>),
    /// A run's folder without metadata: its process ended before it wrote any.
    Empty(Run),
}

impl Training<'_> {
    pub fn observe(&self, o: &Observer) -> Result<Observation, StageError> {
        let data = o.inputs.get(DATA).and_then(seen);
        let wanted =
            Wanted { root: o.root, manifest: o.manifest, unknown: o.unknown, data: data.as_ref() };
        let choice = self.choose(o.request, o.pipeline, o.stage, &wanted)?;
        if !o.pending && self.begins_from_file(&choice) {
            from_file::open(self.settings, o.root)?;
        }
        let (run, metadata) = match choice {
            Choice::New { reason, changes, .. } => {
                return Ok(State::Absent { reason, changes }.into());
            }
            Choice::Empty(run) => {
                return Ok(
                    State::absent(format!("run {} has no checkpoint yet", run.number)).into()
                );
            }
            Choice::Existing(existing) => *existing,
        };
        let total = self.settings.epochs;
        let done = completed_epochs(&run, &metadata);
        if done >= total && metadata.status != Status::Completed {
            // Its process ended between the last checkpoint and the end: what is left is to put
            // things in order.
            let reason = format!("run {}: trained, {}", run.number, ending(&run, &metadata));
            return Ok(State::Partial { done: total, total, reason }.into());
        }
        if done >= total {
            if metadata.best_checkpoint.is_some() && !run.best().is_file() {
                let reason = format!("run {}: best.ckpt is gone", run.number);
                return Ok(State::Partial { done: total, total, reason }.into());
            }
            let whose = match metadata.pipeline == o.pipeline {
                true => String::new(),
                false => format!(" of pipeline {}", metadata.pipeline),
            };
            let place = self.place(o.root, &run);
            let reason = match done > total {
                true => format!(
                    "run {}{whose}{place} was trained for {done} epochs, more than the {total} asked for: it is handed \
                     on as it is; `--force` trains a new run",
                    run.number
                ),
                false => format!("up to date, run {}{whose}{place}", run.number),
            };
            let artifact = Some(TrainedRun { run, metadata }.artifact());
            return Ok(Observation { state: State::Done { reason }, artifact });
        }
        if done >= metadata.epochs {
            return Ok(State::Extendable { from: done, to: total }.into());
        }
        let reason = format!("run {}: {}", run.number, ending(&run, &metadata));
        Ok(State::Partial { done, total, reason }.into())
    }

    /// Trains. `start` makes what is trained from the data set and the device (with autodiff).
    pub fn run(
        &self,
        context: &RunContext,
        start: impl FnOnce(&Dataset, &Device) -> Result<Start, StageError>,
    ) -> Result<Outcome, StageError> {
        let mut opened = None;
        let ended = self.run_in(context, start, &mut opened);
        if let (Err(error), Some(run)) = (&ended, opened) {
            // The first error is the one to report.
            let _ = Keeper::note_failed_start(&run, &error.message);
        }
        ended
    }

    /// The same; `opened` is the run as soon as it is one.
    fn run_in(
        &self,
        context: &RunContext,
        start: impl FnOnce(&Dataset, &Device) -> Result<Start, StageError>,
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
            return Err(setting(
                "checkpoint.monitor is val_loss, and the data set has no validation images; set its val_split to a \
                 share such as 0.1, or monitor train_loss",
            ));
        }
        let devices = device::resolve_all(&settings.devices(), Share::of(context))
            .map_err(|e| setting(e.to_string()))?;
        let pieces = 1usize.checked_shl(context.adjustment.halvings).unwrap_or(usize::MAX);
        if pieces > settings.batch_size.div_ceil(devices.len()) {
            return Err(setting(
                "the device's memory does not suffice even for one image at a time",
            ));
        }
        if let Some(device) = devices.iter().find(|d| !settings.precision.runs_on(&d.device)) {
            return Err(setting(refused_precision(settings.precision.name(), device)));
        }
        for device in &devices {
            self_test::require(&context.root, device, settings.precision, |text| {
                context.event(Event::Message { text });
            })?;
        }
        let Several { main: autodiff, others, threads, name: device } = Several::of(devices)?;
        let start = start(&dataset, &autodiff)?;

        // The run: an old one to go on with, or a new one.
        let data = Seen::of(&dataset);
        let wanted = Wanted {
            root: &context.root,
            manifest: &context.manifest,
            unknown: &[],
            data: Some(&data),
        };
        let choice = self.choose(&context.request, &context.pipeline, &context.stage, &wanted)?;
        if self.begins_from_file(&choice)
            && let Some(file) = from_file::open(settings, &context.root)?
        {
            let name = settings.checkpoint.resume_checkpoint.as_deref().unwrap_or_default();
            let doubt = source::check(file.header(), name, &start.about)?;
            doubt.into_iter().for_each(|text| context.event(Event::Warning { text }));
        }
        let mut keeper = self.open_run(context, choice, &dataset, &device)?;
        *opened = Some(keeper.run().clone());
        let shown =
            |path: &Path| path.strip_prefix(&context.root).unwrap_or(path).display().to_string();
        let directory = shown(&keeper.run().folder);
        write_config(&keeper, context)?;
        if let Some(base) = &start.base {
            keep_base(keeper.run(), base)?;
        }

        // Where to begin: the run's newest good checkpoint, a file that was named, or the start.
        let mut from = self.newest(context, &keeper)?;
        let Start { model, scope, mut about, label_dropout, lora_dropout, after_best, .. } = start;
        let reached_with = from_file::of_position(&context.manifest, dataset.digest());
        about.extra.insert(REACHED_WITH.to_owned(), json!(reached_with).to_string());
        let parameters = parameters(&model, &Scope::All);
        let trainable = self::parameters(&model, &scope);
        let mut state = TrainState::new(model, scope, settings);
        let mut position = Position::default();
        if let Some(checkpoint) = &mut from {
            position = Position::of(checkpoint.header());
            if !checkpoint.path().starts_with(&keeper.run().folder) {
                let then = from_file::reached_with(checkpoint.path(), checkpoint.header());
                let steps = steps_per_epoch(settings, &dataset);
                let (begin, said) =
                    from_file::begin(checkpoint.header(), then.as_ref(), &reached_with, steps);
                position = begin;
                said.into_iter().for_each(|text| context.event(Event::Warning { text }));
            }
            state = state.restore(checkpoint, &autodiff)?;
        }
        self.check_room(context, &keeper, state.checkpoint_bytes(trainable))?;
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
            if pieces > 1 {
                // Sums in another order: the bits differ from those of whole batches.
                m.other.insert("pieces_per_batch".into(), pieces.into());
            }
            if let Some(name) = experiment {
                m.experiment_name = name;
            }
        })?;
        let config = about.config.clone();
        let mut recorder = Recorder::open(context, settings, keeper, &position, about, after_best)?;
        let job = Job {
            settings,
            config: &config,
            label_dropout,
            lora_dropout,
            pieces,
            dataset,
            device: autodiff,
            others: &others,
            context,
        };
        let fitted =
            kernels::in_own_pool_of(threads, || fit(&job, &mut state, position, &mut recorder));
        let keeper = match fitted {
            Ok(()) => recorder.end(Status::Completed, None)?,
            Err(error) => {
                let status = match error.failure {
                    Failure::Interrupted(_) => Status::Interrupted,
                    _ => Status::Failed,
                };
                // The first error is the one to report.
                let _ = recorder.end(status, Some(error.message.clone()));
                return Err(error);
            }
        };
        self.conclude(context, &keeper, &directory)
    }

    /// The newest checkpoint to go on from, if there is any.
    fn newest(&self, context: &RunContext, keeper: &Keeper) -> Result<Option<Loaded>, StageError> {
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
            let anew = anew(&context.request);
            let message = format!("run {number} has no good checkpoint left; {anew}");
            return Err(StageError::new(Failure::Storage, message));
        }
        from_file::load(self.settings, &context.root)
    }

    /// Whether there is no checkpoint of the run's own to go on from.
    fn begins_from_file(&self, choice: &Choice) -> bool {
        let new = match choice {
            Choice::New { .. } | Choice::Empty(_) => true,
            Choice::Existing(existing) => has_nothing(&existing.0, &existing.1),
        };
        new && self.settings.checkpoint.resume_checkpoint.is_some()
    }

    fn conclude(
        &self,
        context: &RunContext,
        keeper: &Keeper,
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
        let merit = value.map(|value| self.settings.checkpoint.mode.merit(value));
        let next =
            best.as_ref().map(|best| Next { merit, ..draw(&format!("{directory}/{}", best.path)) });
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
        from_file::files(self.settings)
    }

    /// Digests of files that decide the result.
    pub fn content(&self, root: &Path) -> BTreeMap<String, String> {
        from_file::content(self.settings, root)
    }

    /// The folder of its numbered runs, relative to the project.
    pub fn folder(&self) -> PathBuf {
        self.settings.checkpoint.base_dir.as_deref().unwrap_or(self.base_dir).into()
    }
}

/// The devices of a training, by what they do.
struct Several {
    /// With autodiff.
    main: Device,
    others: Vec<Other>,
    /// Threads of the main one, if it is not to have all cores.
    threads: Option<usize>,
    /// Of all, for people and metadata.
    name: String,
}

impl Several {
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
        let other = |d: ResolvedDevice| {
            let threads = if d.is_gpu { None } else { Some(threads(&d).unwrap_or(cores)) };
            Other { device: d.device.autodiff(), name: d.name, threads }
        };
        let own = threads(&main);
        Ok(Self {
            main: main.device.autodiff(),
            others: devices.map(other).collect(),
            threads: own,
            name,
        })
    }
}

pub(super) fn setting(message: impl Into<String>) -> StageError {
    StageError::new(Failure::Setting, message)
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
fn steps_per_epoch(settings: &FitSettings, dataset: &Dataset) -> u64 {
    let images = dataset.indices(Split::Train).len();
    batches(Split::Train, images, settings.batch_size).div_ceil(settings.accumulate_grad_batches)
        as u64
}

/// Whether no epoch's result stands in a run, nor a part of one: what it was begun with can still
/// be another.
fn has_nothing(run: &Run, metadata: &Metadata) -> bool {
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
fn keep_base(run: &Run, base: &ModelFile) -> Result<(), StageError> {
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
    fn choose(
        &self,
        request: &Request,
        pipeline: &str,
        stage: &StageId,
        wanted: &Wanted,
    ) -> Result<Choice, StageError> {
        let policy = &self.settings.checkpoint;
        let runs = self.runs(wanted.root);
        let resume = request.resume || (policy.resume_from_run.is_some() && !request.force);
        let number = self.number(request);
        let setting = |message: String| StageError::new(Failure::Setting, message);

        if let Some(number) = number {
            let Some(run) = runs.find(number) else {
                let moved =
                    |found: &(Run, Metadata)| found.0.number.0 == number && wanted.fits(&found.1);
                let found = elsewhere::runs(wanted.root, runs.folder(), pipeline, stage)
                    .into_iter()
                    .rfind(moved);
                if let (Some(found), false) = (found, request.force) {
                    return Ok(Choice::Existing(Box::new(found)));
                }
                let reason = match resume {
                    true => format!("no checkpoint found for run {number}; starting new training"),
                    false => format!("run {number} is new"),
                };
                return Ok(Choice::New { number: Some(number), reason, changes: Vec::new() });
            };
            if request.force {
                return Err(setting(format!(
                    "run {number} exists; `--force` needs a number that is free, or none"
                )));
            }
            if !run.is_begun() {
                return match run.is_empty() {
                    true => Ok(Choice::Empty(run)),
                    false => Err(setting(format!(
                        "run {number} has no metadata.json, so nobody knows what trained it: bring that file back (half \
                         a copy?), or choose another number"
                    ))),
                };
            }
            let metadata = run.metadata()?;
            return match (goes_on(wanted, &run, &metadata), is_lost(&run, &metadata)) {
                (false, _) => Err(setting(self.refusal(number, wanted, &metadata))),
                (true, true) => Err(setting(format!(
                    "run {number} {LOST}; start a new run by leaving the number out"
                ))),
                (true, false) => Ok(Choice::Existing(Box::new((run, metadata)))),
            };
        }

        let shelf = Shelf::of(&runs, pipeline, stage.as_str());
        if request.force {
            return Ok(Choice::New { number: None, reason: "forced".into(), changes: Vec::new() });
        }
        let epochs = self.settings.epochs;
        let known = shelf.fitting(|_, m| wanted.fits(m), epochs);
        if let Some(known) =
            known.or_else(|| shelf.fitting(|run, m| goes_on(wanted, run, m), epochs))
        {
            return Ok(Choice::Existing(Box::new(known.clone())));
        }
        if shelf.newest().is_none() {
            let all = elsewhere::runs(wanted.root, runs.folder(), pipeline, stage);
            if let Some(found) = all.into_iter().rfind(|(_, metadata)| wanted.fits(metadata)) {
                return Ok(Choice::Existing(Box::new(found)));
            }
        }
        let (reason, changes) = match shelf.newest() {
            None if resume => ("no checkpoint found; starting new training".to_owned(), Vec::new()),
            None => ("no run yet".to_owned(), Vec::new()),
            Some((run, m)) => {
                let (changes, words) = wanted.changes(m);
                if resume && !changes.is_empty() {
                    return Err(setting(self.refusal(run.number.0, wanted, m)));
                }
                let help = match &self.horizon_help(&changes) {
                    Some(help) if changes.len() == 1 => format!("; {help}"),
                    _ => String::new(),
                };
                let why = match changes.is_empty() {
                    true => format!("run {} {LOST}", run.number),
                    false => words,
                };
                (format!("{why} (new run_{}{help})", shelf.next()), changes)
            }
        };
        let reason = std::iter::once(reason)
            .chain(shelf.remarks(|m| wanted.fits(m)))
            .collect::<Vec<_>>()
            .join("; ");
        Ok(Choice::New { number: None, reason, changes })
    }

    /// Why a run cannot be gone on with.
    fn refusal(&self, number: u32, wanted: &Wanted, run: &Metadata) -> String {
        let (different, words) = wanted.changes(run);
        let only_data = wanted.settings_changed(run).is_empty();
        let (what, back) = match only_data {
            true => ("on other images", "put the old images back"),
            false => ("with other settings", "go on with the settings it was begun with"),
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
        Some(match learns {
            true => {
                format!(
                    "a {kind} schedule depends on its length: extend it with `schedule_epochs: {old}`"
                )
            }
            false => format!(
                "a {kind} schedule depends on its length, and this one ends at a learning rate of 0 after epoch {old}, \
                 so that more epochs of the same run would learn nothing: keep `epochs: {old}`"
            ),
        })
    }

    /// Fails if not even one checkpoint of `each` bytes fits on the disk; warns if not all that
    /// will be kept fit.
    fn check_room(
        &self,
        context: &RunContext,
        keeper: &Keeper,
        each: u64,
    ) -> Result<(), StageError> {
        let (policy, epochs) = (&self.settings.checkpoint, self.settings.epochs);
        let folder = &keeper.run().folder;
        let Some(free) = room::free(folder).filter(|_| policy.enabled) else { return Ok(()) };
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
        choice: Choice,
        dataset: &Dataset,
        device: &str,
    ) -> Result<Keeper, StageError> {
        let policy = self.settings.checkpoint.clone();
        let runs = self.runs(&context.root);
        let run = match choice {
            Choice::Existing(existing) => {
                let (run, metadata) = *existing;
                let mut keeper = Keeper::reopen(run, policy)?;
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
            Choice::Empty(run) => run,
            Choice::New { number: Some(number), reason, .. } => {
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
            Choice::New { number: None, reason, .. } => {
                if context.request.resume {
                    context.event(Event::Message { text: capitalized(&reason) });
                }
                // A folder without metadata is one that a process claimed and died before it wrote
                // any.
                let abandoned = runs.list().pop().filter(|run| !run.is_begun() && run.is_empty());
                let mut run = abandoned.map_or_else(|| runs.create(), Ok)?;
                loop {
                    let metadata = self.first_metadata(context, &run, dataset, device);
                    match Keeper::begin(run, policy.clone(), metadata) {
                        // Not abandoned: its process was just about to begin.
                        Err(StoreError::Held { .. }) => run = runs.create()?,
                        begun => return Ok(begun?),
                    }
                }
            }
        };
        let metadata = self.first_metadata(context, &run, dataset, device);
        Ok(Keeper::begin(run, policy, metadata)?)
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
fn goes_on(wanted: &Wanted, run: &Run, metadata: &Metadata) -> bool {
    let untouched = || has_nothing(run, metadata) && run.holder().is_none();
    wanted.settings_changed(metadata).is_empty()
        && (wanted.data_changed(metadata).is_none() || untouched())
}

/// How one starts anew.
fn anew(request: &Request) -> &'static str {
    match request.resume || request.run_number.is_some() {
        true => "start a new run with --force, without --resume and --run-number",
        false => "start a new run with --force",
    }
}

/// `config.yaml`: a pipeline file that repeats the run.
fn write_config(keeper: &Keeper, context: &RunContext) -> Result<(), StageError> {
    let path = keeper.run().config_path();
    let stage = context.stage.as_str();
    let mut again = Line::new(["pipe", "run"])
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

/// The command that draws from a checkpoint.
pub(super) fn draw(checkpoint: &str) -> Next {
    let line = Line::new(["pipe", "sample"]).path(Path::new(checkpoint));
    line.options(["--n=16"]).word("-o").word("samples.png").into()
}

//! A `trainer` stage: what stands on disk for it, and a training from its beginning to its end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use pipe_core::progress::Event;
use pipe_engine::command::{InputFiles, input_files, there_is_no};
use pipe_engine::kind::{
    ContentContext, Diagnostic, Failure, Files, InspectContext, Inspection, Outcome, PipelineView,
    Preview, Reference, RunContext, Stage, StageError, StageState,
};
use pipe_engine::policy::Halving;
use pipe_engine::state::Output;
use pipe_fs::atomic;
use pipe_runs::{CheckpointManager, Loaded, Place, Run, SCRATCH, Status};
use serde_json::Value;

use super::data::{self, Inputs};
use super::job::{Job, PROTOCOL, SaveEvery};
use super::process::{folder_of_socket, judge, train};
use super::session::{Position, Session};
use super::settings::TrainerSettings;
use crate::artifacts::{Checkpoints, ProgramPreview, checkpoint_reference};
use crate::run_match::RunCriteria;
use crate::stopping::{
    StoppingRules, TotalEpochs, lint_halving, lint_mode, lint_patience, note_ending,
    note_finished_early,
};
use crate::training::{Changeable, Training, shown};
use crate::write_config;

pub(super) struct TrainerStage {
    settings: TrainerSettings,
    value: Value,
    /// Its inputs as this process saw them last, so that they are read once for a plan and a run.
    seen: Mutex<Vec<Output>>,
}

impl TrainerStage {
    pub fn new(settings: TrainerSettings) -> Self {
        let value = serde_json::to_value(&settings).unwrap_or_default();
        Self { settings, value, seen: Mutex::default() }
    }

    fn training(&self) -> Training<'_> {
        Training {
            policy: &self.settings.checkpoint,
            settings: &self.value,
            base_dir: "checkpoints/trainer",
            experiment_name: self.settings.experiment_name.as_deref(),
            seed: self.settings.seed,
            epochs: TotalEpochs::Fixed(self.settings.epochs),
            stopping: self.settings.stopping(),
            resumes: self.settings.resumable,
            advice: &|_| None,
            pace: &|_| None,
            // What a program does with its epochs is not known here.
            same_until: &|_, _| None,
            // What a position inside an epoch means to a program is not known here.
            changeable: &|key, _| key.starts_with("settings.").then_some(Changeable::BetweenEpochs),
        }
    }
}

impl Stage for TrainerStage {
    fn settings(&self) -> Value {
        self.value.clone()
    }

    fn references(&self) -> Vec<Reference> {
        let init = self.settings.init_stage();
        init.map(|stage| checkpoint_reference("init", stage)).into_iter().collect()
    }

    fn files(&self) -> Files {
        let key = |pattern: &String| {
            let is_init = Some(pattern.as_str()) == self.settings.init_file();
            (if is_init { "init" } else { "inputs" }.to_owned(), pattern.clone())
        };
        Files { reads: self.settings.patterns().iter().map(key).collect(), writes: Vec::new() }
    }

    fn spans_nodes(&self) -> bool {
        true
    }

    fn runs(&self) -> Option<PathBuf> {
        Some(self.training().folder())
    }

    fn content(&self, at: &ContentContext) -> Result<BTreeMap<String, String>, StageError> {
        Ok(data::content(&self.inputs(at)?))
    }

    fn preview(&self, _: &PipelineView) -> Option<Preview> {
        Some(std::sync::Arc::new(ProgramPreview))
    }

    fn lint(&self, _: &PipelineView) -> Vec<Diagnostic> {
        let policy = &self.settings.checkpoint;
        let mut found = Vec::new();
        if !policy.enabled {
            let message =
                "without checkpoints nothing can be resumed, and no other stage can take the model";
            found.push(Diagnostic::warning("checkpoint.enabled", message));
        }
        if policy.enabled && policy.save_every_n_epochs > self.settings.epochs {
            let message = format!("of {} epochs only the last is saved", self.settings.epochs);
            found.push(Diagnostic::warning("checkpoint.save_every_n_epochs", message));
        }
        found.extend(lint_mode("checkpoint.mode", &policy.monitor, policy.mode));
        let rule = self.settings.early_stopping.as_ref();
        found.extend(rule.and_then(|rule| lint_patience(rule, self.settings.epochs)));
        found
    }

    fn lint_halving(&self, halving: &Halving, _: &PipelineView) -> Vec<Diagnostic> {
        lint_halving(halving).into_iter().collect()
    }

    fn inspect(&self, o: &InspectContext) -> Result<Inspection, StageError> {
        let inputs = Inputs::of(o.manifest);
        let criteria = RunCriteria {
            manifest: o.manifest,
            unknown: o.unknown,
            is_data: &data::is_data,
            data: Some(&inputs),
        };
        let mut seen = self.training().inspect(o, &criteria, |_| Ok(()))?;
        let patterns = self.settings.patterns();
        let missing = patterns.iter().find(|pattern| !o.manifest.contains_key(&data::key(pattern)));
        if let (StageState::Absent { reason, .. }, Some(pattern)) = (&mut seen.state, missing) {
            // A stage before this one may bring it.
            *reason = there_is_no(pattern, o.root);
        }
        Ok(seen)
    }

    fn run(&self, context: &RunContext) -> Result<Outcome, StageError> {
        if context.aside.is_some() {
            return self.aside().run_in(context, &mut None);
        }
        let mut opened = None;
        let ended = self.run_in(context, &mut opened);
        if let (Err(error), Some(run)) = (&ended, opened) {
            // The first error is the one to report.
            let _ = CheckpointManager::record_failed_start(&run, &error.message);
        }
        ended
    }
}

impl TrainerStage {
    /// The same for a part of a run that is done once more.
    fn aside(&self) -> Self {
        let mut settings = self.settings.clone();
        settings.checkpoint = settings.checkpoint.aside();
        Self { settings, value: self.value.clone(), seen: Mutex::default() }
    }

    /// What ends it before its last epoch.
    fn stopping(&self, context: &RunContext) -> StoppingRules {
        let rules = self.settings.stopping();
        match &context.aside {
            Some(aside) => rules.aside(aside.until),
            None => rules.until(context.request.until).begun(context.request.walltime),
        }
    }

    /// Trains; `opened` is the run as soon as there is one, whatever happens behind it.
    fn run_in(
        &self,
        context: &RunContext,
        opened: &mut Option<Run>,
    ) -> Result<Outcome, StageError> {
        let training = self.training();
        let init = self.init(context)?;
        let read = self.read_inputs(context)?;
        context.record_outputs(Vec::new(), read, Vec::new())?;

        // ---- The run: an old one to go on with, or a new one
        let device = match context.gpu {
            Some(gpu) => format!("gpu:{gpu}"),
            None => "the program's".to_owned(),
        };
        let mut manager = self.open_run(context, &device)?;
        *opened = Some(manager.run().clone());
        write_config(&manager, context)?;

        // ---- Where to begin
        let start = training.newest(context, &manager)?;
        let position = start.as_ref().map(|s| Position::of(s.header())).unwrap_or_default();
        let seconds = start.as_ref().map_or(0.0, |start| start.header().seconds_in_epoch());
        self.tell_begin(context, &manager, start.as_ref(), &device);
        let at = Place { epoch: position.epoch, step_in_epoch: position.step_in_epoch };
        training.note_running(context, &mut manager, at, &device)?;

        // ---- The program, and how it ended
        let scratch = empty_scratch(manager.run())?;
        let folder = folder_of_socket()?;
        let job =
            self.job(context, &manager, &scratch, folder.path(), (start.as_ref(), init), position);
        if job.micro_batch_splits > 1 {
            // Sums in another order: the bits differ from those of whole batches.
            manager.update(|m| {
                m.other.insert("pieces_per_batch".into(), job.micro_batch_splits.into());
            })?;
        }
        let (target, stopping) = (self.settings.epochs, self.stopping(context));
        let (policy, ends) = (&self.settings.checkpoint, (target, stopping, self.settings.seed));
        let mut session =
            Session::open(context, policy, ends, scratch.clone(), manager, (position, seconds))?;
        let ended = if position.epoch >= target || session.is_over() {
            // Its process ended between the last checkpoint and the end.
            Ok(())
        } else {
            train(&self.settings, context, &job, folder.path(), &mut session)
        };
        let ended = judge(&self.settings, context, &session, ended);
        let (finished, ending) = (session.finished.clone(), session.ending.clone());
        let mut manager = session.close()?;
        let _ = atomic::remove_tree(manager.run().disk(), &scratch);
        match ended {
            Ok(()) => {
                let is_early = job.target > done(&manager);
                if let Some(ending) = ending.filter(|_| is_early) {
                    manager.update(|m| note_ending(m, &ending))?;
                } else if let Some(why) = finished.filter(|_| is_early) {
                    manager.update(|m| note_finished_early(m, &why))?;
                }
                manager.end(Status::Completed, None)?;
                Ok(training.outcome(context, &manager, |_| None))
            }
            Err(error) => {
                let status = match error.failure {
                    Failure::Interrupted(_) => Status::Interrupted,
                    _ => Status::Failed,
                };
                // The first error is the one to report.
                let _ = manager.end(status, Some(error.message.clone()));
                Err(error)
            }
        }
    }

    /// The run that is meant, held by this process.
    fn open_run(
        &self,
        context: &RunContext,
        device: &str,
    ) -> Result<CheckpointManager, StageError> {
        let (training, inputs) = (self.training(), Inputs::of(&context.manifest));
        let criteria = RunCriteria {
            manifest: &context.manifest,
            unknown: &[],
            is_data: &data::is_data,
            data: Some(&inputs),
        };
        let (request, root) = (&context.request, &context.root);
        let selection = match &context.aside {
            // On which device its program computes is not known here.
            Some(aside) => training.select_aside(context, aside, &criteria, None)?,
            None => {
                training.select_run(request, &context.pipeline, &context.stage, root, &criteria)?
            }
        };
        training.open_run(context, selection, &inputs.record(), device)
    }

    /// The weights that a new training begins with.
    fn init(&self, context: &RunContext) -> Result<Option<PathBuf>, StageError> {
        if let Some(file) = self.settings.init_file() {
            return Ok(Some(context.root.join(file)));
        }
        let Some(stage) = self.settings.init_stage() else { return Ok(None) };
        let best = context.inputs.get("init").and_then(Checkpoints::best_of);
        let path = best.map(|best| best.path);
        let none = || StageError::setting(format!("stage {stage} has no checkpoint")).at("init");
        path.ok_or_else(none).map(Some)
    }

    /// The files that the program reads.
    fn inputs(&self, at: &ContentContext) -> Result<Vec<InputFiles>, StageError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let inputs = input_files(at, &self.settings.patterns(), &seen)?;
        *seen = inputs.iter().filter_map(|input| input.files.as_ref()).flatten().cloned().collect();
        Ok(inputs)
    }

    /// The same before it begins, when all must be there.
    fn read_inputs(&self, context: &RunContext) -> Result<Vec<Output>, StageError> {
        let mut read = Vec::new();
        for InputFiles { pattern, files } in self.inputs(&context.content_context())? {
            let missing = || StageError::new(Failure::Input, there_is_no(&pattern, &context.root));
            read.extend(files.ok_or_else(missing)?);
        }
        read.sort_by(|a, b| a.path.cmp(&b.path));
        read.dedup_by(|a, b| a.path == b.path);
        Ok(read)
    }

    fn tell_begin(
        &self,
        context: &RunContext,
        manager: &CheckpointManager,
        start: Option<&Loaded>,
        device: &str,
    ) {
        context.event(Event::WorkOpened {
            number: manager.run().number.0,
            title: manager.metadata().experiment_name.clone(),
            directory: shown(&manager.run().folder, context),
            device: device.to_owned(),
            size: 0,
            changing: 0,
        });
        let Some(start) = start else { return };
        let header = start.header();
        let history = &manager.metadata().history;
        let previous = history.iter().rfind(|e| e.epoch == header.epoch).map(|e| e.metrics.clone());
        context.event(Event::Resumed {
            file: shown(start.path(), context),
            position: header.epoch,
            step: header.step_in_epoch,
            metrics: previous.unwrap_or_else(|| header.metrics.clone()),
        });
    }

    fn job(
        &self,
        context: &RunContext,
        manager: &CheckpointManager,
        scratch: &Path,
        folder: &Path,
        (start, init): (Option<&Loaded>, Option<PathBuf>),
        position: Position,
    ) -> Job {
        let settings = &self.settings;
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Job {
            protocol: PROTOCOL,
            pipeline: context.pipeline.clone(),
            stage: context.stage.to_string(),
            run: manager.run().number.0,
            run_dir: absolute(&manager.run().folder),
            settings: settings.settings.clone(),
            seed: settings.seed,
            unit: "epoch".to_owned(),
            target: settings.epochs,
            done: position.epoch,
            step: position.step,
            step_in_epoch: position.step_in_epoch,
            start: start.map(|start| absolute(start.path())),
            init: init.map(|init| absolute(&init)),
            scratch: absolute(scratch),
            save_every: SaveEvery {
                epochs: settings.checkpoint.save_every_n_epochs,
                steps: settings.checkpoint.save_every_n_steps,
            },
            micro_batch_splits: 1u64
                .checked_shl(context.adjustment.micro_batch_splits)
                .unwrap_or(u64::MAX),
            devices: context.gpu.into_iter().collect(),
            inputs: settings.inputs.clone(),
            socket: folder.join("socket"),
        }
    }
}

/// Epochs that a run has behind it.
fn done(manager: &CheckpointManager) -> u64 {
    manager.metadata().history.last().map_or(0, |last| last.epoch)
}

/// The program's own folder in the run, empty.
fn empty_scratch(run: &Run) -> Result<PathBuf, StageError> {
    let scratch = run.folder.join(SCRATCH);
    if scratch.exists() {
        atomic::remove_tree(run.disk(), &scratch)?;
    }
    atomic::create_needless_folder(run.disk(), &scratch).map_err(|e| {
        StageError::new(Failure::Storage, format!("failed to make {}: {e}", scratch.display()))
    })?;
    Ok(scratch)
}

//! A run with the settings that it recorded, for commands that do a part of it once more.

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pipe_core::stop::Stop;
use pipe_engine::exec::run_aside;
use pipe_engine::graph::{Graph, Targets};
use pipe_engine::kind::{Aside, Failure, StageId};
use pipe_engine::pipeline_file::{self, Override};
use pipe_engine::session::Session;
use pipe_fs::ProjectRoot;
use pipe_runs::{CheckpointRecord, Metadata, Run};
use pipe_train::stages::RunFiles;
use pipe_trainer::aside::{Repeat, Slot};

use super::run_folders::folders;
use super::runs::named::{Name, one};
use super::{CliError, ExitCode, Kinds, project, signals};
use crate::report::{self, Output, message};

/// Which run is meant, and where it may be done once more.
#[derive(clap::Args)]
pub struct RecordedRunArgs {
    /// The run: its number; `STAGE/N` or `FOLDER/N` where several have it
    #[arg(value_name = "RUN")]
    run: Name,
    /// Folder of numbered runs; all of the project if unset
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Go on where the run was trained on another device, whose bits may be others
    #[arg(long)]
    any_device: bool,
}

/// A run with the pipeline that it recorded.
pub struct RecordedRun {
    pub run: Run,
    pub metadata: Metadata,
    session: Session,
    stage: StageId,
    any_device: bool,
}

impl RecordedRun {
    /// Finds the run that is meant, and reads its settings.
    ///
    /// # Errors
    /// There is none, or its `config.yaml` is gone or wrong.
    pub fn open(args: &RecordedRunArgs, kinds: &Kinds) -> Result<Self, CliError> {
        project::enter(None)?;
        let run = one(&folders(args.dir.as_deref())?, &args.run)?;
        let metadata = run.current_metadata().map_err(CliError::failed)?;
        let (session, stage) = session(&run, &metadata, kinds, &[])?;
        Ok(Self { run, metadata, session, stage, any_device: args.any_device })
    }

    /// The word after `kind:` of its stage.
    pub fn kind(&self) -> &str {
        self.session.graph.stage(&self.stage).map_or("", |stage| &stage.kind)
    }

    /// The project that it belongs to.
    pub fn root(&self) -> &ProjectRoot {
        &self.session.root
    }

    /// Whether a person said that the bits may be others.
    pub fn may_differ(&self) -> bool {
        self.any_device
    }

    /// Refuses an epoch that it has not completed, or does not know.
    pub fn require_epoch(&self, epoch: u64) -> Result<(), CliError> {
        require_epoch(&self.run, &self.metadata, epoch)
    }

    /// Prepares a part of it in a folder aside, from the newest kept checkpoint that `may_begin`
    /// allows.
    pub fn prepare(
        &self,
        slot: &Slot,
        may_begin: &dyn Fn(&CheckpointRecord) -> bool,
    ) -> Result<Repeat, CliError> {
        let prepared = Repeat::prepare(&self.run, &self.metadata, &slot.folder, may_begin);
        let repeat = prepared.map_err(|error| CliError::stage(self.stage.as_str(), &error))?;
        for passed in &repeat.passed_over {
            message::warning(&format!("passed over a kept checkpoint: {passed}"));
        }
        Ok(repeat)
    }

    /// Trains a prepared part up to an epoch. An exit code, if a signal ended it before that.
    pub fn train(
        &self,
        output: &Output,
        (slot, repeat): (&Slot, &Repeat),
        until: u64,
        observer: Option<Arc<dyn Any + Send + Sync>>,
    ) -> Result<Option<ExitCode>, CliError> {
        let stop = Stop::default();
        signals::watch_with_message(stop.clone(), |_| {
            "stopping; nothing of the run was changed".to_owned()
        })?;
        let report = report::reporter(output, false);
        let aside = Aside {
            folder: repeat.run.folder.clone(),
            until,
            any_device: self.any_device,
            micro_batch_splits: repeat.micro_batch_splits,
            observer,
        };
        let execution = self.session.execution(&stop, report.as_ref());
        let ended = run_aside(&execution, &self.stage, aside, &slot.lock);
        report.finish();
        report::stderr::flush();
        match (ended, stop.requested()) {
            (Ok(_), _) => Ok(None),
            (Err((_, error)), Some(signal)) if matches!(error.failure, Failure::Interrupted(_)) => {
                Ok(Some(ExitCode(signal.exit_code())))
            }
            (Err((stage, error)), _) => Err(CliError::stage(stage.as_str(), &error)),
        }
    }
}

/// The pipeline that a run recorded, with settings on top, and the stage that it is a run of.
///
/// # Errors
/// Its `config.yaml` is gone or wrong, or does not take the settings.
pub fn session(
    run: &Run,
    metadata: &Metadata,
    kinds: &Kinds,
    overrides: &[Override],
) -> Result<(Session, StageId), CliError> {
    let (root, file) = (project::root()?, run.config_path());
    let (number, shown) = (run.number, file.display());
    if !file.exists() {
        let text = format!("run {number} has no {shown}, which tells its settings");
        return Err(CliError::usage(text));
    }
    let graph = Graph::build(pipeline_file::load(&root, &file, kinds, overrides)?)?;
    let wanted = Targets { until: vec![metadata.stage.clone()], ..Targets::default() };
    let session = Session::of(&root, graph, &wanted)?.formats(&RunFiles);
    let named = session.selection.named.iter().next().cloned();
    let missing = || CliError::usage(format!("{shown} has no stage {}", metadata.stage));
    Ok((session, named.ok_or_else(missing)?))
}

/// Refuses an epoch that a run has not completed, or does not know.
pub fn require_epoch(run: &Run, metadata: &Metadata, epoch: u64) -> Result<(), CliError> {
    let (number, history) = (run.number, &metadata.history);
    if history.iter().any(|e| e.epoch == epoch) {
        return Ok(());
    }
    Err(CliError::usage(match (history.first(), history.last()) {
        (Some(first), _) if epoch < first.epoch => format!(
            "run {number} knows nothing of epoch {epoch}: its history begins with epoch {}",
            first.epoch
        ),
        (_, last) => format!(
            "run {number} has not completed epoch {epoch}: it has come to epoch {}",
            last.map_or(0, |last| last.epoch)
        ),
    }))
}

/// Where a part begins, in words.
pub fn beginning(repeat: &Repeat) -> String {
    match &repeat.start {
        Some(start) => format!("the checkpoint of epoch {}", start.epoch),
        None => "the run's beginning".to_owned(),
    }
}

/// A folder of the project for what is done once more.
pub fn slot(root: &ProjectRoot) -> Result<Slot, CliError> {
    Slot::take(root).map_err(CliError::failed)
}

/// A path as it is typed where the program was started.
pub fn shown(path: &Path) -> String {
    project::from_root(path).display().to_string()
}

//! `pipe save RUN` and `pipe sample RUN`: what a person asks of a training that is under way.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use pipe_core::stop::{Signal, Stop};
use pipe_engine::policy::Span;
use pipe_runs::{Checkpoint, LiveRequest, Metadata, Run, Status, is_run_file};
use serde_json::json;

use super::run_folders::folders;
use super::runs::named::{Name, one};
use super::{CliError, ExitCode, files, project, signals};
use crate::report::message;
use crate::report::stdout::say;

/// The run is looked at so often.
const LOOK: Duration = Duration::from_millis(50);
/// After this time it is said that the training has not answered yet.
const QUIET: Duration = Duration::from_secs(3);

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  pipe save 3\n  cp \"$(pipe save base/3)\" now.ckpt")]
pub struct SaveArguments {
    /// The run that is being trained: its number; `STAGE/N` or `FOLDER/N` where several have it
    #[arg(value_name = "RUN")]
    run: Name,
    /// Folder of numbered runs; all of the project if unset
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Give up after this time, such as `10m`
    #[arg(long, value_name = "TIME", value_parser = span, default_value = "10m")]
    wait: Span,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// What a signal ends a command with that only waited.
pub(super) fn interrupted() -> ExitCode {
    ExitCode(Signal::Interrupt.exit_code())
}

fn span(text: &str) -> Result<Span, String> {
    serde_json::from_value(json!(text)).map_err(|e| e.to_string())
}

/// Asks for a checkpoint, and prints where it stands.
pub fn save(arguments: SaveArguments) -> Result<ExitCode, CliError> {
    project::enter(None)?;
    let run = one(&folders(arguments.dir.as_deref())?, &arguments.run)?;
    let metadata = live(&run)?;
    if metadata.settings.pointer("/checkpoint/enabled") == Some(&json!(false)) {
        let message = format!("run {} is trained without checkpoints", run.number);
        return Err(CliError::usage(message).note("its stage has checkpoint.enabled: false"));
    }
    let before = Newest::of(&metadata);
    let found = wait(&run, LiveRequest::Checkpoint, arguments.wait.0, || {
        Ok(Newest::of(&run.metadata().map_err(CliError::failed)?)
            .filter(|n| Some(n) != before.as_ref()))
    })?;
    let Some(Newest { path, epoch, step, .. }) = found else { return Ok(interrupted()) };
    let path = project::from_root(&run.folder.join(path));
    if arguments.json {
        let run = run.number;
        say!("{:#}", json!({"run_number": run, "path": path, "epoch": epoch, "global_step": step}));
    } else {
        say!("{}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Where a picture of a run comes from.
pub enum PictureSource {
    /// The run is being trained, and can be asked.
    Training(Run),
    /// Its best checkpoint.
    Checkpoint(PathBuf),
}

/// Where a picture of the run of this name comes from.
///
/// # Errors
/// It is neither being trained nor has it a checkpoint, or a program made that.
pub fn picture_source(name: &Name) -> Result<PictureSource, CliError> {
    let run = files::named_run(name)?;
    let error = match live(&run) {
        Ok(_) => return Ok(PictureSource::Training(run)),
        Err(error) => error,
    };
    let Some(file) = files::best_or_newest(&run)? else { return Err(error) };
    if Checkpoint::open(&file).map_err(CliError::failed)?.is_of_program() {
        return Err(error.note("a training program made its checkpoints, and draws from them"));
    }
    let status = run.current_metadata().map_err(CliError::failed)?.status.name();
    message::note(&format!("run {} is {status}; drawing from its checkpoint", run.number));
    Ok(PictureSource::Checkpoint(file))
}

/// Asks for a picture, and gives its path once it stands; `None` after a signal.
pub fn sample(run: &Run) -> Result<Option<PathBuf>, CliError> {
    let before = newest_picture(run);
    let find = || Ok(newest_picture(run).filter(|newest| Some(newest) != before.as_ref()));
    let found = wait(run, LiveRequest::Sample, Duration::from_secs(3600), find)?;
    Ok(found.map(|(_, path)| project::from_root(&path)))
}

/// What a training says of itself while it is under way.
///
/// # Errors
/// It is not.
fn live(run: &Run) -> Result<Metadata, CliError> {
    let metadata = run.current_metadata().map_err(CliError::failed)?;
    if metadata.status == Status::Running && run.holder().is_some() {
        return Ok(metadata);
    }
    let status = metadata.status.name();
    Err(CliError::usage(format!("run {} is not being trained: it is {status}", run.number)))
}

/// Asks, and looks until `find` finds what was asked for. `None` after a signal.
///
/// # Errors
/// The training ended before, or the time is over. The request is taken back.
fn wait<T>(
    run: &Run,
    request: LiveRequest,
    limit: Duration,
    mut find: impl FnMut() -> Result<Option<T>, CliError>,
) -> Result<Option<T>, CliError> {
    let stop = Stop::default();
    signals::stop_on_signal(stop.clone())?;
    run.ask(request).map_err(CliError::failed)?;
    let (started, mut is_told) = (Instant::now(), false);
    let answer = loop {
        let is_over = run.holder().is_none();
        match find() {
            Ok(None) => {}
            found => break found,
        }
        if is_over {
            let text = format!("the training of run {} ended before it did", run.number);
            break Err(CliError::failed(text));
        }
        if started.elapsed() >= limit {
            let text = format!("run {} has not answered for {}", run.number, Span(limit));
            break Err(
                CliError::failed(text).note("a program of your own must look at each answer")
            );
        }
        if !is_told && started.elapsed() >= QUIET {
            is_told = true;
            message::note(&format!("run {} does it after its step; waiting", run.number));
        }
        if !stop.sleep(LOOK) {
            break Ok(None);
        }
    };
    // One that was not heard is not to be heard later.
    run.take_request(request).map_err(CliError::failed)?;
    answer
}

/// The newest checkpoint of a run.
#[derive(Debug, PartialEq)]
struct Newest {
    saved_at: chrono::DateTime<chrono::Utc>,
    step: u64,
    epoch: u64,
    path: PathBuf,
}

impl Newest {
    fn of(metadata: &Metadata) -> Option<Self> {
        let whole = metadata.checkpoints.iter();
        let whole = whole.map(|c| (c.saved_at, c.global_step, c.epoch, &c.path));
        let inside = metadata.partial_checkpoint.iter();
        let inside = inside.map(|c| (c.saved_at, c.global_step, c.epoch, &c.path));
        let all = whole.chain(inside).map(|(saved_at, step, epoch, path)| {
            let path = path.as_ref().to_owned();
            Self { saved_at, step, epoch, path }
        });
        all.max_by_key(|newest| (newest.step, newest.saved_at))
    }
}

/// The picture of a run that was written last, and when.
fn newest_picture(run: &Run) -> Option<(SystemTime, PathBuf)> {
    let files = std::fs::read_dir(run.folder.join("samples")).ok()?.flatten();
    let pictures = files
        .filter(|file| is_run_file(&format!("samples/{}", file.file_name().to_string_lossy())));
    let dated =
        pictures.filter_map(|file| Some((file.metadata().ok()?.modified().ok()?, file.path())));
    dated.max()
}

//! A training program from its start to its end, and what its end means.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pipe_core::progress::Event;
use pipe_engine::command::{Launch, Starter, launch};
use pipe_engine::kind::{Failure, RunContext, StageError};
use pipe_engine::pipeline_file::environment;
use tempfile::TempDir;

use super::job::Job;
use super::message::Reply;
use super::session::{Refusal, Session};
use super::settings::TrainerSettings;
#[cfg(unix)]
use super::tasks::Processes;

/// Messages are looked for so long before the rest is.
const LOOK: Duration = Duration::from_millis(50);
/// Bytes of the path of a folder for temporary files in which a socket fits: its address has 107 on
/// Linux and 103 on macOS, and `/pipe-XXXXXX/socket` are 19 of them.
const LONGEST_FOLDER: usize = 84;
/// Where the contract is described.
const PAGE: &str = "docs/trainers.md";

/// Runs the program, and carries out what it says.
#[cfg(unix)]
pub(super) fn train(
    settings: &TrainerSettings,
    context: &RunContext,
    job: &Job,
    folder: &Path,
    session: &mut Session,
) -> Result<(), StageError> {
    let env = environment_of(settings, context, job, folder)?;
    let processes = context.tasks.map(|tasks| Processes::new(tasks, settings.grace.0, folder, job));
    let processes = processes.transpose()?;
    let hear = |line: &str| processes.iter().for_each(|processes| processes.hear(line));
    let words = processes.as_ref().map(|processes| processes.words.clone());
    let starter = words.map(|words| Starter { words, hear: &hear });
    let place = settings.working_dir.as_ref();
    let place = place.map_or(context.root.to_path_buf(), |dir| context.root.join(dir));
    let (is_over, cancelled) = (AtomicBool::new(false), AtomicBool::new(false));
    let started = Launch {
        program: &settings.run,
        starter: starter.as_ref(),
        folder: &place,
        env: &env,
        grace: settings.grace.0,
        tells_all: false,
        cancelled: &cancelled,
    };
    std::thread::scope(|scope| {
        let server = super::server::Server::start(scope, &job.socket, &is_over);
        let server = server.map_err(no_socket)?;
        let program = scope.spawn(|| {
            let ended = launch(context, &started);
            is_over.store(true, Ordering::Relaxed);
            ended
        });
        let mut refused: Option<StageError> = None;
        let (mut line, mut over, mut overdue) = (0u64, None, false);
        while let Ok(said) = server.next(LOOK) {
            if !overdue && processes.as_ref().is_some_and(Processes::are_overdue) {
                overdue = true;
                cancelled.store(true, Ordering::Relaxed);
            }
            if session.is_over()
                && over.get_or_insert_with(Instant::now).elapsed() > settings.grace.0
            {
                // It does not read `stop`.
                cancelled.store(true, Ordering::Relaxed);
            }
            let Some(said) = said else { continue };
            line += 1;
            let answer = match (&refused, &said.line) {
                (Some(error), _) => Err(error.clone()),
                (None, Ok(text)) => answer(session, line, text),
                (None, Err(why)) => Err(breach(line, why)),
            };
            let stop = context.stop.requested().is_some() || session.ending.is_some();
            said.answer(match &answer {
                Ok(reply) => Reply {
                    stop,
                    save: reply.save || (stop && !session.is_all_saved()),
                    ..reply.clone()
                },
                Err(error) => {
                    Reply { error: Some(error.message.clone()), stop: true, ..Reply::default() }
                }
            });
            if let Err(error) = answer {
                cancelled.store(true, Ordering::Relaxed);
                refused.get_or_insert(error);
            }
        }
        let ended = program.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let is_crash = refused.is_none() && ended.as_ref().is_err_and(|end| end.is_crash);
        let ended = ended.map_err(StageError::from);
        let ended = match &processes {
            Some(processes) => processes.judge(context, session, ended, overdue),
            None => ended,
        };
        let ended = if is_crash { pass_over_crash(context, session, ended) } else { ended };
        refused.map_or(ended, Err)
    })
}

/// Passes over the crash of a program whose training is done. Libraries that take themselves down
/// at the end of a process do so now and then, above all where several processes learn together.
#[cfg(unix)]
fn pass_over_crash(
    context: &RunContext,
    session: &Session,
    ended: Result<(), StageError>,
) -> Result<(), StageError> {
    if let (Err(error), true) = (&ended, session.is_whole()) {
        let how = error.message.lines().next().unwrap_or_default().trim_end_matches(':');
        let text = format!("{how}, after the last epoch: the training is complete");
        context.event(Event::Warning { text });
        return Ok(());
    }
    ended
}

/// The reply to a line of the program's.
#[cfg(unix)]
fn answer(session: &mut Session, line: u64, text: &str) -> Result<Reply, StageError> {
    let reply = session.handle(text).map_err(|refusal| match refusal {
        Refusal::Failed(error) => error,
        Refusal::Broken(why) => breach(line, &why),
    })?;
    session.with_requests(reply)
}

/// The variables of the program besides those of this process, with the file that tells it its job.
/// Several processes find it in the run's folder, which their machines share.
#[cfg(unix)]
fn environment_of(
    settings: &TrainerSettings,
    context: &RunContext,
    job: &Job,
    folder: &Path,
) -> Result<BTreeMap<String, String>, StageError> {
    let file = match context.tasks {
        Some(_) => job.scratch.join(".pipe-job.json"),
        None => folder.join("job.json"),
    };
    let text = serde_json::to_string_pretty(job).unwrap_or_default();
    std::fs::write(&file, text).map_err(no_socket)?;
    let mut env = settings.env.clone();
    env.insert(environment::JOB.to_owned(), file.to_string_lossy().into_owned());
    with_own_program(&mut env);
    Ok(env)
}

#[cfg(not(unix))]
pub(super) fn train(
    _: &TrainerSettings,
    _: &RunContext,
    _: &Job,
    _: &Path,
    _: &mut Session,
) -> Result<(), StageError> {
    Err(StageError::setting("kind trainer needs Unix sockets, which this system does not have"))
}

/// Whether a program that ended so has done what it was to do; and why not, where it told
/// before that it would fail.
pub(super) fn judge(
    settings: &TrainerSettings,
    context: &RunContext,
    session: &Session,
    ended: Result<(), StageError>,
) -> Result<(), StageError> {
    if session.is_over() {
        // However it ended: it was told to, once there was nothing left to do.
        return Ok(());
    }
    if let (Some((failure, message)), None | Some(Failure::Command)) =
        (&session.failure, ended.as_ref().err().map(|error| error.failure))
    {
        return Err(StageError::new(*failure, told(*failure, message)));
    }
    ended?;
    let (done, target) = (session.position().epoch, settings.epochs);
    let failed = |text: String| Err(StageError::new(Failure::Command, text));
    if session.is_whole() {
        return Ok(());
    }
    if let Some(signal) = context.stop.requested() {
        let text = format!("stopped by {} after epoch {done}", signal.name());
        return Err(StageError::new(Failure::Interrupted(signal), text));
    }
    if !session.has_spoken {
        return failed(format!(
            "the program ended well and said nothing: it is to read the file that PIPE_JOB names, and to tell of its \
             epochs ({PAGE})"
        ));
    }
    if done < target && session.finished.is_none() && session.ending.is_none() {
        return failed(format!(
            "the program ended well after epoch {done} of {target}; one that ends early on purpose says `finished` \
             ({PAGE})"
        ));
    }
    failed(format!(
        "the program gave no checkpoint of epoch {done}: it is to save when a reply has `save`; without \
         checkpoints, set checkpoint.enabled: false ({PAGE})"
    ))
}

/// Lets the program find `pipe job`, where nothing else on its path is called so.
#[cfg(unix)]
fn with_own_program(env: &mut BTreeMap<String, String>) {
    let path = env.remove("PATH").map(OsString::from).or_else(|| std::env::var_os("PATH"));
    let own = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned()));
    let folders = path.iter().flat_map(std::env::split_paths).chain(own);
    if let Some(path) = std::env::join_paths(folders).ok().and_then(|path| path.into_string().ok())
    {
        env.insert("PATH".to_owned(), path);
    }
}

/// A folder of its own for a training's socket, among the system's temporary ones.
///
/// # Errors
/// The system's.
pub(super) fn folder_of_socket() -> Result<TempDir, StageError> {
    let folder = std::path::absolute(std::env::temp_dir()).map_err(no_socket)?;
    let is_short = folder.as_os_str().len() <= LONGEST_FOLDER;
    let folder = if is_short { folder } else { PathBuf::from("/tmp") };
    tempfile::Builder::new().prefix("pipe-").tempdir_in(folder).map_err(no_socket)
}

fn no_socket(error: std::io::Error) -> StageError {
    StageError::new(Failure::Storage, format!("failed to make the training's socket: {error}"))
}

fn breach(line: u64, why: &str) -> StageError {
    let text = format!("line {line} of what the program said breaks the contract: {why} ({PAGE})");
    StageError::new(Failure::Command, text)
}

fn told(failure: Failure, message: &str) -> String {
    let name = failure.name().replace('_', " ");
    if message.is_empty() {
        format!("the program failed: {name}")
    } else {
        format!("the program failed: {name}: {message}")
    }
}

//! The store of a pipeline, for the commands that have one: fetching before anything is planned,
//! mirroring while stages run, waiting for it at the end.

use std::time::{Duration, Instant};

use pipe_core::stop::Stop;
use pipe_fs::ProjectRoot;
use pipe_remote::{Mirror, MirrorEvent, Project, RemoteError, RemoteErrorKind, WorkingCopy};

use super::CliError;
use super::pipeline_args::PipelineSession;
use crate::report::{Output, message, table};

/// Which of two states to go on with.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ConflictResolution {
    Store,
    Folder,
}

impl From<RemoteError> for CliError {
    fn from(error: RemoteError) -> Self {
        match error.kind {
            RemoteErrorKind::Setting | RemoteErrorKind::Diverged => Self::usage(error),
            _ => Self::failed(error),
        }
    }
}

/// Makes the folder as new as its store, if the pipeline has one.
pub fn pull(
    loaded: &PipelineSession,
    take: Option<ConflictResolution>,
) -> Result<Option<WorkingCopy>, CliError> {
    let Some(url) = &loaded.session.graph.pipeline.store else { return Ok(None) };
    let take = take.map(|take| match take {
        ConflictResolution::Store => pipe_remote::ConflictResolution::Store,
        ConflictResolution::Folder => pipe_remote::ConflictResolution::Folder,
    });
    let before_download = |files: usize, bytes: u64| {
        message::note(&format!(
            "fetching {} ({}) from {url}",
            files_in_words(files),
            table::bytes(bytes)
        ));
    };
    let project = Project::of(&loaded.session.root, &loaded.session.graph);
    let working_copy =
        pipe_remote::pull(url, project, take, &before_download).map_err(|error| {
            let diverged = error.kind == RemoteErrorKind::Diverged;
            let error = CliError::from(error);
            if diverged {
                error
                    .note(format!("type: {}", loaded.run_command.clone().options(["--take=store"])))
            } else {
                error
            }
        })?;
    if let Some(downloaded) = &working_copy.downloaded {
        message::note(&format!("fetched, as left by {}", downloaded.from));
    }
    if let Some(error) = &working_copy.offline {
        message::warning(&format!("{error}; going on with what this folder has"));
    }
    Ok(Some(working_copy))
}

/// Starts to mirror: what an earlier process left, and what is changed in a folder that is
/// [`mirrored`].
pub fn mirror(working_copy: Option<WorkingCopy>) -> Result<Option<Mirror>, CliError> {
    let Some(working_copy) = working_copy else { return Ok(None) };
    let mirror = Mirror::start(working_copy, |event| match event {
        MirrorEvent::Failing(error) => {
            message::warning(&format!("{error}; the work goes on, and it is tried again"))
        }
        MirrorEvent::Recovered => message::note("the store can be reached again"),
        MirrorEvent::Ended(error) => message::warning(&error.to_string()),
    })?;
    Ok(Some(mirror))
}

/// The project's folder, whose changes the mirror hears of, if there is one.
pub fn mirrored(root: &ProjectRoot, mirror: Option<&Mirror>) -> ProjectRoot {
    mirror.map_or_else(|| root.clone(), |mirror| root.clone().with_listener(mirror.listener()))
}

/// How often it is said what is awaited.
const BETWEEN: Duration = Duration::from_secs(10);

/// Waits until all is in the store.
pub fn finish(mirror: Option<Mirror>, stop: &Stop, output: &Output) -> Result<(), CliError> {
    let Some(mirror) = mirror else { return Ok(()) };
    let began = Instant::now();
    let mut next = began + Duration::from_secs(1);
    let stats = mirror.finish(stop, &mut |_, bytes| {
        if bytes > 0 && Instant::now() >= next {
            next = Instant::now() + BETWEEN;
            message::note(&format!("waiting for the store: {} to go", table::bytes(bytes)));
        }
    })?;
    if output.verbose > 0 {
        message::note(&format!(
            "mirrored {} ({}) in {} steps and {} requests; the end waited {:.2} s for it, the work before {:.4} s",
            files_in_words(usize::try_from(stats.files).unwrap_or(usize::MAX)),
            table::bytes(stats.bytes),
            stats.steps,
            stats.requests,
            began.elapsed().as_secs_f64(),
            stats.blocked.as_secs_f64()
        ));
    }
    Ok(())
}

/// How the command ends, given how its work ended and how the mirror did.
pub fn combine<T>(
    work: Result<T, CliError>,
    mirrored: Result<(), CliError>,
    stop: &Stop,
) -> Result<T, CliError> {
    match (work, mirrored) {
        (work, Ok(())) => work,
        // Whoever asked to stop is told what it was that stopped.
        (Ok(code), Err(error)) if stop.requested().is_some() => {
            error.messages().iter().for_each(|wrong| message::warning(&wrong.text));
            Ok(code)
        }
        (Ok(_), Err(error)) => Err(error),
        (Err(first), Err(second)) => Err(CliError::both(first, second)),
    }
}

fn files_in_words(count: usize) -> String {
    if count == 1 { "1 file".to_owned() } else { format!("{count} files") }
}

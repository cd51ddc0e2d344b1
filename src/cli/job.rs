//! `pipe job`: what a training program of any language says to the stage that started it.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use pipe_engine::pipeline_file::environment;
use pipe_trainer::program::{Job, Reply};
use serde_json::{Map, Value, json};

use super::job_rank::{RankArguments, rank};
use super::{CliError, ExitCode};
use crate::report::stdout::say;

/// Exit code when the program is to end soon.
const STOP: ExitCode = ExitCode(75);

/// Say to a `trainer` stage how far its training is; for programs that such a stage starts
///
/// The stage's file is found by the variable PIPE_JOB. Exit codes: 0 understood; 1 refused; 75 the
/// training is to end soon: save, and exit.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  pipe job get settings.learning_rate\n  pipe job epochs\n  pipe job step 120 --metric loss=0.31\n  pipe job epoch 3 --metric train_loss=0.2 --checkpoint state.bin\n  pipe job finished 'no gain in 5 epochs'"
)]
pub struct JobArguments {
    #[command(subcommand)]
    command: JobCommand,
}

#[derive(Subcommand)]
enum JobCommand {
    /// Print what the program was told: all of it, or one value such as `start` or
    /// `settings.learning_rate`
    Get {
        /// Keys with a dot between them
        key: Option<String>,
    },
    /// Print the epochs that are yet to do, one a line
    Epochs,
    /// A step was done
    Step {
        /// Counted over all epochs
        step: u64,
        /// The epoch that it is in
        #[arg(long)]
        epoch: Option<u64>,
        /// Steps of an epoch
        #[arg(long)]
        steps: Option<u64>,
        /// A metric; can be given several times
        #[arg(long = "metric", value_name = "NAME=VALUE", value_parser = metric)]
        metrics: Vec<(String, Value)>,
    },
    /// An epoch is complete
    Epoch {
        /// Counted from 1
        epoch: u64,
        /// Steps that are done, over all epochs
        #[arg(long)]
        step: Option<u64>,
        /// A metric; can be given several times
        #[arg(long = "metric", value_name = "NAME=VALUE", value_parser = metric)]
        metrics: Vec<(String, Value)>,
        /// The file or folder in `scratch` that holds the state now; it is moved into the run
        #[arg(long, value_name = "PATH")]
        checkpoint: Option<PathBuf>,
    },
    /// A file or folder holds the state inside an epoch
    Checkpoint {
        /// In `scratch`; it is moved into the run
        path: PathBuf,
        /// Epochs that are complete
        #[arg(long)]
        epoch: u64,
        /// Steps that are done, over all epochs
        #[arg(long)]
        step: u64,
        /// Steps of the next epoch that are done
        #[arg(long)]
        step_in_epoch: u64,
    },
    /// A PNG in `scratch` shows what the model makes
    Sample {
        /// It is moved into the run
        path: PathBuf,
        /// The epoch; the last complete one by itself
        #[arg(long)]
        epoch: Option<u64>,
    },
    /// The training ends before its last epoch on purpose
    Finished {
        /// Why
        reason: String,
    },
    /// The training is about to fail
    Failure {
        /// out_of_memory, device_lost, not_finite, input or command: retries go by it
        kind: String,
        /// In words
        message: Option<String>,
    },
    /// A line for people
    Message {
        /// The line
        text: String,
    },
    /// One of the processes that a job of Slurm starts
    #[command(hide = true)]
    Rank(RankArguments),
}

fn metric(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    let number: f64 = value.trim().parse().map_err(|_| format!("{value:?} is no number"))?;
    // What is no finite number is null in JSON, and left out by the stage.
    Ok((name.trim().to_owned(), json!(number)))
}

pub fn job(arguments: JobArguments) -> Result<ExitCode, CliError> {
    let arguments = match arguments.command {
        JobCommand::Rank(process) => return rank(process),
        command => JobArguments { command },
    };
    let Some(file) = std::env::var_os(environment::JOB) else {
        return Err(CliError::usage(
            "PIPE_JOB is not set: `pipe job` is for programs that a `trainer` stage starts",
        ));
    };
    let text = std::fs::read_to_string(&file).map_err(|e| {
        CliError::failed(format!("failed to read {}: {e}", Path::new(&file).display()))
    })?;
    let wrong = |e| CliError::failed(format!("{}: {e}", Path::new(&file).display()));
    match arguments.command {
        JobCommand::Get { key } => get(&serde_json::from_str(&text).map_err(wrong)?, key),
        JobCommand::Epochs => {
            let job: Job = serde_json::from_str(&text).map_err(wrong)?;
            (job.done + 1..=job.target).for_each(|epoch| say!("{epoch}"));
            Ok(ExitCode::SUCCESS)
        }
        // Of several processes the first one speaks.
        _ if std::env::var("RANK").is_ok_and(|rank| rank != "0") => {
            say!("{}", json!({"ok": true}));
            Ok(ExitCode::SUCCESS)
        }
        said => {
            let job: Job = serde_json::from_str(&text).map_err(wrong)?;
            tell(&job, &message(said))
        }
    }
}

/// Texts as they are, `null` as nothing, and everything else as JSON.
fn get(job: &Value, key: Option<String>) -> Result<ExitCode, CliError> {
    let key = key.unwrap_or_default();
    let pointer: String =
        key.split('.').filter(|part| !part.is_empty()).map(|part| format!("/{part}")).collect();
    match job.pointer(&pointer) {
        None => return Err(CliError::failed(format!("the job has no `{key}`"))),
        Some(Value::Null) => say!(""),
        Some(Value::String(text)) => say!("{text}"),
        Some(value) => say!("{value:#}"),
    }
    Ok(ExitCode::SUCCESS)
}

fn message(command: JobCommand) -> Value {
    let metrics = |metrics: Vec<(String, Value)>| metrics.into_iter().collect::<Map<_, _>>();
    // A relative path is one from where the program is.
    let place = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    match command {
        JobCommand::Step { step, epoch, steps, metrics: told } => {
            // Its `steps` say that it is a step, and no epoch's end.
            let steps = steps.or(epoch.map(|_| 0));
            json!({"step": step, "epoch": epoch, "steps": steps, "metrics": metrics(told)})
        }
        JobCommand::Epoch { epoch, step, metrics: told, checkpoint: None } => {
            json!({"epoch": epoch, "step": step, "metrics": metrics(told)})
        }
        JobCommand::Epoch { epoch, step, metrics: told, checkpoint: Some(path) } => {
            json!({"checkpoint": place(path), "epoch": epoch, "step": step, "metrics": metrics(told)})
        }
        JobCommand::Checkpoint { path, epoch, step, step_in_epoch } => {
            json!({"checkpoint": place(path), "epoch": epoch, "step": step, "step_in_epoch": step_in_epoch})
        }
        JobCommand::Sample { path, epoch } => json!({"sample": place(path), "epoch": epoch}),
        JobCommand::Finished { reason } => json!({"finished": reason}),
        JobCommand::Failure { kind, message } => {
            json!({"failure": kind, "message": message.unwrap_or_default()})
        }
        JobCommand::Message { text } => json!({"message": text}),
        // They say nothing to the stage.
        JobCommand::Get { .. } | JobCommand::Epochs | JobCommand::Rank(_) => Value::Null,
    }
}

/// Says one thing, and prints the answer.
#[cfg(unix)]
fn tell(job: &Job, message: &Value) -> Result<ExitCode, CliError> {
    let gone = |e| CliError::failed(format!("the stage does not listen any more: {e}"));
    let mut stream = std::os::unix::net::UnixStream::connect(&job.socket).map_err(gone)?;
    stream.write_all(format!("{message}\n").as_bytes()).map_err(gone)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).map_err(gone)?;
    let reply: Reply = serde_json::from_str(&line)
        .map_err(|_| CliError::failed("the stage ended without an answer"))?;
    if let Some(error) = reply.error {
        return Err(CliError::failed(error));
    }
    say!("{}", line.trim_end());
    Ok(if reply.stop { STOP } else { ExitCode::SUCCESS })
}

#[cfg(not(unix))]
fn tell(_: &Job, _: &Value) -> Result<ExitCode, CliError> {
    Err(CliError::usage("kind trainer needs Unix sockets, which this system does not have"))
}

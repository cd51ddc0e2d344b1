//! `pipe run FILE [STAGE…]`

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use pipe_engine::exec::{self, Summary};
use pipe_engine::kind::{Failure, StageError, StageId};
use pipe_engine::stop::Stop;
use pipe_train::device;

use super::asked::Asked;
use super::plan::{self, PlanFile};
use super::{CliError, ExitCode, Output, signals};
use crate::report::{self, line};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe run pipelines/base_training.yaml\n  pipe run pipelines/base_training.yaml --epochs 10 --learning-rate 1e-3\n  pipe run pipelines/base_training.yaml --run-number 1 --resume --epochs 20\n  pipe run pipelines/base_to_lora.yaml lora --force"
)]
pub struct RunArguments {
    #[command(flatten)]
    asked: Option<Asked>,
    /// Do what this file says, made by `pipe plan -o`, if it still holds
    #[arg(long, value_name = "FILE", conflicts_with = "file", required_unless_present = "file")]
    plan: Option<PathBuf>,
    /// After a failure go on with stages that do not depend on it
    #[arg(long)]
    keep_going: bool,
    /// Stages that may run at once
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: u16,
    /// Print the plan and stop
    #[arg(long)]
    dry_run: bool,
}

pub fn run(arguments: RunArguments, output: &Output) -> Result<ExitCode, CliError> {
    let planned = arguments.plan.as_deref().map(PlanFile::read).transpose()?;
    let asked = match (&planned, &arguments.asked) {
        (Some(planned), _) => &planned.asked,
        (None, Some(asked)) => asked,
        (None, None) => return Err(CliError::usage("expected a pipeline file, or --plan")),
    };
    let meant = asked.load()?;
    let stop = Stop::default();
    let jobs = usize::from(arguments.jobs);
    let report = report::reporter(output, jobs > 1);
    let mut execution = meant.execution(&stop, report.as_ref());
    let (plan, observed) = meant.plan(&execution)?;
    if let Some(planned) = &planned {
        planned.still_holds(&plan)?;
    }
    if arguments.dry_run {
        plan::print(&plan);
        return Ok(ExitCode::SUCCESS);
    }
    execution.keep_going = arguments.keep_going;
    execution.jobs = jobs;
    if meant.graph.stages().any(|s| s.conduct.resources.gpu > 0) {
        execution.gpus = u32::try_from(device::gpus()).unwrap_or(u32::MAX);
    }
    signals::watch(stop.clone())?;
    let started = Instant::now();
    let summary = exec::execute(&execution, &plan, observed).map_err(CliError::failed)?;
    report.finish();
    report::stderr::flush();
    conclude(asked, &summary, &stop, started.elapsed().as_secs_f64(), output.quiet)
}

/// A line of the summary. What was done is done, so a closed stdout does not change how the program ends.
fn told(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// The most names in a list of the summary.
const NAMES: usize = 8;

fn named<'a>(stages: impl IntoIterator<Item = &'a StageId>) -> String {
    let all: Vec<&str> = stages.into_iter().map(StageId::as_str).collect();
    let more = match all.len().saturating_sub(NAMES) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    format!("{}{more}", all[..all.len().min(NAMES)].join(", "))
}

fn conclude(
    asked: &Asked,
    summary: &Summary,
    stop: &Stop,
    seconds: f64,
    quiet: bool,
) -> Result<ExitCode, CliError> {
    for (stage, line) in &summary.finished {
        told(format!("{stage}: {line}"));
    }
    let broken = |error: &StageError| !matches!(error.failure, Failure::Interrupted(_));
    let failed: Vec<_> = summary.failed.iter().filter(|(_, error)| broken(error)).collect();
    let again = format!("pipe run {}", asked.file.display());
    if summary.finished.is_empty() && failed.is_empty() && stop.requested().is_none() {
        told("everything is up to date (`--force` runs it again)");
        return Ok(ExitCode::SUCCESS);
    }
    if !summary.skipped.is_empty() {
        told(format!("skipped, up to date: {}", named(&summary.skipped)));
    }
    if !summary.not_begun.is_empty() {
        told(format!("not begun: {}", named(&summary.not_begun)));
    }
    if let Some(error) = CliError::all(failed.iter().map(|(id, e)| CliError::stage(id.as_str(), e)).collect())
    {
        return Err(error.note(format!("what was done stays done; when that is mended, go on with: {again}")));
    }
    if let Some(signal) = stop.requested() {
        told(format!("stopped by {}; go on with: {again}", signal.name()));
        return Ok(ExitCode::from(signal.exit_code()));
    }
    told(format!("took {}", line::duration(seconds)));
    if let (Some(next), false) = (summary.next.last(), quiet) {
        told(format!("next: {next}"));
    }
    Ok(ExitCode::SUCCESS)
}

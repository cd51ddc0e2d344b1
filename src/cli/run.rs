//! `pipe run FILE [STAGE…]`

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use pipe_engine::exec::{self, Execution, Observed, Summary};
use pipe_engine::kind::{Failure, StageError, StageId};
use pipe_engine::plan::{Action, Plan};
use pipe_engine::spec::ExecutorKind;
use pipe_engine::stop::Stop;
use pipe_train::device;

use super::asked::{Asked, Meant};
use super::inside::{self, JobArguments};
use super::plan::{self, PlanFile};
use super::{CliError, ExitCode, Output, jobs, signals, store};
use crate::report::{self, line};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe run pipelines/base_training.yaml\n  pipe run pipelines/base_training.yaml --epochs 10 --learning-rate 1e-3\n  pipe run pipelines/base_training.yaml --run-number 1 --resume --epochs 20\n  pipe run pipelines/base_to_lora.yaml lora --force\n  pipe run pipelines/base_to_lora.yaml --executor slurm --detach\n  pipe run pipelines/base_training.yaml --store s3://bucket/trainings"
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
    /// Where stages run: here, or as jobs of Slurm; what the pipeline file says if unset
    #[arg(long, value_enum, value_name = "EXECUTOR")]
    executor: Option<Executor>,
    /// If the folder and its store both went on: which state to go on with
    #[arg(long, value_enum, value_name = "WHICH")]
    take: Option<store::Take>,
    /// Submit the jobs and do not wait for them
    #[arg(long)]
    detach: bool,
    #[command(flatten)]
    job: JobArguments,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Executor {
    Local,
    Slurm,
}

pub fn run(arguments: RunArguments, output: &Output) -> Result<ExitCode, CliError> {
    let planned = arguments.plan.as_deref().map(PlanFile::read).transpose()?;
    let asked = match (&planned, &arguments.asked) {
        (Some(planned), _) => &planned.asked,
        (None, Some(asked)) => asked,
        (None, None) => return Err(CliError::usage("expected a pipeline file, or --plan")),
    };
    let stop = Stop::default();
    let asked = match &arguments.job.only {
        None => asked.clone(),
        Some(stage) => {
            // A job may be told to stop at any time.
            signals::watch(stop.clone())?;
            asked.only(stage)
        }
    };
    let mut meant = asked.load()?;
    let prepared = store::bring(&meant, arguments.take)?;
    let restarted = arguments.job.has_begun(&meant);
    if restarted {
        meant.forced.clear();
    }
    let on_slurm = arguments.job.only.is_none() && arguments.is_for_slurm(&meant);
    if arguments.detach && !on_slurm {
        return Err(CliError::usage("--detach is for jobs of Slurm: add --executor slurm"));
    }
    let jobs = usize::from(arguments.jobs);
    let report = report::reporter(output, jobs > 1 || on_slurm);
    let mut execution = meant.execution(&stop, report.as_ref());
    (execution.job, execution.restarted) = (arguments.job.job(), restarted);
    let (plan, observed) = meant.plan(&execution)?;
    if let Some(planned) = &planned {
        planned.still_holds(&plan)?;
    }
    if arguments.dry_run {
        plan::print(&plan);
        return Ok(ExitCode::SUCCESS);
    }
    execution.keep_going = arguments.keep_going;
    if on_slurm {
        let started = Instant::now();
        let mirror = store::mirror(prepared)?;
        let summary = submit(&arguments, &asked, &meant, &execution, &plan, &observed)?;
        let seconds = started.elapsed().as_secs_f64();
        report.finish();
        report::stderr::flush();
        // The jobs mirror what they do; this is what was left from before.
        let mirrored = store::finish(mirror, &stop, output);
        let Some(summary) = summary else { return mirrored.map(|()| ExitCode::SUCCESS) };
        let again = arguments.again(&asked);
        let ended = conclude(&again, &summary, &stop, seconds, output.quiet);
        return store::together(ended, mirrored, &stop);
    }
    execution.jobs = jobs;
    if meant.graph.stages().any(|s| s.conduct.resources.gpu > 0) {
        execution.gpus = u32::try_from(device::gpus()).unwrap_or(u32::MAX);
    }
    let before = match &arguments.job.only {
        Some(only) => {
            arguments.job.hold(&meant, &execution, &plan, &observed)?;
            observed.get(only.as_str()).map(|found| found.observation.state.clone())
        }
        None => {
            signals::watch(stop.clone())?;
            None
        }
    };
    let mirror = store::mirror(prepared)?;
    let started = Instant::now();
    let summary = exec::execute(&execution, &plan, observed).map_err(CliError::failed)?;
    let seconds = started.elapsed().as_secs_f64();
    report.finish();
    report::stderr::flush();
    let mirrored = store::finish(mirror, &stop, output);
    let ended = conclude(&arguments.again(&asked), &summary, &stop, seconds, output.quiet);
    let code = store::together(ended, mirrored, &stop)?;
    match (before, stop.requested()) {
        (Some(before), Some(signal)) => inside::end(&meant, signal, &before, &summary),
        _ => Ok(code),
    }
}

impl RunArguments {
    fn is_for_slurm(&self, meant: &Meant) -> bool {
        match self.executor {
            Some(executor) => executor == Executor::Slurm,
            None => meant.graph.pipeline.executor.kind == ExecutorKind::Slurm,
        }
    }

    /// What one types to go on.
    fn again(&self, asked: &Asked) -> String {
        let executor = if self.executor == Some(Executor::Slurm) { " --executor slurm" } else { "" };
        format!("pipe run {}{executor}", asked.file.display())
    }
}

/// Makes jobs of the plan and follows them; `None` if they are not to be waited for.
fn submit(
    arguments: &RunArguments,
    asked: &Asked,
    meant: &Meant,
    execution: &Execution,
    plan: &Plan,
    observed: &HashMap<StageId, Observed>,
) -> Result<Option<Summary>, CliError> {
    if !arguments.detach {
        signals::watch_saying(execution.stop.clone(), jobs::follows)?;
    }
    let submitted = jobs::submit(asked, execution, plan, observed)?;
    if arguments.detach && !submitted.is_empty() {
        submitted.iter().for_each(|s| told(format!("{}: job {}", s.stage.id, s.job.id)));
        told(format!("see how they stand with: pipe status {}", asked.file.display()));
        return Ok(None);
    }
    let mut summary = jobs::follow(meant, execution, submitted)?;
    let skipped = plan.steps.iter().filter(|step| step.action == Action::Skip).map(|step| step.stage.clone());
    summary.skipped.splice(..0, skipped);
    Ok(Some(summary))
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
    again: &str,
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

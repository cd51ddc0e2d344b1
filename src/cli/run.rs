//! `pipe run FILE [STAGE…]`

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::ValueEnum;
use pipe_core::shell::CommandLine;
use pipe_core::stop::Stop;
use pipe_engine::exec::{self, Execution, InspectedStage, Summary};
use pipe_engine::kind::{Failure, StageError, StageId};
use pipe_engine::pipeline_file::ExecutorKind;
use pipe_engine::plan::{Action, Plan};
use pipe_train::device;

use super::pipeline_args::{LoadedPipeline, PipelineArgs, ReuseArgs, SelectionArgs, SettingArgs};
use super::plan::{self, PlanFile};
use super::slurm_job::{self, JobArguments};
use super::{CliError, ExitCode, Kinds, jobs, project, signals, store};
use crate::report::{self, Output, progress_line, stdout};

/// What a plan file says already.
const SAID_BY_PLANS: [&str; 14] = [
    "file",
    "no_data_check",
    "epochs",
    "batch_size",
    "learning_rate",
    "dataset",
    "device",
    "devices",
    "seed",
    "set",
    "store",
    "run_number",
    "resume",
    "force",
];

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe run pipelines/base_training.yaml\n  pipe run pipelines/base_training.yaml --epochs 10 --learning-rate 1e-3\n  pipe run pipelines/base_training.yaml --run-number 1 --resume --epochs 20\n  pipe run pipelines/base_to_lora.yaml lora --force\n  pipe run pipelines/base_to_lora.yaml --executor slurm --detach\n  pipe run pipelines/base_training.yaml --store s3://bucket/trainings"
)]
pub struct RunArguments {
    #[command(flatten)]
    selection: Option<SelectionArgs>,
    #[command(flatten)]
    settings: SettingArgs,
    #[command(flatten)]
    reuse: ReuseArgs,
    /// Do what this file says, made by `pipe plan -o`, if it still holds
    #[arg(long, value_name = "FILE", conflicts_with_all = SAID_BY_PLANS)]
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
    take: Option<store::ConflictResolution>,
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

pub fn run(arguments: RunArguments, output: &Output, kinds: &Kinds) -> Result<ExitCode, CliError> {
    let planned = arguments.plan.as_deref().map(PlanFile::read).transpose()?;
    let args = match &planned {
        Some(planned) => Some(planned.args.clone()),
        None => arguments.pipeline_args(),
    };
    let args = args.ok_or_else(|| CliError::usage("expected a pipeline file, or --plan"))?;
    let stop = Stop::default();
    let args = match &arguments.job.only {
        None => args,
        Some(stage) => {
            // A job may be told to stop at any time.
            signals::watch(stop.clone())?;
            args.only(stage)
        }
    };
    let mut loaded = args.load(kinds)?;
    let working_copy = store::pull(&loaded, arguments.take)?;
    let restarted = arguments.job.was_started(&loaded);
    if restarted {
        loaded.session.forced.clear();
    }
    let on_slurm = arguments.job.only.is_none() && arguments.is_for_slurm(&loaded);
    if arguments.detach && !on_slurm {
        return Err(CliError::usage("--detach is for jobs of Slurm: add --executor slurm"));
    }
    let jobs = usize::from(arguments.jobs);
    let report = report::reporter(output, jobs > 1 || on_slurm);
    let mut execution = loaded.session.execution(&stop, report.as_ref());
    (execution.job, execution.restarted) = (arguments.job.job(), restarted);
    let (plan, observed) = loaded.plan(&execution)?;
    if let Some(planned) = &planned {
        planned.still_holds(
            arguments.plan.as_deref().unwrap_or(Path::new("")),
            &plan,
            &loaded.session.graph,
        )?;
    }
    if arguments.dry_run {
        plan::print(&plan);
        return Ok(ExitCode::SUCCESS);
    }
    execution.keep_going = arguments.keep_going;
    if on_slurm {
        let started = Instant::now();
        let mirror = store::mirror(working_copy)?;
        let root = store::mirrored(&loaded.session.root, mirror.as_ref());
        execution.root = &root;
        let summary = submit(&arguments, &args, &loaded, &execution, &plan, &observed)?;
        let seconds = started.elapsed().as_secs_f64();
        report.finish();
        report::stderr::flush();
        // The jobs mirror what they do; this is what was left from before.
        let mirrored = store::finish(mirror, &stop, output);
        let Some(summary) = summary else { return mirrored.map(|()| ExitCode::SUCCESS) };
        let ended = RunSummary {
            arguments: &arguments,
            args: &args,
            execution: &execution,
            output,
            seconds,
        }
        .print(&summary);
        return store::combine(ended, mirrored, &stop);
    }
    execution.jobs = jobs;
    if loaded.session.graph.stages().any(|s| s.options.resources.gpu > 0) {
        execution.gpus = u32::try_from(device::gpus()).unwrap_or(u32::MAX);
    }
    let before = match &arguments.job.only {
        Some(only) => {
            arguments.job.verify_submission(&loaded, &execution, &plan, &observed)?;
            observed.get(only.as_str()).map(|found| found.inspection.state.clone())
        }
        None => {
            signals::watch(stop.clone())?;
            None
        }
    };
    let mirror = store::mirror(working_copy)?;
    let root = store::mirrored(&loaded.session.root, mirror.as_ref());
    execution.root = &root;
    let started = Instant::now();
    let summary = loaded.session.run(&execution, &plan, observed).map_err(CliError::failed)?;
    let seconds = started.elapsed().as_secs_f64();
    report.finish();
    report::stderr::flush();
    let mirrored = store::finish(mirror, &stop, output);
    let ended =
        RunSummary { arguments: &arguments, args: &args, execution: &execution, output, seconds }
            .print(&summary);
    let code = store::combine(ended, mirrored, &stop)?;
    match (before, stop.requested()) {
        (Some(before), Some(signal)) => slurm_job::end_stopped(&loaded, signal, &before, &summary),
        _ => Ok(code),
    }
}

impl RunArguments {
    fn is_for_slurm(&self, loaded: &LoadedPipeline) -> bool {
        match self.executor {
            Some(executor) => executor == Executor::Slurm,
            None => loaded.session.graph.pipeline.executor.kind == ExecutorKind::Slurm,
        }
    }

    /// What is asked for, if not by a plan file.
    fn pipeline_args(&self) -> Option<PipelineArgs> {
        let (settings, reuse) = (self.settings.clone(), self.reuse.clone());
        Some(PipelineArgs { selection: self.selection.clone()?, settings, reuse })
    }

    /// What one types to go on: the same, without what is not to be done twice.
    fn resume_command(&self, args: &PipelineArgs, output: &Output) -> CommandLine {
        let jobs = (self.jobs > 1).then(|| format!("--jobs={}", self.jobs));
        let executor = self.executor.and_then(|executor| executor.to_possible_value());
        let executor = executor.map(|value| format!("--executor={}", value.get_name()));
        let keep_going = self.keep_going.then(|| "--keep-going".to_owned());
        args.command_line("run")
            .options(jobs.into_iter().chain(executor).chain(keep_going))
            .options(output.to_arguments())
    }
}

/// Makes jobs of the plan and follows them; `None` if they are not to be waited for.
fn submit(
    arguments: &RunArguments,
    args: &PipelineArgs,
    loaded: &LoadedPipeline,
    execution: &Execution,
    plan: &Plan,
    observed: &HashMap<StageId, InspectedStage>,
) -> Result<Option<Summary>, CliError> {
    if !arguments.detach {
        let file = args.selection.file.clone();
        signals::watch_with_message(execution.stop.clone(), move |signal| {
            jobs::signal_message(signal, &file)
        })?;
    }
    let submitted = jobs::submit(args, loaded, execution, plan, observed)?;
    if arguments.detach && !submitted.is_empty() {
        submitted.iter().for_each(|s| summary_line(format!("{}: job {}", s.stage.id, s.job.id)));
        let status =
            PipelineArgs::with_environment(args.command_line("status"), &loaded.session.graph);
        summary_line(format!("see how they stand with: {status}"));
        return Ok(None);
    }
    let mut summary = jobs::follow(loaded, execution, submitted)?;
    let skipped =
        plan.steps.iter().filter(|step| step.action == Action::Skip).map(|step| step.stage.clone());
    summary.skipped.splice(..0, skipped);
    Ok(Some(summary))
}

/// A line of the summary. What was done is done, so a closed stdout does not change how the program
/// ends.
fn summary_line(line: impl std::fmt::Display) {
    let _ = stdout::try_line(&line.to_string());
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

/// What is told at the end of a run.
struct RunSummary<'a> {
    arguments: &'a RunArguments,
    args: &'a PipelineArgs,
    execution: &'a Execution<'a>,
    output: &'a Output,
    seconds: f64,
}

impl RunSummary<'_> {
    fn print(&self, summary: &Summary) -> Result<ExitCode, CliError> {
        let stop = self.execution.stop;
        for (stage, line) in &summary.finished {
            summary_line(format!("{stage}: {line}"));
        }
        let broken = |error: &StageError| !matches!(error.failure, Failure::Interrupted(_));
        let failed: Vec<_> = summary.failed.iter().filter(|(_, error)| broken(error)).collect();
        if summary.finished.is_empty() && failed.is_empty() && stop.requested().is_none() {
            summary_line(format!(
                "everything is up to date ({} runs it again)",
                self.how_to_force()
            ));
            return Ok(ExitCode::SUCCESS);
        }
        if !summary.skipped.is_empty() {
            summary_line(format!("skipped, up to date: {}", named(&summary.skipped)));
        }
        if !summary.not_begun.is_empty() {
            summary_line(format!("not begun: {}", named(&summary.not_begun)));
        }
        let again = self.arguments.resume_command(self.args, self.output);
        let again = PipelineArgs::with_environment(again, self.execution.graph);
        if let Some(error) =
            CliError::all(failed.iter().map(|(id, e)| CliError::stage(id.as_str(), e)).collect())
        {
            let error = error.note(format!(
                "what was done stays done; when that is mended, go on with: {again}"
            ));
            return Err(self.forced_later(summary).into_iter().fold(error, CliError::note));
        }
        if let Some(signal) = stop.requested() {
            summary_line(format!("stopped by {}; go on with: {again}", signal.name()));
            self.forced_later(summary).into_iter().for_each(summary_line);
            return Ok(ExitCode::from(signal.exit_code()));
        }
        summary_line(format!("took {}", progress_line::duration(self.seconds)));
        if let (Some(next), false) = (exec::next(self.execution, summary), self.output.quiet) {
            summary_line(format!("next: {}", project::from_start_folder(&next)));
        }
        Ok(ExitCode::SUCCESS)
    }

    /// How one runs it again though nothing has changed: an option that goes with the others, or
    /// else the whole command.
    fn how_to_force(&self) -> String {
        if self.args.is_for_one_run() || self.arguments.plan.is_some() {
            format!(
                "`{}`",
                PipelineArgs::with_environment(
                    self.args.forced_command_line(),
                    self.execution.graph
                )
            )
        } else {
            "`--force`".to_owned()
        }
    }

    /// Stages that were to run even if they are up to date, and were not begun: going on does not
    /// force them.
    fn forced_later(&self, summary: &Summary) -> Option<String> {
        let forced = &self.execution.forced;
        let left = summary.not_begun.iter().filter(|stage| forced.contains(*stage));
        let mut args = self.args.clone();
        (args.selection.stages, args.selection.from, args.selection.until) =
            (left.map(StageId::to_string).collect(), Vec::new(), Vec::new());
        let how_to_force =
            PipelineArgs::with_environment(args.forced_command_line(), self.execution.graph);
        (!args.selection.stages.is_empty())
            .then(|| format!("then force what was not begun with: {how_to_force}"))
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use crate::cli::{Arguments, Command};

    /// Options that going on does not repeat: what they asked for was done, or is in the plan that
    /// they name.
    const ONCE: [&str; 9] =
        ["force", "dry_run", "detach", "take", "plan", "only", "planned", "help", "file"];

    #[test]
    fn going_on_repeats_every_option_but_those_for_once() {
        let mut command = Arguments::command();
        command.build();
        let run = command.find_subcommand("run").unwrap();
        let mut tried = 0;
        for option in run.get_arguments().filter(|option| !ONCE.contains(&option.get_id().as_str()))
        {
            let name = option.get_long().map_or_else(String::new, |name| format!("--{name}"));
            let possible = option.get_possible_values();
            let value = match (option.get_num_args(), option.get_id().as_str(), possible.last()) {
                (Some(count), ..) if !count.takes_values() => None,
                (_, "jobs" | "run_number", _) => Some("3".to_owned()),
                (_, "set", _) => Some("base.betas=[0.9, 0.99]".to_owned()),
                (_, _, Some(value)) => Some(value.get_name().to_owned()),
                _ => Some("it's".to_owned()),
            };
            let mut typed: Vec<String> = ["pipe", "run", "my p.yaml"].map(str::to_owned).into();
            typed.extend(Some(name.clone()).filter(|name| !name.is_empty()));
            typed.extend(value.clone());
            let Arguments { output, command: Command::Run(arguments) } =
                Arguments::parse_from(&typed)
            else {
                panic!("{typed:?}");
            };
            let again =
                arguments.resume_command(&arguments.pipeline_args().unwrap(), &output).to_string();
            let mut expected = "pipe run 'my p.yaml'".to_owned();
            for word in typed.iter().skip(3) {
                expected.push_str(&format!(" {}", pipe_core::shell::quote(word)));
            }
            assert_eq!(again, expected);
            tried += 1;
        }
        assert!(tried > 15, "{tried}");
    }
}

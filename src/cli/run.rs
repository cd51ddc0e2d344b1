//! `pipe run [FILE [STAGE…]]`

use std::path::PathBuf;
use std::time::Instant;

use clap::ValueEnum;
use pipe_core::shell::CommandLine;
use pipe_core::stop::Stop;
use pipe_engine::exec::{Execution, Executor, LocalExecutor};
use pipe_engine::forecast;
use pipe_engine::pipeline_file::ExecutorKind;
use pipe_train::device;

use super::hook_client::HttpHooks;
use super::pipeline_args::{PipelineArgs, PipelineSession, ReuseArgs, SelectionArgs, SettingArgs};
use super::plan::{self, PlanFile};
use super::run_summary::RunSummary;
use super::slurm_job::{self, JobArguments, OtherJobs};
use super::{CliError, ExitCode, Kinds, jobs, signals, store};
use crate::report::{self, Output};

/// What a plan file says already.
const SAID_BY_PLANS: [&str; 17] = [
    "file",
    "stages",
    "from",
    "until",
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
    selection: SelectionArgs,
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
    executor: Option<ExecutorName>,
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
enum ExecutorName {
    Local,
    Slurm,
}

pub fn run(arguments: RunArguments, output: &Output, kinds: &Kinds) -> Result<ExitCode, CliError> {
    let planned = arguments.plan.as_deref().map(PlanFile::read).transpose()?;
    let stop = Stop::default();
    let args = arguments.args_with(planned.as_ref(), &stop)?;
    let mut loaded = args.load(kinds)?;
    let working_copy = store::pull(&loaded, arguments.take)?;
    let restarted = arguments.job.was_started(&loaded);
    if restarted {
        loaded.session.forced.clear();
    }
    let on_slurm = arguments.is_for_slurm(&loaded)?;
    let is_beside = arguments.jobs > 1 || loaded.session.graph.has_followers();
    let report = report::reporter(output, is_beside || on_slurm);
    let others = OtherJobs::of(&loaded);
    let mut execution = loaded.session.execution(&stop, report.as_ref());
    (execution.job, execution.restarted) = (arguments.job.job(), restarted);
    execution.is_part = arguments.job.only.is_some();
    execution.carried = arguments.job.carried(&loaded);
    execution.elsewhere = arguments.job.job().is_some().then_some(&others as _);
    execution.hook_client = Some(&HttpHooks);
    execution.keep_going = arguments.keep_going;
    let (mut plan, inspected) = loaded.plan(&execution)?;
    if let (Some(planned), Some(file)) = (&planned, &arguments.plan) {
        planned.still_holds(file, &plan, &loaded.session.graph)?;
    }
    if arguments.dry_run {
        plan::print(&plan);
        return Ok(ExitCode::SUCCESS);
    }
    if !on_slurm && !execution.is_part {
        let forecast = forecast::forecast(&execution, &plan, &inspected);
        super::forecast::check_fits(&forecast, &loaded.session.root)?;
    }
    let executor = arguments.prepare(&args, &loaded, &mut execution, on_slurm)?;
    let before = arguments.job.begin(&loaded, &execution, &mut plan, &inspected)?;
    let mirror = store::mirror(working_copy)?;
    let root = store::mirrored(&loaded.session.root, mirror.as_ref());
    execution.root = &root;
    let started = Instant::now();
    let summary = loaded.session.run(executor.as_ref(), &execution, &plan, inspected);
    let summary = summary.map_err(CliError::failed)?;
    let seconds = started.elapsed().as_secs_f64();
    report.finish();
    report::stderr::flush();
    let mirrored = store::finish(mirror, &stop, output);
    let (again, is_planned) = (arguments.resume_command(&args, output), planned.is_some());
    let told =
        RunSummary { args: &args, execution: &execution, output, again, is_planned, seconds };
    let ended = told.print(&summary);
    let code = store::combine(ended, mirrored, &stop);
    match (before, stop.requested()) {
        (Some(before), Some(signal)) => {
            code?;
            slurm_job::end_stopped(&loaded, signal, &before, &summary)
        }
        (Some(before), None) => slurm_job::end(&loaded, &before, &summary, code),
        _ => code,
    }
}

impl RunArguments {
    /// The pipeline that is meant, and what of it. A job may be told to stop at any time from here
    /// on.
    fn args_with(&self, planned: Option<&PlanFile>, stop: &Stop) -> Result<PipelineArgs, CliError> {
        let args = match planned {
            Some(planned) => planned.args.clone(),
            None => self.pipeline_args().resolved()?,
        };
        let Some(stage) = &self.job.only else { return Ok(args) };
        signals::watch(stop.clone())?;
        Ok(args.only(stage))
    }

    /// Whether stages become jobs. Within a job they do not.
    fn is_for_slurm(&self, loaded: &PipelineSession) -> Result<bool, CliError> {
        let asked = match self.executor {
            Some(executor) => executor == ExecutorName::Slurm,
            None => loaded.session.graph.pipeline.executor.kind == ExecutorKind::Slurm,
        };
        let on_slurm = asked && self.job.only.is_none();
        if self.detach && !on_slurm {
            return Err(CliError::usage("--detach is for jobs of Slurm: add --executor slurm"));
        }
        Ok(on_slurm)
    }

    /// Where the stages run. Signals are watched from here on, if somebody waits for the end.
    fn prepare(
        &self,
        args: &PipelineArgs,
        loaded: &PipelineSession,
        execution: &mut Execution,
        on_slurm: bool,
    ) -> Result<Box<dyn Executor>, CliError> {
        if on_slurm {
            if !self.detach {
                let file = args.selection.file.clone();
                signals::watch_with_message(execution.stop.clone(), move |signal| {
                    jobs::signal_message(signal, &file)
                })?;
            }
            return Ok(Box::new(jobs::executor(args, loaded, self.detach)?));
        }
        execution.jobs = usize::from(self.jobs);
        if loaded.session.graph.stages().any(|s| s.options.resources.gpu > 0) {
            execution.gpus = u32::try_from(device::gpus()).unwrap_or(u32::MAX);
        }
        if self.job.only.is_none() {
            signals::watch(execution.stop.clone())?;
        }
        Ok(Box::new(LocalExecutor))
    }

    /// What is asked for, if not by a plan file.
    fn pipeline_args(&self) -> PipelineArgs {
        let (settings, reuse) = (self.settings.clone(), self.reuse.clone());
        PipelineArgs { selection: self.selection.clone(), settings, reuse }
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

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use crate::cli::{Arguments, Command};

    /// Options that going on does not repeat: what they asked for was done, or is in the plan that
    /// they name. Hidden ones are for jobs.
    const ONCE: [&str; 7] = ["force", "dry_run", "detach", "take", "plan", "help", "file"];

    #[test]
    fn going_on_repeats_every_option_but_those_for_once() {
        let mut command = Arguments::command();
        command.build();
        let run = command.find_subcommand("run").unwrap();
        let mut tried = 0;
        let repeated = run
            .get_arguments()
            .filter(|option| !option.is_hide_set() && !ONCE.contains(&option.get_id().as_str()));
        for option in repeated {
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
            let again = arguments.resume_command(&arguments.pipeline_args(), &output).to_string();
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

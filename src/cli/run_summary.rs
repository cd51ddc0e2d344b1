//! What `pipe run` tells at its end: how stages ended, and what to type next.

use pipe_core::shell::CommandLine;
use pipe_engine::exec::{self, Execution, Summary};
use pipe_engine::kind::{Failure, StageError, StageId};

use super::pipeline_args::PipelineArgs;
use super::{CliError, ExitCode, project};
use crate::report::{Output, progress_line, stdout};

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
pub struct RunSummary<'a> {
    pub args: &'a PipelineArgs,
    pub execution: &'a Execution<'a>,
    pub output: &'a Output,
    /// What one types to go on.
    pub again: CommandLine,
    /// The command line names a plan file.
    pub is_planned: bool,
    pub seconds: f64,
}

/// The module that a program in Python did not find, by the last line of its traceback.
fn missing_module(message: &str) -> Option<&str> {
    let last = message.lines().next_back()?.trim();
    let name = last.strip_prefix("ModuleNotFoundError: No module named '")?.strip_suffix('\'')?;
    name.split('.').next()
}

/// What brings a module to the Python of a stage.
fn install(module: &str) -> String {
    match module {
        "burn_pipe" => {
            "`pipe python` writes that package as a wheel; `pip install` it for the Python \
                        that the stage's `run` starts"
                .to_owned()
        }
        module => format!(
            "the Python that the stage's `run` starts has no `{module}`: install it there, or \
             start that of an environment, such as `run: [.venv/bin/python, train.py]`"
        ),
    }
}

impl RunSummary<'_> {
    pub fn print(&self, summary: &Summary) -> Result<ExitCode, CliError> {
        if !summary.submitted.is_empty() {
            self.print_submitted(summary);
            return Ok(ExitCode::SUCCESS);
        }
        let stop = self.execution.stop;
        // Who wants to hear only of what goes wrong hears nothing of what went well.
        let tell = |line: String| {
            if !self.output.quiet {
                summary_line(line);
            }
        };
        for (stage, line) in &summary.finished {
            tell(format!("{stage}: {line}"));
        }
        let broken = |error: &StageError| !matches!(error.failure, Failure::Interrupted(_));
        let failed: Vec<_> = summary.failed.iter().filter(|(_, error)| broken(error)).collect();
        if summary.finished.is_empty() && failed.is_empty() && stop.requested().is_none() {
            tell(format!("everything is up to date ({} runs it again)", self.how_to_force()));
            return Ok(ExitCode::SUCCESS);
        }
        if !summary.skipped.is_empty() {
            tell(format!("skipped, up to date: {}", named(&summary.skipped)));
        }
        if !summary.not_begun.is_empty() {
            tell(format!("not begun: {}", named(&summary.not_begun)));
        }
        let graph = self.execution.graph;
        let again = PipelineArgs::with_environment(self.again.clone(), graph);
        if let Some(error) =
            CliError::all(failed.iter().map(|(id, e)| CliError::stage_of(graph, id, e)).collect())
        {
            let missing = failed.iter().find_map(|(_, error)| missing_module(&error.message));
            let error = missing.into_iter().fold(error, |error, name| error.note(install(name)));
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
        tell(format!("took {}", progress_line::duration(self.seconds)));
        if let Some(next) = exec::next(self.execution, summary) {
            tell(format!("next: {}", project::from_start_folder(&next)));
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Jobs that nobody waits for.
    fn print_submitted(&self, summary: &Summary) {
        for (stage, job) in &summary.submitted {
            summary_line(format!("{stage}: job {job}"));
        }
        let status = self.args.command_line("status");
        let status = PipelineArgs::with_environment(status, self.execution.graph);
        summary_line(format!("see how they stand with: {status}"));
    }

    /// How one runs it again though nothing has changed: an option that goes with the others, or
    /// else the whole command.
    fn how_to_force(&self) -> String {
        if self.args.is_for_one_run() || self.is_planned {
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

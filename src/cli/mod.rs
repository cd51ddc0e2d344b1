//! The command line: one file a command, no logic beyond turning arguments into calls.

mod bench;
mod cancel;
mod check;
mod ckpt;
mod clean;
mod completions;
mod data;
mod devices;
mod export;
mod files;
mod graph;
mod init;
mod jobs;
mod logs;
mod man;
mod output_file;
mod pipeline_args;
mod plan;
mod project;
mod report;
mod resume_settings;
mod run;
mod runs;
mod sample;
mod schema;
#[cfg(test)]
mod settings_tests;
pub mod signals;
mod slurm_job;
mod status;
mod store;
mod suggestions;
mod ui;
mod verify;
mod version;

use std::fmt;

use clap::{Args, Parser, Subcommand, ValueEnum};
use pipe_engine::error::{SpecError, SpecErrors};
use pipe_engine::kind::{Failure, StageError};

/// Train diffusion models from YAML pipelines, resumable to the bit.
#[derive(Parser)]
#[command(name = "pipe", version = version::SHORT, long_version = version::long(), about, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 done; 1 a stage failed; 2 bad usage, file or setting;\n75 stopped by SIGTERM or SIGHUP with a checkpoint saved; 130 stopped by Ctrl-C, likewise saved."
)]
pub struct Arguments {
    #[command(flatten)]
    pub output: Output,
    #[command(subcommand)]
    command: Command,
}

/// What goes to the terminal.
#[derive(Args)]
pub struct Output {
    /// Show progress and logs as text or as JSON lines (both on stderr)
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "text",
        value_name = "FORMAT",
        help_heading = "Output"
    )]
    pub log: LogFormat,
    /// Say more; twice for even more
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Output")]
    pub verbose: u8,
    /// Say only what went wrong
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Output")]
    pub quiet: bool,
}

impl Output {
    /// The same as arguments again.
    pub fn to_arguments(&self) -> Vec<String> {
        let json = (self.log == LogFormat::Json).then(|| "--log=json".to_owned());
        let verbose = (0..self.verbose).map(|_| "--verbose".to_owned());
        json.into_iter().chain(verbose).chain(self.quiet.then(|| "--quiet".to_owned())).collect()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Make a project that runs
    Init(init::InitArguments),
    /// Run what is not up to date
    Run(run::RunArguments),
    /// Say what would be done for each stage, and why
    Plan(plan::PlanArguments),
    /// Say how each stage stands
    Status(status::StatusArguments),
    /// End the Slurm jobs of a pipeline; what was saved stays
    Cancel(cancel::CancelArguments),
    /// Print what the last Slurm job of a stage wrote
    Logs(logs::LogsArguments),
    /// Check pipeline files without running anything
    Check(check::CheckArguments),
    /// Look at data sets before anything is trained: counts, what is passed over, bad images, a
    /// contact sheet
    Data(data::DataArguments),
    /// Print the dependency graph
    Graph(graph::GraphArguments),
    /// Write a pipeline as another program runs it: an Argo Workflow for Kubernetes
    Export(export::ExportArguments),
    /// List, show, compare, remove numbered runs
    Runs(runs::RunsArguments),
    /// Write a page with the graph, curves, samples and settings of runs
    Report(report::ReportArguments),
    /// Serve that page on this machine, following what runs
    Ui(ui::UiArguments),
    /// Remove what crashes left: half files, runs without content, checkpoints that no run lists
    Gc(clean::GcArguments),
    /// Compare every file of the project's state with what was noted of it
    Verify(verify::VerifyArguments),
    /// Look into a checkpoint file
    Ckpt(ckpt::CkptArguments),
    /// Draw images from a checkpoint
    Sample(sample::SampleArguments),
    /// Show the adapters that wgpu sees, and which one `auto` takes
    Devices(devices::DevicesArguments),
    /// Measure what a training costs on this machine
    Bench(bench::BenchArguments),
    /// Print a JSON schema for editors
    Schema(schema::SchemaArguments),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArguments),
    /// Print the manual, or write its pages
    Man(man::ManArguments),
}

pub use runs::Labels;
pub use status::StageStatus;

pub fn parse() -> Arguments {
    Arguments::try_parse().unwrap_or_else(|error| suggestions::with_suggestion(error).exit())
}

pub fn call(arguments: Arguments) -> Result<ExitCode, CliError> {
    match arguments.command {
        Command::Init(a) => init::init(a),
        Command::Run(a) => run::run(a, &arguments.output),
        Command::Plan(a) => plan::plan(a),
        Command::Status(a) => status::status(a),
        Command::Cancel(a) => cancel::cancel(a),
        Command::Logs(a) => logs::logs(a),
        Command::Check(a) => check::check(a),
        Command::Data(a) => data::data(a, &arguments.output),
        Command::Graph(a) => graph::graph(a),
        Command::Export(a) => export::export(a),
        Command::Runs(a) => runs::runs(a),
        Command::Report(a) => report::report(a),
        Command::Ui(a) => ui::ui(a),
        Command::Gc(a) => clean::gc(a),
        Command::Verify(a) => verify::verify(a),
        Command::Ckpt(a) => ckpt::ckpt(a),
        Command::Sample(a) => sample::sample(a, &arguments.output),
        Command::Devices(a) => devices::devices(a),
        Command::Bench(a) => bench::bench(a),
        Command::Schema(a) => schema::schema(a),
        Command::Completions(a) => completions::completions(a),
        Command::Man(a) => man::man(a),
    }
}

/// What the process ends with; see the help's last lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitCode(pub u8);

impl ExitCode {
    pub const SUCCESS: Self = Self(0);
}

impl From<u8> for ExitCode {
    fn from(code: u8) -> Self {
        Self(code)
    }
}

/// What ends the program with a message.
#[derive(Debug)]
pub struct CliError {
    messages: Vec<String>,
    code: u8,
}

impl CliError {
    /// Bad usage, file or setting.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self { messages: vec![message.to_string()], code: 2 }
    }

    /// The work itself failed.
    pub fn failed(message: impl fmt::Display) -> Self {
        Self { messages: vec![message.to_string()], code: 1 }
    }

    /// What went wrong with a stage.
    pub fn stage(stage: &str, error: &StageError) -> Self {
        let message = format!("stage {stage}: {error}");
        match error.failure {
            Failure::Setting => Self::usage(message),
            _ => Self::failed(message),
        }
    }

    /// What is to be printed, each with `error:` before it.
    pub fn messages(&self) -> &[String] {
        &self.messages
    }

    /// All that is wrong with several things.
    pub fn all(errors: Vec<Self>) -> Option<Self> {
        let code = errors.iter().map(|e| e.code).max()?;
        Some(Self { messages: errors.into_iter().flat_map(|e| e.messages).collect(), code })
    }

    /// Two things that went wrong; the first says how the process ends.
    pub fn both(first: Self, second: Self) -> Self {
        Self { messages: [first.messages, second.messages].concat(), code: first.code }
    }

    /// Adds a line of help to the last message.
    pub fn note(mut self, note: impl fmt::Display) -> Self {
        if let Some(message) = self.messages.last_mut() {
            message.push_str(&format!("\n  = {note}"));
        }
        self
    }

    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl From<SpecError> for CliError {
    fn from(error: SpecError) -> Self {
        Self::usage(error)
    }
}

impl From<SpecErrors> for CliError {
    fn from(errors: SpecErrors) -> Self {
        Self { messages: errors.iter().map(SpecError::to_string).collect(), code: 2 }
    }
}

/// Prints to stdout; a closed pipe (`pipe runs | head`) ends the program quietly. Whoever wrote
/// what is printed, it holds no secrets, and nothing that a terminal would obey.
#[macro_export]
macro_rules! say {
    ($($piece:tt)*) => { $crate::report::stdout::line(&format!($($piece)*)) };
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// The lines under `Examples:` in a command's help, those of its commands too.
    fn examples(command: &clap::Command, found: &mut Vec<(String, Vec<String>)>) {
        let help = command.get_after_help().map(|help| help.to_string()).unwrap_or_default();
        let lines =
            help.lines().filter_map(|line| line.strip_prefix("  ")).map(str::to_owned).collect();
        found.push((command.get_name().to_owned(), lines));
        command.get_subcommands().for_each(|command| examples(command, found));
    }

    /// The words of a line, as a shell has them: quotes, and an end at a pipe or a redirection.
    fn words(line: &str) -> Vec<String> {
        let line = line.split(" | ").next().unwrap().split(" > ").next().unwrap();
        let (mut words, mut quoted) = (vec![String::new()], false);
        for c in line.chars() {
            match c {
                '\'' => quoted = !quoted,
                ' ' if !quoted => words.push(String::new()),
                c => words.last_mut().unwrap().push(c),
            }
        }
        words
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples_and_every_example_is_understood() {
        let mut found = Vec::new();
        Arguments::command().get_subcommands().for_each(|command| examples(command, &mut found));
        for command in Arguments::command().get_subcommands() {
            let own = found.iter().find(|(name, _)| name == command.get_name()).unwrap();
            assert!(!own.1.is_empty(), "{} has no examples", own.0);
        }
        let mut tried = 0;
        for line in found.iter().flat_map(|(_, lines)| lines) {
            let own = line.split(" && ").filter(|part| part.starts_with("pipe "));
            for part in own {
                if let Err(error) = Arguments::try_parse_from(words(part)) {
                    panic!("{part}: {error}");
                }
                tried += 1;
            }
        }
        assert!(tried > 25, "{tried}");
    }
}

//! The command line: one file a command, no logic beyond turning arguments into calls.

mod audit;
mod bench;
mod cancel;
mod candidates;
mod check;
mod ckpt;
mod ckpt_again;
mod clean;
mod completions;
mod data;
mod devices;
mod doctor;
mod error;
mod export;
mod files;
mod forecast;
mod fork;
mod graph;
mod hook_client;
mod hub;
mod init;
mod job;
mod job_rank;
mod jobs;
mod kinds;
mod live;
mod logs;
mod lora;
mod man;
mod output_file;
mod pipeline_args;
mod pipeline_name;
mod plan;
mod project;
mod python;
mod recorded_run;
mod replay;
mod report;
mod resume_settings;
mod run;
mod run_folders;
mod run_summary;
mod runs;
mod sample;
mod sampler_arguments;
mod schema;
#[cfg(test)]
mod settings_tests;
pub mod signals;
mod slurm_job;
mod status;
mod store;
mod suggestions;
mod templates;
mod todays_stages;
mod trial;
mod ui;
mod verify;
mod version;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::CompleteEnv;
use pipe_models::architecture::Architectures;

pub use self::error::{CliError, ExitCode};
pub use self::kinds::Kinds;
use crate::report::Output;

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
    /// Print what a stage wrote when it ran last, here or in a job of Slurm
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
    /// Look into a checkpoint file, convert one, or make one again
    Ckpt(ckpt::CkptArguments),
    /// Train an interval of a run once more, and compare every bit with what it kept
    Audit(audit::AuditArguments),
    /// Train a new run that goes on from an epoch of a run with other settings
    Fork(fork::ForkArguments),
    /// Show a step of a training once more: its images, noise levels, losses and gradients
    Replay(replay::ReplayArguments),
    /// Say which layers of a model LoRA puts factors beside
    Lora(lora::LoraArguments),
    /// Ask a training that is under way for a checkpoint now
    ///
    /// Prints the path of the checkpoint once it stands. One inside an epoch stands until the next
    /// one does.
    Save(live::SaveArguments),
    /// Draw images from a checkpoint, or ask a training that is under way for a picture now
    Sample(sample::SampleArguments),
    /// Show the adapters that wgpu sees, and which one `auto` takes
    Devices(devices::DevicesArguments),
    /// Say what this machine has for a training, what it lacks, and what to type
    Doctor(doctor::DoctorArguments),
    /// Say to a `trainer` stage how far its training is
    Job(job::JobArguments),
    /// Write the Python package that such a training imports, as a wheel for pip
    Python(python::PythonArguments),
    /// Measure what a training costs on this machine
    Bench(bench::BenchArguments),
    /// Print a JSON schema for editors
    Schema(schema::SchemaArguments),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArguments),
    /// Print the manual, or write its pages
    Man(man::ManArguments),
}

impl Arguments {
    /// Whether the command wants to know what wgpu was asked for.
    pub fn counts_gpu_calls(&self) -> bool {
        matches!(&self.command, Command::Bench(a) if a.counts())
    }
}

/// Reads the command line; tells a shell that asks how it may go on, and ends then.
pub fn parse() -> Arguments {
    let command = || candidates::with_candidates(Arguments::command());
    CompleteEnv::with_factory(command).var(completions::VARIABLE).complete();
    Arguments::try_parse().unwrap_or_else(|error| suggestions::with_suggestion(error).exit())
}

/// Carries a command out.
pub fn call(
    arguments: Arguments,
    kinds: &Kinds,
    architectures: &Architectures,
) -> Result<ExitCode, CliError> {
    match arguments.command {
        Command::Init(a) => init::init(a, &arguments.output, kinds),
        Command::Run(a) => run::run(a, &arguments.output, kinds),
        Command::Plan(a) => plan::plan(a, kinds),
        Command::Status(a) => status::status(a, kinds),
        Command::Cancel(a) => cancel::cancel(a),
        Command::Logs(a) => logs::logs(a),
        Command::Check(a) => check::check(a, kinds),
        Command::Data(a) => data::data(a, &arguments.output, kinds),
        Command::Graph(a) => graph::graph(a, kinds),
        Command::Export(a) => export::export(a, kinds),
        Command::Runs(a) => runs::runs(a),
        Command::Report(a) => report::report(a, kinds),
        Command::Ui(a) => ui::ui(a, kinds),
        Command::Gc(a) => clean::gc(a),
        Command::Verify(a) => verify::verify(a, kinds),
        Command::Ckpt(a) => ckpt::ckpt(a, &arguments.output, (kinds, architectures)),
        Command::Audit(a) => audit::audit(a, &arguments.output, kinds),
        Command::Fork(a) => fork::fork(a, &arguments.output, kinds),
        Command::Replay(a) => replay::replay(a, &arguments.output, kinds),
        Command::Lora(a) => lora::lora(a, architectures),
        Command::Save(a) => live::save(a),
        Command::Sample(a) => sample::sample(a, &arguments.output, architectures),
        Command::Devices(a) => devices::devices(a),
        Command::Doctor(a) => doctor::doctor(a),
        Command::Job(a) => job::job(a),
        Command::Python(a) => python::python(a),
        Command::Bench(a) => bench::bench(a, architectures),
        Command::Schema(a) => schema::schema(a, kinds),
        Command::Completions(a) => completions::completions(a),
        Command::Man(a) => man::man(a, Arguments::command()),
    }
}

#[cfg(test)]
mod tests {
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
    fn every_argument_says_what_it_is() {
        fn mute(command: &clap::Command, path: &str, found: &mut Vec<String>) {
            let path = format!("{path} {}", command.get_name());
            let silent = command.get_arguments().filter(|arg| arg.get_help().is_none());
            found.extend(silent.map(|arg| format!("{path} {}", arg.get_id())));
            command.get_subcommands().for_each(|command| mute(command, &path, found));
        }
        let mut found = Vec::new();
        mute(&Arguments::command(), "", &mut found);
        assert!(found.is_empty(), "{found:?}");
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

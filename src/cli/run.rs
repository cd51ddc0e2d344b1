//! `pipe run FILE [STAGE…]`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pipe_engine::exec::{self, Execution, Summary};
use pipe_engine::graph::Graph;
use pipe_engine::identity;
use pipe_engine::kind::{Failure, Request};
use pipe_engine::plan::{self, Plan};
use pipe_engine::source::Source;
use pipe_engine::spec::{self, Override, PipelineFile, Strength};
use pipe_engine::stop::Stop;

use super::{CliError, Output, project, signals};
use crate::{report, say};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe run pipelines/base_training.yaml\n  pipe run pipelines/base_training.yaml --epochs 10 --learning-rate 1e-3\n  pipe run pipelines/base_training.yaml --run-number 1 --resume --epochs 20"
)]
pub struct RunArguments {
    /// Pipeline file
    file: PathBuf,
    /// Run only these stages and what they need
    #[arg(value_name = "STAGE")]
    stages: Vec<String>,
    /// Total epochs (not "more")
    #[arg(long, value_name = "N")]
    epochs: Option<String>,
    /// Images in a batch
    #[arg(long, value_name = "N")]
    batch_size: Option<String>,
    /// Peak learning rate
    #[arg(long, value_name = "LR")]
    learning_rate: Option<String>,
    /// Data set: shapes, trees, cifar10, cifar100, imagenette or image_folder
    #[arg(long, value_name = "NAME")]
    dataset: Option<String>,
    /// Where to compute: auto, cpu, gpu, gpu:N
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Seed of everything random
    #[arg(long, value_name = "N")]
    seed: Option<String>,
    /// Set a parameter or any setting: `epochs=20`, `base.optimizer.weight_decay=0.1`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Use this numbered run instead of the next free or the fitting one
    #[arg(long, value_name = "N")]
    run_number: Option<u32>,
    /// Go on from the run's last checkpoint
    #[arg(long)]
    resume: bool,
    /// Run even what is up to date, as a new run
    #[arg(long, conflicts_with = "resume")]
    force: bool,
    /// After a failure go on with stages that do not depend on it
    #[arg(long)]
    keep_going: bool,
    /// Print the plan and stop
    #[arg(long)]
    dry_run: bool,
}

pub fn run(arguments: RunArguments, output: &Output) -> Result<ExitCode, CliError> {
    let root = project::root()?;
    let overrides = overrides(&arguments, &root)?;
    let pipeline = spec::load(&root, &arguments.file, &project::kinds(), &overrides)?;
    let graph = Graph::build(pipeline)?;
    for warning in &graph.pipeline.warnings {
        eprintln!("warning: {warning}");
    }
    let selected = graph.select(&arguments.stages)?;
    let manifests = identity::manifests(&graph);
    let stop = Stop::default();
    let report = report::reporter(output);
    let execution = Execution {
        root: &root,
        graph: &graph,
        manifests: &manifests,
        request: Request {
            run_number: arguments.run_number,
            resume: arguments.resume,
            force: arguments.force,
        },
        keep_going: arguments.keep_going,
        stop: &stop,
        report: report.as_ref(),
    };
    let observed =
        exec::observe(&execution, &selected).map_err(|(stage, error)| stage_error(stage.as_str(), &error))?;
    let plan = plan::plan(&graph, &selected, &observed);
    if arguments.dry_run {
        print_plan(&plan);
        return Ok(ExitCode::SUCCESS);
    }
    signals::watch(stop.clone())?;
    let summary = exec::execute(&execution, &plan, observed);
    report.finish();
    conclude(&arguments, &summary, &stop)
}

fn print_plan(plan: &Plan) {
    let width = plan.steps.iter().map(|s| s.stage.as_str().len()).max().unwrap_or(0);
    let words = plan.steps.iter().map(|s| s.action.to_string().len()).max().unwrap_or(0);
    for step in &plan.steps {
        say!("{:width$}  {:words$}  {}", step.stage, step.action.to_string(), step.reason);
    }
}

fn conclude(arguments: &RunArguments, summary: &Summary, stop: &Stop) -> Result<ExitCode, CliError> {
    for (stage, line) in &summary.finished {
        say!("{stage}: {line}");
    }
    if summary.finished.is_empty() && summary.failed.is_empty() && stop.requested().is_none() {
        say!("everything is up to date (`--force` runs it again)");
    }
    if let Some((stage, error)) =
        summary.failed.iter().find(|(_, e)| !matches!(e.failure, Failure::Interrupted(_)))
    {
        return Err(stage_error(stage.as_str(), error));
    }
    if let Some(signal) = stop.requested() {
        say!("stopped by {}; go on with: pipe run {}", signal.name(), arguments.file.display());
        return Ok(ExitCode::from(signal.exit_code()));
    }
    Ok(ExitCode::SUCCESS)
}

fn stage_error(stage: &str, error: &pipe_engine::kind::StageError) -> CliError {
    match error.failure {
        Failure::Setting => CliError::usage(format!("stage {stage}: {error}")),
        _ => CliError::failed(format!("stage {stage}: {error}")),
    }
}

/// Environment, then `--set`, then the shorthand flags: weakest first.
fn overrides(arguments: &RunArguments, root: &Path) -> Result<Vec<Override>, CliError> {
    let mut all = spec::environment().map_err(CliError::usage)?;
    for text in &arguments.set {
        let shown = format!("--set {text}");
        all.push(Override::parse(text, shown, Strength::CommandLine).map_err(CliError::usage)?);
    }
    let dataset = arguments.dataset.as_ref().map(|name| name.to_lowercase());
    // The name of a data set is a parameter, or else the source of the `dataset` stage.
    let file = PipelineFile::parse(Source::read(&root.join(&arguments.file), &arguments.file)?)?;
    let dataset_key = if file.params.contains_key("dataset") { "dataset" } else { "source" };
    let flags = [
        ("epochs", "--epochs", &arguments.epochs),
        ("batch_size", "--batch-size", &arguments.batch_size),
        ("learning_rate", "--learning-rate", &arguments.learning_rate),
        (dataset_key, "--dataset", &dataset),
        ("device", "--device", &arguments.device),
        ("seed", "--seed", &arguments.seed),
    ];
    for (key, flag, value) in flags {
        let Some(value) = value else { continue };
        let shown = format!("{flag} {value}");
        all.push(Override::new(key, value, shown, Strength::CommandLine).map_err(CliError::usage)?);
    }
    Ok(all)
}

//! `pipe check FILE…`

use std::path::{Path, PathBuf};

use pipe_engine::graph::Graph;
use pipe_engine::pipeline_file::environment;

use super::pipeline_args::SettingArgs;
use super::{CliError, ExitCode, Kinds, project};
use crate::report::message;
use crate::report::stdout::say;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe check pipelines/base_training.yaml\n  pipe check pipelines/base_training.yaml pipelines/sweep.yaml\n  pipe check pipelines/base_training.yaml --epochs 20 --set base.optimizer.weight_decay=0.1"
)]
pub struct CheckArguments {
    /// Pipeline files
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    settings: SettingArgs,
}

pub fn check(arguments: CheckArguments, kinds: &Kinds) -> Result<ExitCode, CliError> {
    let mut errors = Vec::new();
    for file in &arguments.files {
        match load(file, &arguments.settings, kinds) {
            Ok(graph) => {
                let warnings = &graph.pipeline.warnings;
                warnings.iter().for_each(|warning| message::warning(&warning.to_string()));
                let doubts = match warnings.len() {
                    0 => String::new(),
                    n => format!(", {}", counted(n, "warning")),
                };
                let stages = counted(graph.stages().count(), "stage");
                say!("{}: valid, {stages}{doubts}", file.display());
            }
            Err(error) => errors.push(error),
        }
    }
    CliError::all(errors).map_or(Ok(ExitCode::SUCCESS), Err)
}

fn load(file: &Path, settings: &SettingArgs, kinds: &Kinds) -> Result<Graph, CliError> {
    project::enter(Some(file))?;
    settings.load(&project::root()?, &project::path(file), environment::settings(), kinds)
}

fn counted(n: usize, what: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {what}{plural}")
}

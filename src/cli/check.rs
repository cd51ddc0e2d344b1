//! `pipe check [FILE…]`

use std::path::{Path, PathBuf};

use pipe_engine::graph::Graph;
use pipe_engine::pipeline_file::environment;

use super::pipeline_args::SettingArgs;
use super::pipeline_name::{self, HERE};
use super::{CliError, ExitCode, Kinds, project};
use crate::report::message;
use crate::report::stdout::say;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe check pipelines/base_training.yaml\n  pipe check pipelines/base_training.yaml pipelines/sweep.yaml\n  pipe check pipelines/base_training.yaml --epochs 20 --set base.optimizer.weight_decay=0.1"
)]
pub struct CheckArguments {
    /// Pipeline files, or their names; all of the project if there is none
    files: Vec<PathBuf>,
    #[command(flatten)]
    settings: SettingArgs,
}

pub fn check(arguments: CheckArguments, kinds: &Kinds) -> Result<ExitCode, CliError> {
    let (mut errors, mut files) = (Vec::new(), Vec::new());
    for typed in arguments.files {
        match pipeline_name::resolve(&typed) {
            Ok(file) => files.push(file),
            Err(error) => errors.push(error),
        }
    }
    if files.is_empty() && errors.is_empty() {
        files = pipeline_name::all(Path::new(HERE));
        if files.is_empty() {
            errors.extend(pipeline_name::resolve(Path::new(HERE)).err());
        }
    }
    for file in &files {
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

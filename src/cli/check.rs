//! `pipe check FILE…`

use std::path::PathBuf;

use super::{CliError, ExitCode, project};
use crate::report::message;
use crate::say;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe check pipelines/base_training.yaml\n  pipe check pipelines/base_training.yaml pipelines/sweep.yaml"
)]
pub struct CheckArguments {
    /// Pipeline files
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

pub fn check(arguments: CheckArguments) -> Result<ExitCode, CliError> {
    let mut errors = Vec::new();
    for file in &arguments.files {
        match project::enter(Some(file)).and_then(|()| project::load(&project::path(file), &[])) {
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

fn counted(n: usize, what: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {what}{plural}")
}

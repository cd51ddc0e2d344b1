//! `pipe check FILE…`

use std::path::PathBuf;

use super::{CliError, ExitCode, project};
use crate::say;

#[derive(clap::Args)]
pub struct CheckArguments {
    /// Pipeline files
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

pub fn check(arguments: CheckArguments) -> Result<ExitCode, CliError> {
    let mut errors = Vec::new();
    for file in &arguments.files {
        match project::load(file, &[]) {
            Ok(graph) => {
                let stages = graph.stages().count();
                let plural = if stages == 1 { "" } else { "s" };
                say!("{}: valid, {stages} stage{plural}", file.display());
            }
            Err(error) => errors.push(error.to_string()),
        }
    }
    if errors.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(CliError::usage(errors.join("\nerror: "))) }
}

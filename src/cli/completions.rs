//! `pipe completions SHELL`

use clap::CommandFactory;

use super::{Arguments, CliError, ExitCode};

#[derive(clap::Args)]
pub struct CompletionsArguments {
    shell: clap_complete::Shell,
}

pub fn completions(arguments: CompletionsArguments) -> Result<ExitCode, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "pipe", &mut script);
    crate::say!("{}", String::from_utf8_lossy(&script).trim_end());
    Ok(ExitCode::SUCCESS)
}

//! `pipe completions SHELL`

use super::{CliError, ExitCode};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe completions bash > ~/.local/share/bash-completion/completions/pipe\n  pipe completions zsh > ~/.zfunc/_pipe\n  pipe completions fish > ~/.config/fish/completions/pipe.fish"
)]
pub struct CompletionsArguments {
    /// The shell that is to read it
    shell: clap_complete::Shell,
}

/// `program`: the whole command line.
pub fn completions(
    arguments: CompletionsArguments,
    mut program: clap::Command,
) -> Result<ExitCode, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut program, "pipe", &mut script);
    crate::report::stdout::document(String::from_utf8_lossy(&script).trim_end());
    Ok(ExitCode::SUCCESS)
}

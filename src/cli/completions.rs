//! `pipe completions SHELL`

use clap_complete::env::Shells;

use super::{CliError, ExitCode};

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe completions bash > ~/.local/share/bash-completion/completions/pipe\n  pipe completions zsh > ~/.zfunc/_pipe\n  pipe completions fish > ~/.config/fish/completions/pipe.fish"
)]
pub struct CompletionsArguments {
    /// The shell that is to read it
    shell: clap_complete::Shell,
}

/// Asks the program what the words typed so far may go on with: the shells' scripts set it.
pub const VARIABLE: &str = "PIPE_COMPLETE";

/// The script knows no words itself: it asks the program, which knows the stages and runs of the
/// project.
pub fn completions(arguments: CompletionsArguments) -> Result<ExitCode, CliError> {
    let (shells, name) = (Shells::builtins(), arguments.shell.to_string());
    let unknown = || CliError::usage(format!("{name} cannot ask for completions"));
    let shell = shells.completer(&name).ok_or_else(unknown)?;
    let mut script = Vec::new();
    shell
        .write_registration(VARIABLE, "pipe", "pipe", "pipe", &mut script)
        .map_err(CliError::failed)?;
    crate::report::stdout::document(String::from_utf8_lossy(&script).trim_end());
    Ok(ExitCode::SUCCESS)
}

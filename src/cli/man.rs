//! `pipe man`

use std::path::PathBuf;

use super::{CliError, ExitCode};
use crate::report::stdout;
use crate::report::stdout::say;

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  pipe man > pipe.1\n  pipe man --dir ~/.local/share/man/man1")]
pub struct ManArguments {
    /// Write the pages of all commands into this folder: pipe.1, pipe-run.1, …
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// `program`: the whole command line.
pub fn man(arguments: ManArguments, program: clap::Command) -> Result<ExitCode, CliError> {
    let Some(folder) = arguments.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(program).render(&mut page).map_err(CliError::failed)?;
        stdout::document(String::from_utf8_lossy(&page).trim_end());
        return Ok(ExitCode::SUCCESS);
    };
    let failed = |e: std::io::Error| {
        CliError::failed(format!("failed to write the manual into {}: {e}", folder.display()))
    };
    std::fs::create_dir_all(&folder).map_err(failed)?;
    clap_mangen::generate_to(program, &folder).map_err(failed)?;
    say!("{}", folder.display());
    Ok(ExitCode::SUCCESS)
}

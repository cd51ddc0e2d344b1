//! The program `pipe`: reads the command line, calls a command, prints an error once.

mod cli;
mod report;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = cli::parse();
    report::log::start(&arguments.output);
    let code = match cli::call(arguments) {
        Ok(code) => code,
        Err(error) => {
            report::stderr::line(format!("error: {error}"));
            error.exit_code()
        }
    };
    report::stderr::flush();
    code
}

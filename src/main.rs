//! The program `pipe`: reads the command line, calls a command, prints an error once.

// What comes from outside must not be able to end the program.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::todo,
        clippy::unimplemented
    )
)]

mod allocator;
mod cli;
mod labels;
mod report;

use std::io::Write;

fn main() {
    allocator::keep_memory();
    pipe_train::device::fix_configuration();
    let arguments = cli::parse();
    report::message::init(&arguments.output);
    report::log::init(&arguments.output);
    cli::signals::ignore_file_size_signal();
    let code = match cli::call(arguments) {
        Ok(code) => code,
        Err(error) => {
            error.messages().iter().for_each(|message| report::message::error(message));
            error.exit_code()
        }
    };
    report::stderr::flush();
    let _ = std::io::stdout().flush();
    // Without C's exit handlers: those of GPU drivers race with the drivers' own threads, and can
    // turn a training that was completed into a crash.
    signal_hook::low_level::exit(i32::from(code.0));
}

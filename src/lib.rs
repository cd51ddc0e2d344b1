//! The program `pipe` as a library: the whole command line over stage kinds and architectures of
//! one's own.
//!
//! ```no_run
//! // A program that is `pipe`, and could have further architectures and stage kinds.
//! let architectures = burn_pipe::Architectures::builtin();
//! burn_pipe::main_with(burn_pipe::kinds(&architectures), architectures);
//! ```
//!
//! `examples/custom_stage.rs` adds a stage kind, `examples/custom_architecture.rs` an architecture.
//! To run pipelines without a command line, see
//! `pipe_engine::session`.

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

mod cli;
mod report;

use std::io::Write;
use std::sync::Arc;

use pipe_engine::command::CommandKind;
use pipe_engine::kind::StageKind;
pub use pipe_models::architecture::Architectures;
use pipe_trainer::program::TrainerKind;
pub use {pipe_core, pipe_engine, pipe_fs, pipe_models, pipe_runs, pipe_train, pipe_trainer};

/// Every stage kind of the product, for models of these architectures.
pub fn kinds(architectures: &Architectures) -> Vec<Arc<dyn StageKind>> {
    let mut kinds = pipe_train::stages::kinds(architectures);
    kinds.push(Arc::new(TrainerKind));
    kinds.push(Arc::new(CommandKind));
    kinds
}

/// The program: reads the command line, calls a command, prints an error once, and ends the
/// process. Pipeline files may use these stage kinds, commands read models of these architectures.
pub fn main_with(kinds: Vec<Arc<dyn StageKind>>, architectures: Architectures) -> ! {
    pipe_train::device::fix_configuration();
    let arguments = cli::parse();
    report::message::init(&arguments.output);
    report::log::init(&arguments.output, arguments.counts_gpu_calls());
    cli::signals::ignore_file_size_signal();
    let code = match cli::call(arguments, &kinds, &architectures) {
        Ok(code) => code,
        Err(error) => {
            error.messages().iter().for_each(|wrong| report::message::error(&wrong.text));
            error.exit_code()
        }
    };
    report::stderr::flush();
    let _ = std::io::stdout().flush();
    // Without C's exit handlers: those of GPU drivers race with the drivers' own threads, and can
    // turn a training that was completed into a crash.
    signal_hook::low_level::exit(i32::from(code.0));
}

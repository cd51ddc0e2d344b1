//! Ctrl-C and SIGTERM: the first asks running stages to save and stop, a second Ctrl-C ends the program at once.

use pipe_engine::stop::{Signal, Stop};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::CliError;

/// Starts the thread that turns signals into the wish to stop.
pub fn watch(stop: Stop) -> Result<(), CliError> {
    let mut signals = Signals::new([SIGINT, SIGTERM])
        .map_err(|e| CliError::failed(format!("failed to install the signal handlers: {e}")))?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            let signal = if signal == SIGTERM { Signal::Terminate } else { Signal::Interrupt };
            if stop.requested().is_some() && signal == Signal::Interrupt {
                // Checkpoints are put in place by renaming, so nothing that was saved is lost.
                std::process::exit(i32::from(signal.exit_code()));
            }
            stop.request(signal);
            eprintln!(
                "\n{}: saving a checkpoint, then stopping (Ctrl-C again to stop at once)",
                signal.name()
            );
        }
    });
    Ok(())
}

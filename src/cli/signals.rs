//! Ctrl-C, SIGTERM and a closed terminal: the first asks running stages to save and stop, a second
//! Ctrl-C ends the program at once.

use std::sync::Arc;

use pipe_core::stop::{Signal, Stop};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::CliError;
use crate::report::stderr;

/// Starts the thread that turns signals into the wish to stop.
pub fn watch(stop: Stop) -> Result<(), CliError> {
    watch_with_message(stop, |_| {
        "saving a checkpoint, then stopping (Ctrl-C again to stop at once)".to_owned()
    })
}

/// The same, with other words for what follows a signal.
pub fn watch_with_message(
    stop: Stop,
    message: impl Fn(Signal) -> String + Send + 'static,
) -> Result<(), CliError> {
    let mut which = vec![SIGINT, SIGTERM];
    if !ignores_hangup() {
        which.push(SIGHUP);
    }
    let mut signals = listen(&which)?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            let signal = match signal {
                SIGTERM => Signal::Terminate,
                SIGHUP => Signal::HangUp,
                _ => Signal::Interrupt,
            };
            if stop.requested().is_some() && signal == Signal::Interrupt {
                // Checkpoints are put in place by renaming, so nothing that was saved is lost.
                // Programs would go on.
                pipe_engine::command::end_all();
                std::process::exit(i32::from(signal.exit_code()));
            }
            stop.request(signal);
            stderr::line(format!("\n{}: {}", signal.name(), message(signal)));
        }
    });
    Ok(())
}

/// A file that grows longer than `ulimit -f` allows is an error of whoever writes it, and not the
/// end of the process. What it starts has the signal as usual.
pub fn ignore_file_size_signal() {
    #[cfg(unix)]
    if let Err(error) = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default()) {
        tracing::debug!("SIGXFSZ: {error}");
    }
}

/// For a program that has nothing to save: a signal is a wish to stop, and nothing is said.
pub fn stop_on_signal(stop: Stop) -> Result<(), CliError> {
    let mut signals = listen(&[SIGINT, SIGTERM, SIGHUP])?;
    std::thread::spawn(move || signals.forever().for_each(|_| stop.request(Signal::Interrupt)));
    Ok(())
}

fn listen(which: &[i32]) -> Result<Signals, CliError> {
    Signals::new(which)
        .map_err(|e| CliError::failed(format!("failed to install the signal handlers: {e}")))
}

/// Whether the program was started with `nohup`: then it goes on when its terminal closes.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (SIGHUP - 1)) != 0
}

//! Points at which tests end the process or make the disk refuse. Every change that the store makes
//! to the disk passes one. Without the feature `faults` they do nothing.
//!
//! `BURN_PIPE_FAULT` says what happens where: `kill@17` ends the process as SIGKILL does before the
//! 17th change (within it, if that writes bytes: half of them are there), `term@17` sends it
//! SIGTERM and goes on, `full@17` and `denied@17` make that change fail, `full@17+` this and all
//! later ones that need room. `BURN_PIPE_FAULT_LOG` names a file that lists the changes.
//! `BURN_PIPE_FAULT_STAMP` has a file that was put back with its time be the same file: tests that
//! put a disk in the state before a power cut have no other way to.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use crate::disk::Disk;

pub use crate::io_counters::Change;

/// Passes the point before a change.
pub fn point(disk: &Disk, change: Change, path: &Path) -> io::Result<()> {
    disk.counters().change(change);
    imp::point(change, path)
}

/// One write of bytes.
pub fn write(disk: &Disk, file: &File, path: &Path, bytes: &[u8]) -> io::Result<usize> {
    let written = imp::write(Change::Write, file, path, bytes);
    written.inspect(|written| disk.counters().wrote(*written))
}

/// Whether files are known by their size and time of modification alone.
pub fn stamps_are_short() -> bool {
    imp::stamps_are_short()
}

#[cfg(not(feature = "faults"))]
mod imp {
    use super::*;

    pub fn stamps_are_short() -> bool {
        false
    }

    pub fn point(_: Change, _: &Path) -> io::Result<()> {
        Ok(())
    }

    pub fn write(_: Change, mut file: &File, _: &Path, bytes: &[u8]) -> io::Result<usize> {
        file.write(bytes)
    }
}

#[cfg(feature = "faults")]
mod imp {
    use std::fs::OpenOptions;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[derive(Clone, Copy)]
    enum What {
        Kill,
        Terminate,
        Full,
        Denied,
    }

    struct Script {
        what: What,
        first: u64,
        and_later: bool,
    }

    fn script() -> Option<&'static Script> {
        static SCRIPT: OnceLock<Option<Script>> = OnceLock::new();
        let read = || {
            let text = std::env::var("BURN_PIPE_FAULT").ok()?;
            let (what, at) = text.split_once('@')?;
            let what = match what {
                "kill" => What::Kill,
                "term" => What::Terminate,
                "full" => What::Full,
                "denied" => What::Denied,
                _ => return None,
            };
            let first = at.trim_end_matches('+').parse().ok()?;
            Some(Script { what, first, and_later: at.ends_with('+') })
        };
        SCRIPT.get_or_init(read).as_ref()
    }

    /// What is to happen at this change.
    fn next(change: Change, path: &Path) -> Option<What> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some(log) = std::env::var_os("BURN_PIPE_FAULT_LOG")
            && let Ok(mut file) = OpenOptions::new().create(true).append(true).open(log)
        {
            let _ = writeln!(file, "{count} {change:?} {}", path.display());
        }
        let script = script()?;
        let here = count == script.first || (script.and_later && count > script.first);
        let needs_room = !matches!(change, Change::Remove | Change::Rename);
        (here && (needs_room || !matches!(script.what, What::Full))).then_some(script.what)
    }

    fn act(what: What) -> io::Result<()> {
        match what {
            What::Kill => {
                let _ = kill_process(getpid(), Signal::KILL);
                loop {
                    std::thread::park();
                }
            }
            What::Terminate => {
                let _ = kill_process(getpid(), Signal::TERM);
                // Until the thread that hears signals has heard it.
                std::thread::sleep(std::time::Duration::from_millis(20));
                Ok(())
            }
            What::Full => Err(io::ErrorKind::StorageFull.into()),
            What::Denied => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }

    pub fn stamps_are_short() -> bool {
        static SHORT: OnceLock<bool> = OnceLock::new();
        *SHORT.get_or_init(|| std::env::var_os("BURN_PIPE_FAULT_STAMP").is_some())
    }

    pub fn point(change: Change, path: &Path) -> io::Result<()> {
        next(change, path).map_or(Ok(()), act)
    }

    pub fn write(change: Change, mut file: &File, path: &Path, bytes: &[u8]) -> io::Result<usize> {
        match next(change, path) {
            None => file.write(bytes),
            Some(what) => {
                let (half, rest) = bytes.split_at(bytes.len() / 2);
                file.write_all(half)?;
                act(what)?;
                file.write_all(rest)?;
                Ok(bytes.len())
            }
        }
    }
}

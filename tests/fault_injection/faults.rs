//! What ends the program or makes the disk refuse, as two variables of its environment say.
//!
//! `BURN_PIPE_FAULT` says what happens where: `kill@17` ends the process as SIGKILL does before the
//! 17th change (within it, if that writes bytes: half of them are there), `term@17` sends it
//! SIGTERM and goes on, `full@17` and `denied@17` make that change fail, `full@17+` this and all
//! later ones that need room. `BURN_PIPE_FAULT_LOG` names a file that lists the changes.
//! `BURN_PIPE_FAULT_STAMP` has a file that was put back with its time be the same file.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use pipe_fs::fault::{self, Change, Faults};
use rustix::process::{Signal, getpid, kill_process};

/// The name of the file by which this binary is started as the program.
const NAME: &str = "pipe";

/// The program with its faults: this binary by another name, so that nothing is compiled twice.
pub fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let folder = own.with_extension("program");
    std::fs::create_dir_all(&folder).unwrap();
    let program = folder.join(NAME);
    let _ = std::fs::remove_file(&program);
    // A symbolic link would not do: the program that it starts again would be that behind it.
    std::fs::hard_link(&own, &program)
        .or_else(|_| std::fs::copy(&own, &program).map(drop))
        .unwrap();
    program
}

/// Whether this process is to be the program.
pub fn is_program() -> bool {
    let name = std::env::args_os().next();
    name.is_some_and(|name| Path::new(&name).file_name().is_some_and(|name| name == NAME))
}

/// Is the program.
pub fn run_program() {
    fault::install(Box::new(Scripted { script: Script::read(), count: AtomicU64::new(0) }));
    let architectures = burn_pipe::Architectures::builtin();
    burn_pipe::main_with(burn_pipe::kinds(&architectures), architectures);
}

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

impl Script {
    fn read() -> Option<Self> {
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
        Some(Self { what, first, and_later: at.ends_with('+') })
    }
}

struct Scripted {
    script: Option<Script>,
    /// Changes so far.
    count: AtomicU64,
}

impl Scripted {
    /// What is to happen at this change.
    fn next(&self, change: Change, path: &Path) -> Option<What> {
        let count = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some(log) = std::env::var_os("BURN_PIPE_FAULT_LOG")
            && let Ok(mut file) = OpenOptions::new().create(true).append(true).open(log)
        {
            let _ = writeln!(file, "{count} {change:?} {}", path.display());
        }
        let script = self.script.as_ref()?;
        let here = count == script.first || (script.and_later && count > script.first);
        let needs_room = !matches!(change, Change::Remove | Change::Rename);
        (here && (needs_room || !matches!(script.what, What::Full))).then_some(script.what)
    }
}

impl Faults for Scripted {
    fn point(&self, change: Change, path: &Path) -> io::Result<()> {
        self.next(change, path).map_or(Ok(()), act)
    }

    fn write(&self, mut file: &File, path: &Path, bytes: &[u8]) -> io::Result<usize> {
        match self.next(Change::Write, path) {
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

    fn stamps_are_short(&self) -> bool {
        std::env::var_os("BURN_PIPE_FAULT_STAMP").is_some()
    }
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

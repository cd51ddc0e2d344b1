//! Who has a lock, and the program that has it where that outlived the `pipe` that started it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::host::host;

/// Bytes of a lock file that are read.
const MOST: u64 = 4096;

/// Who has a lock: `pid 123 on host`, or in words the program that was left behind; then also a
/// command that ends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder(pub String, pub Option<String>);

impl Holder {
    pub(crate) fn read(file: &mut File, path: &Path) -> Self {
        let mut noted = Vec::new();
        let _ = file.take(MOST).read_to_end(&mut noted);
        let noted = String::from_utf8_lossy(&noted);
        let mut lines = noted.lines().map(str::trim);
        let (pipe, program) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let behind = number(pipe)
            .filter(|_| !program.is_empty())
            .and_then(|pid| left_behind(pid, program, path));
        behind.unwrap_or_else(|| Self(pipe.to_owned(), None))
    }
}

/// The number in `pid 123 on host`, if it is this host.
fn number(pipe: &str) -> Option<i32> {
    let (pid, of) = pipe.strip_prefix("pid ")?.split_once(" on ")?;
    pid.parse().ok().filter(|_| of == host())
}

/// What to say of a `program` (`pid 124: sleep 60`) if the process that started it is gone.
#[cfg(unix)]
fn left_behind(pipe: i32, program: &str, path: &Path) -> Option<Holder> {
    use rustix::io::Errno;
    use rustix::process::{Pid, test_kill_process};
    #[cfg(target_os = "linux")]
    {
        let holders = crate::processes::holders(path);
        if holders.contains(&pipe) {
            return None;
        }
        if !holders.is_empty() {
            let named = |pid: &i32| format!("{} (pid {pid})", crate::processes::command_line(*pid));
            let names = holders.iter().map(named).collect::<Vec<_>>().join(", ");
            let pids = holders.iter().map(i32::to_string).collect::<Vec<_>>().join(" ");
            return Some(words(pipe, &names, format!("kill {pids}")));
        }
    }
    let is_gone = test_kill_process(Pid::from_raw(pipe)?) == Err(Errno::SRCH);
    let (pid, name) = program.strip_prefix("pid ")?.split_once(": ").filter(|_| is_gone)?;
    Some(words(pipe, &format!("{name} (pid {pid})"), format!("kill -- -{pid}")))
}

#[cfg(not(unix))]
fn left_behind(_: i32, _: &str, _: &Path) -> Option<Holder> {
    None
}

#[cfg(unix)]
fn words(pipe: i32, names: &str, way_out: String) -> Holder {
    let names = pipe_core::secret::mask(names);
    Holder(
        format!("{names}, left behind by a `pipe` that was ended by force (pid {pipe})"),
        Some(way_out),
    )
}

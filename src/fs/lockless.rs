//! Locks where the file system has none. What a lock file says of its holder is believed as long as
//! that process has the file open: so processes of one machine still notice each other, and those
//! of several machines do not.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Takes the lock of an open file, if nobody else has it.
pub(crate) fn try_lock(file: &File, path: &Path) -> Result<(), TryLockError> {
    match file.try_lock() {
        Err(TryLockError::Error(error)) if has_none(&error) => {
            warn(path, &error);
            if is_held(file) { Err(TryLockError::WouldBlock) } else { Ok(()) }
        }
        done => done,
    }
}

/// Whether an error says that a file system has no locks.
pub fn has_none(error: &io::Error) -> bool {
    #[cfg(unix)]
    {
        use rustix::io::Errno;
        const NONE: [Errno; 5] =
            [Errno::NOLCK, Errno::NOSYS, Errno::NOTSUP, Errno::OPNOTSUPP, Errno::INVAL];
        Errno::from_io_error(error).is_some_and(|error| NONE.contains(&error))
    }
    #[cfg(not(unix))]
    {
        error.kind() == io::ErrorKind::Unsupported
    }
}

fn warn(path: &Path, error: &io::Error) {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if !WARNED.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            "{} cannot be locked ({error}): two machines that run this at once would not notice each other, and both \
             write the same files; let only one work here at a time",
            path.display()
        );
    }
}

/// Whether the process that is noted in a lock file is one of this machine that has the file open,
/// besides `file`.
#[cfg(target_os = "linux")]
fn is_held(file: &File) -> bool {
    use std::os::unix::fs::{FileExt, MetadataExt};
    let mut noted = [0; 256];
    let length = file.read_at(&mut noted, 0).unwrap_or(0);
    let noted = String::from_utf8_lossy(&noted[..length]);
    let holder =
        noted.lines().next().and_then(|line| line.strip_prefix("pid ")?.split_once(" on "));
    let Some((Ok(pid), host)) = holder.map(|(pid, host)| (pid.parse::<u32>(), host)) else {
        return false;
    };
    if host.trim() != crate::host::host() {
        return false;
    }
    let id =
        |found: io::Result<std::fs::Metadata>| found.ok().map(|found| (found.dev(), found.ino()));
    let own = id(file.metadata());
    match std::fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(open) => {
            let open =
                open.flatten().filter(|one| id(std::fs::metadata(one.path())) == own).count();
            // `file` itself is one of this process's.
            open > usize::from(pid == std::process::id())
        }
        // Somebody else's, who lives.
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    }
}

#[cfg(not(target_os = "linux"))]
fn is_held(_: &File) -> bool {
    false
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use crate::host::host;

    #[test]
    fn what_a_lock_file_says_holds_while_its_process_has_it_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.lock");
        let held = |text: String| {
            std::fs::write(&path, text).unwrap();
            is_held(&File::open(&path).unwrap())
        };
        let own = || format!("pid {} on {}\n", std::process::id(), host());
        assert!(!held(String::new()) && !held("anything".into()));
        assert!(!held(own()), "given back");
        let lock = File::open(&path).unwrap();
        assert!(held(own()));
        assert!(!held(format!("pid {} on another-machine\n", std::process::id())));
        drop(lock);
        let mut other = std::process::Command::new("sleep");
        let other = other.arg("60").stdin(File::open(&path).unwrap()).spawn();
        let mut other = other.unwrap();
        assert!(held(format!("pid {} on {}\n", other.id(), host())));
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(!held(format!("pid {} on {}\n", other.id(), host())), "it has ended");
    }
}

//! A lock file that the system frees when its process ends, however that ends: no stale locks, no
//! unlock command.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::atomic::open_own;
use crate::fault::{Change, point, write};
use crate::holder::Holder;
use crate::host::host;
use crate::write_error::{WriteError, failed};
use crate::{io_counters, lockless};

/// Why a lock could not be asked for.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Something else stands in the place of the lock file.
    #[error("{}: {message}", path.display())]
    Damaged { path: PathBuf, message: String },
}

/// Held as long as it lives.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Drop for Lock {
    /// Gives the lock back, also where a program that was started with it has it open.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

impl Lock {
    /// Takes the lock, or says at once who has it. Creates the file if it is not there.
    pub fn take(path: &Path) -> Result<Result<Self, Holder>, LockError> {
        let options =
            || OpenOptions::new().read(true).write(true).create(true).truncate(false).to_owned();
        for _ in 0..OPENED_AGAIN {
            let open = point(Change::Create, path).and_then(|()| open_own(path, &mut options()));
            match Self::take_open(path, open.map_err(failed("open the lock", path))?)? {
                // Whoever had it before may have removed the file, and all around it, while this
                // one waited.
                Ok(lock) if !stands(path, &lock.file) => {}
                taken => return Ok(taken),
            }
        }
        Ok(Err(Holder("another process, which makes it anew again and again".to_owned(), None)))
    }

    fn take_open(path: &Path, mut file: File) -> Result<Result<Self, Holder>, LockError> {
        io_counters::lock();
        let mut locked = lockless::try_lock(&file, path);
        // Somebody may just be looking who has it.
        for _ in 0..5 {
            if matches!(locked, Err(TryLockError::WouldBlock)) {
                std::thread::sleep(Duration::from_millis(2));
                locked = lockless::try_lock(&file, path);
            }
        }
        match locked {
            Ok(()) => {
                refuse_others(path, &file)?;
                let holder = format!("pid {} on {}\n", std::process::id(), host());
                let noted = file.set_len(0).and_then(|()| write(&file, path, holder.as_bytes()));
                noted.map_err(failed("write", path))?;
                Ok(Ok(Self { file, path: path.to_owned() }))
            }
            Err(TryLockError::WouldBlock) => Ok(Err(Holder::read(&mut file, path))),
            Err(TryLockError::Error(error)) => Err(failed("lock", path)(error).into()),
        }
    }

    /// The lock's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The lock for a program that is started while this lives: it has it as long as it, or
    /// anything that it starts, has the file open. This process keeps it as well.
    #[cfg(unix)]
    pub fn inherited(&self) -> std::io::Result<File> {
        let file = self.file.try_clone()?;
        rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty())?;
        Ok(file)
    }

    /// Notes the program that has the lock, too.
    pub fn note(&self, program: &str) {
        use std::io::{Seek, SeekFrom};
        let text = format!("pid {} on {}\n{program}\n", std::process::id(), host());
        let mut file = &self.file;
        let noted =
            file.seek(SeekFrom::Start(0)).and_then(|_| write(file, &self.path, text.as_bytes()));
        let noted = noted.and_then(|_| file.set_len(text.len() as u64));
        if let Err(error) = noted {
            tracing::debug!("{}: {error}", self.path.display());
        }
    }

    /// Who has the lock now, if anybody. Creates nothing. A lock that cannot be looked at is
    /// somebody's.
    pub fn holder(path: &Path) -> Option<Holder> {
        let unknown = |error: io::Error| {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            Some(Holder(format!("somebody unknown (failed to look at {file}: {error})"), None))
        };
        // Somebody else's lock can perhaps be read only, which is enough to ask.
        let open = |write| open_own(path, OpenOptions::new().read(true).write(write));
        let mut file = match open(true).or_else(|_| open(false)) {
            Ok(file) => file,
            Err(error) => {
                let is_gone =
                    [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind());
                return if is_gone { None } else { unknown(error) };
            }
        };
        io_counters::lock();
        match lockless::try_lock(&file, path) {
            Err(TryLockError::WouldBlock) => Some(Holder::read(&mut file, path)),
            Ok(()) => None,
            Err(TryLockError::Error(error)) => unknown(error),
        }
    }
}

/// So often a lock file is opened that was removed before it could be taken.
const OPENED_AGAIN: usize = 20;

/// Whether a lock file still has its name.
fn stands(path: &Path, file: &File) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let id = |found: io::Result<std::fs::Metadata>| found.ok().map(|m| (m.dev(), m.ino()));
        id(file.metadata()) == id(std::fs::symlink_metadata(path))
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        path.exists()
    }
}

/// Refuses to write over what is no lock: another name of a file of somebody's may stand in its
/// place. A file that has no other name is the lock, whatever became of what it says.
fn refuse_others(path: &Path, mut file: &File) -> Result<(), LockError> {
    if !has_other_names(file) {
        return Ok(());
    }
    let mut begins = [0; 4];
    let length = file.metadata().map_or(0, |m| m.len());
    let is_lock = length == 0
        || (length < 1024 && file.read_exact(&mut begins).is_ok() && begins == *b"pid ");
    let rewound = file.rewind().map_err(failed("read the lock", path));
    if is_lock {
        Ok(rewound?)
    } else {
        Err(LockError::Damaged {
            path: path.to_owned(),
            message: "another file stands in the place of a lock: move it away".to_owned(),
        })
    }
}

#[cfg(unix)]
fn has_other_names(file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    file.metadata().is_ok_and(|metadata| metadata.nlink() > 1)
}

#[cfg(not(unix))]
fn has_other_names(_: &File) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_file_that_was_removed_meanwhile_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.lock");
        let first = Lock::take(&path).unwrap().unwrap();
        let waiting = File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        drop(first);
        assert!(!stands(&path, &waiting));
        let taken = Lock::take(&path).unwrap().unwrap();
        assert!(stands(&path, &taken.file));
    }

    #[test]
    fn a_lock_whose_words_are_damaged_is_a_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.lock");
        for damaged in [&b"qid 12 on here\n"[..], b"p", b"\0\0\0\0\0", &[b'x'; 5000]] {
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(Lock::holder(&path), None);
            let lock = Lock::take(&path).unwrap().unwrap();
            let noted = std::fs::read_to_string(&path).unwrap();
            assert!(noted.starts_with(&format!("pid {} on ", std::process::id())), "{noted:?}");
            drop(lock);
        }
    }

    #[test]
    #[cfg(unix)]
    fn nothing_but_a_lock_is_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let [precious, path] = ["precious", "run.lock"].map(|name| folder.path().join(name));
        std::fs::write(&precious, "a year of work").unwrap();
        let unharmed = |says: &str| {
            let error = Lock::take(&path).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
            assert_eq!(std::fs::read(&precious).unwrap(), b"a year of work");
        };
        std::os::unix::fs::symlink(&precious, &path).unwrap();
        unharmed("a link stands in its place");
        assert!(Lock::holder(&path).unwrap().0.starts_with("somebody unknown"));
        std::fs::remove_file(&path).unwrap();
        std::fs::hard_link(&precious, &path).unwrap();
        unharmed("another file stands in the place of a lock");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(Lock::holder(&path), None);
        drop(Lock::take(&path).unwrap().unwrap());
        drop(Lock::take(&path).unwrap().unwrap());
    }
}

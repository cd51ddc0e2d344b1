//! Files that only grow.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::disk::Disk;
use crate::fault::{self, Change, point};
use crate::own_file::open_own;
use crate::sync::{self, sync_name};
use crate::watch::FileEvent;
use crate::write_error::{WriteError, failed};

/// A file that only grows. Each addition is one write, so that those of two processes do not mix.
pub struct Log {
    file: File,
    path: PathBuf,
    disk: Disk,
}

impl Log {
    /// Opens the file to go on with it, or makes it. A last line that a crash cut off is ended
    /// first.
    pub fn open(disk: &Disk, path: &Path) -> Result<Self, WriteError> {
        let opened = || {
            point(disk, Change::Create, path)?;
            let mut file = open_own(path, OpenOptions::new().read(true).create(true).append(true))?;
            let mut last = [b'\n'];
            if file.seek(SeekFrom::End(-1)).is_ok() {
                file.read_exact(&mut last)?;
            }
            io::Result::Ok((file, last == *b"\n"))
        };
        let (file, ended) = opened().map_err(failed(disk, "open", path))?;
        let log = Self { file, path: path.to_owned(), disk: disk.clone() };
        if !ended {
            log.append(b"\n")?;
        }
        disk.notify(FileEvent::Grows(path));
        sync_name(disk, path)?;
        Ok(log)
    }

    /// Makes the file empty, or anew. Nothing is made durable: it is for people, and not for after a
    /// crash.
    pub fn begin(disk: &Disk, path: &Path) -> Result<Self, WriteError> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        let opened = point(disk, Change::Create, path).and_then(|()| open_own(path, &mut options));
        let file = opened.map_err(failed(disk, "create", path))?;
        disk.notify(FileEvent::Grows(path));
        Ok(Self { file, path: path.to_owned(), disk: disk.clone() })
    }

    /// Makes the file, which must be new.
    pub fn create(disk: &Disk, path: &Path) -> Result<Self, WriteError> {
        let options = { OpenOptions::new() }.append(true).create_new(true).to_owned();
        let file = point(disk, Change::Create, path).and_then(|()| options.open(path));
        let file = file.map_err(failed(disk, "create", path))?;
        disk.notify(FileEvent::Grows(path));
        sync_name(disk, path)?;
        Ok(Self { file, path: path.to_owned(), disk: disk.clone() })
    }

    /// Makes what was added durable. Another thread may add more meanwhile.
    pub fn sync(&self) -> Result<(), WriteError> {
        sync::file(&self.disk, &self.file, &self.path)
            .map_err(failed(&self.disk, "sync", &self.path))
    }

    pub fn append(&self, bytes: &[u8]) -> Result<(), WriteError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match fault::write(&self.disk, &self.file, &self.path, rest) {
                Ok(0) => {
                    return Err(failed(&self.disk, "write", &self.path)(
                        io::ErrorKind::WriteZero.into(),
                    ));
                }
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(&self.disk, "write", &self.path)(error)),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_log_does_not_grow_behind_a_link() {
        let (disk, folder) = (Disk::default(), tempfile::tempdir().unwrap());
        let [precious, log] = ["precious", "metrics.jsonl"].map(|n| folder.path().join(n));
        fs::write(&precious, "mine\n").unwrap();
        std::os::unix::fs::symlink(&precious, &log).unwrap();
        assert!(
            Log::open(&disk, &log)
                .err()
                .unwrap()
                .to_string()
                .contains("a link stands in its place")
        );
        assert_eq!(fs::read(&precious).unwrap(), b"mine\n");
    }
}

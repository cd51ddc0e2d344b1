//! A lock file that the system frees when its process ends, however that ends: no stale locks, no unlock command.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use super::atomic::failed;
use super::fault::{Change, point, write};
use super::{StoreError, host, traffic};

/// Held as long as it lives.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "the lock lives as long as the open file")] File);

/// Who has a lock: `pid 123 on host`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder(pub String);

impl Lock {
    /// Takes the lock, or says at once who has it. Creates the file if it is not there.
    pub fn take(path: &Path) -> Result<Result<Self, Holder>, StoreError> {
        let options = { OpenOptions::new() }.read(true).write(true).create(true).truncate(false).to_owned();
        let open = point(Change::Create, path).and_then(|()| options.open(path));
        let mut file = open.map_err(failed("open the lock", path))?;
        traffic::lock();
        let mut locked = file.try_lock();
        // Somebody may just be looking who has it.
        for _ in 0..5 {
            if matches!(locked, Err(TryLockError::WouldBlock)) {
                std::thread::sleep(Duration::from_millis(2));
                locked = file.try_lock();
            }
        }
        match locked {
            Ok(()) => {
                let holder = format!("pid {} on {}\n", std::process::id(), host());
                let noted = file.set_len(0).and_then(|()| write(&file, path, holder.as_bytes()));
                noted.map_err(failed("write", path))?;
                Ok(Ok(Self(file)))
            }
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                Ok(Err(Holder(holder.trim().to_owned())))
            }
            Err(TryLockError::Error(error)) => Err(failed("lock", path)(error).into()),
        }
    }

    /// Who has the lock now, if anybody. Creates nothing.
    pub fn holder(path: &Path) -> Option<Holder> {
        // Somebody else's lock can perhaps be read only, which is enough to ask.
        let open = |write| OpenOptions::new().read(true).write(write).open(path);
        let mut file = open(true).or_else(|_| open(false)).ok()?;
        traffic::lock();
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                Some(Holder(holder.trim().to_owned()))
            }
            _ => None,
        }
    }
}

//! Points that every change to the disk passes. Tests install what ends the process at one, or makes
//! the disk refuse; without that they only count.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::OnceLock;

use crate::disk::Disk;

pub use crate::io_counters::Change;

/// What happens at changes of the disk besides the changes.
pub trait Faults: Send + Sync {
    /// Before a change that writes no bytes.
    ///
    /// # Errors
    /// What the change fails with.
    fn point(&self, change: Change, path: &Path) -> io::Result<()>;

    /// In the place of one write of bytes. Gives how many were written.
    ///
    /// # Errors
    /// What the write fails with.
    fn write(&self, file: &File, path: &Path, bytes: &[u8]) -> io::Result<usize>;

    /// Whether files are known by their size and time of modification alone. Tests that put a disk in
    /// the state before a power cut have no other way to have a file be the same.
    fn stamps_are_short(&self) -> bool;
}

/// Of the process: its disks are one.
static INSTALLED: OnceLock<Box<dyn Faults>> = OnceLock::new();

/// Has these faults happen in this process from now on. The first ones stay.
pub fn install(faults: Box<dyn Faults>) {
    let _ = INSTALLED.set(faults);
}

/// Whether this process is one that tests disturb.
pub fn are_installed() -> bool {
    INSTALLED.get().is_some()
}

/// Passes the point before a change.
pub(crate) fn point(disk: &Disk, change: Change, path: &Path) -> io::Result<()> {
    disk.counters().change(change);
    INSTALLED.get().map_or(Ok(()), |faults| faults.point(change, path))
}

/// One write of bytes.
pub(crate) fn write(disk: &Disk, mut file: &File, path: &Path, bytes: &[u8]) -> io::Result<usize> {
    let written = match INSTALLED.get() {
        None => file.write(bytes),
        Some(faults) => faults.write(file, path, bytes),
    };
    written.inspect(|written| disk.counters().wrote(*written))
}

pub(crate) fn stamps_are_short() -> bool {
    INSTALLED.get().is_some_and(|faults| faults.stamps_are_short())
}

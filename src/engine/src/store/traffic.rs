//! What this process does to the disk and asks of it, counted where that happens: on a file system that many machines
//! share, each is a message to its server.

use std::ops::Sub;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::fault::Change;

/// How often each thing was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Files that were made or opened for writing; a lock's are among them.
    pub opened: u64,
    pub writes: u64,
    pub bytes_written: u64,
    /// Files and folders that were made durable.
    pub synced: u64,
    pub renamed: u64,
    /// Names that were added, taken away, and folders that were made.
    pub linked: u64,
    pub removed: u64,
    pub folders: u64,
    /// Locks that were asked for.
    pub locks: u64,
    /// Records that were looked for, and what was in them.
    pub reads: u64,
    pub bytes_read: u64,
    /// Folders whose names were listed.
    pub listed: u64,
}

static OPENED: AtomicU64 = AtomicU64::new(0);
static WRITES: AtomicU64 = AtomicU64::new(0);
static BYTES_WRITTEN: AtomicU64 = AtomicU64::new(0);
static SYNCED: AtomicU64 = AtomicU64::new(0);
static RENAMED: AtomicU64 = AtomicU64::new(0);
static LINKED: AtomicU64 = AtomicU64::new(0);
static REMOVED: AtomicU64 = AtomicU64::new(0);
static FOLDERS: AtomicU64 = AtomicU64::new(0);
static LOCKS: AtomicU64 = AtomicU64::new(0);
static READS: AtomicU64 = AtomicU64::new(0);
static BYTES_READ: AtomicU64 = AtomicU64::new(0);
static LISTED: AtomicU64 = AtomicU64::new(0);

/// All since the process began.
pub fn so_far() -> Traffic {
    Traffic {
        opened: OPENED.load(Relaxed),
        writes: WRITES.load(Relaxed),
        bytes_written: BYTES_WRITTEN.load(Relaxed),
        synced: SYNCED.load(Relaxed),
        renamed: RENAMED.load(Relaxed),
        linked: LINKED.load(Relaxed),
        removed: REMOVED.load(Relaxed),
        folders: FOLDERS.load(Relaxed),
        locks: LOCKS.load(Relaxed),
        reads: READS.load(Relaxed),
        bytes_read: BYTES_READ.load(Relaxed),
        listed: LISTED.load(Relaxed),
    }
}

impl Sub for Traffic {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            opened: self.opened - before.opened,
            writes: self.writes - before.writes,
            bytes_written: self.bytes_written - before.bytes_written,
            synced: self.synced - before.synced,
            renamed: self.renamed - before.renamed,
            linked: self.linked - before.linked,
            removed: self.removed - before.removed,
            folders: self.folders - before.folders,
            locks: self.locks - before.locks,
            reads: self.reads - before.reads,
            bytes_read: self.bytes_read - before.bytes_read,
            listed: self.listed - before.listed,
        }
    }
}

pub(super) fn change(change: Change) {
    let counter = match change {
        Change::Create => &OPENED,
        Change::Write => &WRITES,
        Change::Sync => &SYNCED,
        Change::Rename => &RENAMED,
        Change::Link => &LINKED,
        Change::Remove => &REMOVED,
        Change::Folder => &FOLDERS,
    };
    counter.fetch_add(1, Relaxed);
}

pub(super) fn wrote(bytes: usize) {
    change(Change::Write);
    BYTES_WRITTEN.fetch_add(bytes as u64, Relaxed);
}

pub(super) fn lock() {
    LOCKS.fetch_add(1, Relaxed);
}

pub(super) fn read(bytes: usize) {
    READS.fetch_add(1, Relaxed);
    BYTES_READ.fetch_add(bytes as u64, Relaxed);
}

pub(super) fn list() {
    LISTED.fetch_add(1, Relaxed);
}

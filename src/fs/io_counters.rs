//! What this process does to the disk and asks of it, counted where that happens: on a file system
//! that many machines share, each is a message to its server.

use std::ops::Sub;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// A change of the disk that is about to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Create,
    Write,
    Sync,
    Rename,
    Link,
    Remove,
    Folder,
}

/// Names each counter once.
macro_rules! counters {
    ($($(#[$about:meta])* $name:ident,)*) => {
        /// How often each thing was done.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct IoCounters {
            $($(#[$about])* pub $name: u64,)*
        }

        struct Counters {
            $($name: AtomicU64,)*
        }

        static COUNTERS: Counters = Counters { $($name: AtomicU64::new(0),)* };

        /// All since the process began.
        pub fn so_far() -> IoCounters {
            IoCounters { $($name: COUNTERS.$name.load(Relaxed),)* }
        }

        impl Sub for IoCounters {
            type Output = Self;

            fn sub(self, before: Self) -> Self {
                Self { $($name: self.$name - before.$name,)* }
            }
        }
    };
}

counters! {
    /// Files that were made or opened for writing; a lock's are among them.
    opened,
    writes,
    bytes_written,
    /// Files and folders that were made durable.
    synced,
    renamed,
    /// Names that were added, taken away, and folders that were made.
    linked,
    removed,
    folders,
    /// Locks that were asked for.
    locks,
    /// Records that were looked for, and what was in them.
    reads,
    bytes_read,
    /// Folders whose names were listed.
    listed,
}

pub(crate) fn change(change: Change) {
    let counter = match change {
        Change::Create => &COUNTERS.opened,
        Change::Write => &COUNTERS.writes,
        Change::Sync => &COUNTERS.synced,
        Change::Rename => &COUNTERS.renamed,
        Change::Link => &COUNTERS.linked,
        Change::Remove => &COUNTERS.removed,
        Change::Folder => &COUNTERS.folders,
    };
    counter.fetch_add(1, Relaxed);
}

pub(crate) fn wrote(bytes: usize) {
    change(Change::Write);
    COUNTERS.bytes_written.fetch_add(bytes as u64, Relaxed);
}

pub(crate) fn lock() {
    COUNTERS.locks.fetch_add(1, Relaxed);
}

/// Takes note of a record that was looked for, and of what was in it.
pub fn read(bytes: usize) {
    COUNTERS.reads.fetch_add(1, Relaxed);
    COUNTERS.bytes_read.fetch_add(bytes as u64, Relaxed);
}

pub(crate) fn list() {
    COUNTERS.listed.fetch_add(1, Relaxed);
}

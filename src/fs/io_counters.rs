//! What is done to the disk and asked of it, counted where that happens: on a file system
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

        #[derive(Default)]
        pub(crate) struct Counters {
            $($name: AtomicU64,)*
        }

        impl Counters {
            pub fn so_far(&self) -> IoCounters {
                IoCounters { $($name: self.$name.load(Relaxed),)* }
            }
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

impl Counters {
    pub fn change(&self, change: Change) {
        let counter = match change {
            Change::Create => &self.opened,
            Change::Write => &self.writes,
            Change::Sync => &self.synced,
            Change::Rename => &self.renamed,
            Change::Link => &self.linked,
            Change::Remove => &self.removed,
            Change::Folder => &self.folders,
        };
        counter.fetch_add(1, Relaxed);
    }

    pub fn wrote(&self, bytes: usize) {
        self.change(Change::Write);
        self.bytes_written.fetch_add(bytes as u64, Relaxed);
    }

    pub fn lock(&self) {
        self.locks.fetch_add(1, Relaxed);
    }

    pub fn read(&self, bytes: usize) {
        self.reads.fetch_add(1, Relaxed);
        self.bytes_read.fetch_add(bytes as u64, Relaxed);
    }

    pub fn list(&self) {
        self.listed.fetch_add(1, Relaxed);
    }
}

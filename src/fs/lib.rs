//! Files that survive a crash at any instant: written as a whole or not at all, locked, checked
//! when they are read.
//!
//! Every change of the disk goes through [`atomic`], and passes a fault point, where tests end the
//! process or make the disk refuse. Knows nothing of what the files hold.

// What comes from outside must not be able to end the program.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::todo,
        clippy::unimplemented
    )
)]

pub mod aside;
pub mod atomic;
pub mod bounded_read;
pub mod checksummed_json;
pub mod copy;
mod digest;
pub mod disk_space;
mod fault;
mod file_error;
mod holder;
mod host;
pub mod io_counters;
mod lock;
mod lockless;
#[cfg(target_os = "linux")]
pub mod processes;
mod project;
pub mod source;
mod stamp;
pub mod sync;
pub mod watch;
mod write_error;
mod writeback;

pub use digest::sha256_of;
pub use file_error::FileError;
pub use holder::Holder;
pub use host::host;
pub use lock::{Lock, LockError};
pub use lockless::has_none as has_no_locks;
pub use project::STATE_FOLDER;
pub use stamp::{Stamp, file_id, is_same_file, modified};

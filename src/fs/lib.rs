//! Files that survive a crash at any instant: written as a whole or not at all, locked, checked
//! when they are read.
//!
//! Every change of the disk goes through [`atomic`], and passes a fault point, where tests end the
//! process or make the disk refuse. Knows nothing of what the files hold.
//!
//! ```
//! use std::collections::BTreeMap;
//!
//! use pipe_fs::{Disk, Lock, atomic, checksummed_json};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (disk, folder) = (Disk::default(), tempfile::tempdir()?);
//! let path = folder.path().join("scores.json");
//! let scores = BTreeMap::from([("base".to_owned(), 0.5)]);
//!
//! // Whenever the power goes, the old file stands there or the whole new one.
//! let text = checksummed_json::to_text(&scores);
//! atomic::write(&disk, &path, |out| out.write_all(text.as_bytes()))?;
//! assert_eq!(checksummed_json::from_bytes(&std::fs::read(&path)?), Ok(scores));
//!
//! // A damaged file is never taken for a good one.
//! let damaged = text.replace("0.5", "0.9");
//! let read = checksummed_json::from_bytes::<BTreeMap<String, f64>>(damaged.as_bytes());
//! assert!(read.is_err());
//!
//! // A lock lasts as long as its process at most. Others are told who has it.
//! let lock = Lock::take(&disk, &folder.path().join("scores.lock"))?;
//! assert!(lock.is_ok());
//! # Ok(())
//! # }
//! ```
//!
//! # Where things are
//!
//! | module | |
//! |---|---|
//! | [`atomic`] | begin here: writing, linking and removing; appending to logs |
//! | [`sync`] | what is on the disk for good, and when |
//! | [`checksummed_json`], [`bounded_read`] | files that tell when they were damaged; reading no more than a limit |
//! | [`Lock`], [`Holder`] | who works on something just now |
//! | [`Stamp`] | whether a file is still the one that was read |
//! | [`mod@copy`], [`aside`] | copies and hard links; moving a file out of the way without losing it |
//! | [`watch`] | hearing of each change that this process makes |
//! | [`disk_space`], [`io_counters`] | what is free; how much was read and written |

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
mod disk;
pub mod disk_space;
pub mod fault;
mod file_error;
mod holder;
mod home;
mod host;
pub mod io_counters;
mod known_folders;
mod level;
mod lock;
mod lockless;
mod log;
mod obstacle;
mod own_file;
#[cfg(target_os = "linux")]
pub mod processes;
mod project;
pub mod source;
mod stamp;
pub mod sync;
mod temporary;
mod tree;
pub mod watch;
mod write_error;
mod writeback;

pub use digest::sha256_of;
pub use disk::{Disk, ProjectRoot};
pub use file_error::FileError;
pub use holder::Holder;
pub use home::path_in;
pub use host::host;
pub use lock::{Lock, LockError};
pub use lockless::has_none as has_no_locks;
pub use obstacle::file_in_place_of;
pub use project::STATE_FOLDER;
pub use stamp::{Stamp, file_id, is_same_file, modified};

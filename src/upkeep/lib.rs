//! What can be said of all that stands on disk together, runs and records alike: what is damaged,
//! what can be made whole, what can go.
//!
//! Knows no stage kinds and no command. What can go is said first, and removed then:
//!
//! ```
//! use pipe_fs::Disk;
//! use pipe_runs::Runs;
//! use pipe_upkeep::clean;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (disk, folder) = (Disk::default(), tempfile::tempdir()?);
//! let runs = Runs::at(&disk, folder.path());
//! // A training whose process was killed before it wrote anything.
//! let run = runs.create()?;
//!
//! let found = clean::garbage(&[runs]);
//! assert_eq!(found[0].path, run.folder);
//! assert_eq!(found[0].why, "a run that was never begun");
//! assert!(clean::remove(&disk, &found[0])?);
//! assert!(!run.folder.exists());
//! # Ok(())
//! # }
//! ```

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

pub mod clean;
mod nobodys;
pub mod removal;
pub mod repair;
pub mod run_archive;
mod snapshots;
pub mod thin;
pub mod verify;

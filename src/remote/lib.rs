//! Synchronising with a store: the state of a pipeline in object storage, mirrored while the
//! pipeline runs, pulled on another machine.
//!
//! Knows files, digests and buckets; nothing of what the files mean but which ones belong together.
//! The engine knows nothing of this crate: it tells a listener which names it changed
//! (`pipe_fs::watch`).
//!
//! Begin with [`pull`], which makes the folder as new as the store, and [`Mirror`], which keeps the
//! store as new as the folder. A store can be a folder too:
//!
//! ```
//! use std::path::Path;
//!
//! use pipe_core::stop::Stop;
//! use pipe_engine::pipeline_file::{Scheme, StoreUrl};
//! use pipe_remote::{Mirror, Project, pull};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (here, there, store) = (tempfile::tempdir()?, tempfile::tempdir()?, tempfile::tempdir()?);
//! let prefix = store.path().display().to_string();
//! let url = StoreUrl { scheme: Scheme::File, bucket: String::new(), prefix };
//! let project = |root: &Path| Project::new(&root.into(), "greet", ["runs".into()], ["hello.txt".into()]);
//!
//! // What the stages of the pipeline left here goes to the store.
//! std::fs::write(here.path().join("hello.txt"), "hello")?;
//! let copy = pull(&url, project(here.path()), None, &|_files, _bytes| {})?;
//! let mirror = Mirror::start(copy, |event| eprintln!("{event:?}"))?;
//! let done = mirror.finish(&Stop::default(), &mut |_files, _bytes| {})?;
//! assert_eq!(done.files, 1);
//!
//! // Another machine goes on with it.
//! pull(&url, project(there.path()), None, &|_files, _bytes| {})?;
//! assert_eq!(std::fs::read_to_string(there.path().join("hello.txt"))?, "hello");
//! # Ok(())
//! # }
//! ```
//!
//! | word | meaning |
//! |---|---|
//! | object | the content of one file in the store, under a key that is used once |
//! | index | which files there are, with digest and object of each; the newest one is the store's state |
//! | base | the index that folder and store last had in common |
//! | snapshot | a file's content as it was at one moment, whatever its name means later |
//! | pull | makes the folder as new as the store, before anything is planned |
//! | push | one step of the mirror: objects, then the next index, then what no index lists is removed |
//! | sync plan | which files to download, to upload, to delete on either side and to set aside |
//! | diverged | folder and store both changed since the base, so a person has to choose |
//!
//! | on disk | |
//! |---|---|
//! | `PREFIX/PIPELINE/…` in the store | objects, by the path of their file |
//! | `PREFIX/PIPELINE/.pipe/index/0000000007.json` | the seventh index |
//! | `.pipe/store/PIPELINE.json` in the folder | the base, and files that were removed on purpose or by a repair |
//! | `.pipe/store/PIPELINE.lock` | held by whoever changes the store or that file |
//! | `.pipe/aside/` | files of the folder that `--take store` replaced |
//!
//! The rule that all of this keeps: an object is put once, under a name that says what its content
//! is, and an index that lists it is put after it, under a number of its own that nobody else can
//! take. So at every instant, whatever was killed, the newest index describes a state in which the
//! project's folder once was, and all of it is there.
//!
//! # Before a run
//!
//! Three states are compared: the folder, the newest index, and the index that was last the same in
//! both (`.pipe/store/PIPELINE.json`).
//!
//! | the folder | the store | what follows |
//! |---|---|---|
//! | unchanged | unchanged | nothing |
//! | unchanged | went on | the difference is downloaded; what is gone there is removed here |
//! | went on | unchanged | the difference is uploaded when the run begins |
//! | went on | went on | refused, until somebody chooses with `--take store` or `--take folder` |
//!
//! What is downloaded is verified under another name first, and `metadata.json` and records come
//! after the files that they speak of: a crash in between leaves a folder that this comparison puts
//! right.
//!
//! # During a run
//!
//! The mirror hears of each change at once, holds the content by an open file, and waits until
//! things are quiet. Then it brings all changes over in one step. A step is therefore a state in
//! which the folder was at one moment. The training never waits for it.
//!
//! If another machine took the next generation, the mirror ends and says who continued; the
//! training goes on and the command fails at its end. Processes that share the folder work
//! together: whoever changes the store holds the lock of `.pipe/store`.
//!
//! # Trust
//!
//! Whoever can write to the store can change the state of the pipeline, and nothing else of the
//! project: a path in an index becomes a `StatePath` or is left alone.

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

mod backend;
mod bucket;
mod commit;
mod digest;
mod download;
mod error;
mod http;
mod index;
mod mirror;
mod pending_changes;
mod project;
mod pull;
mod repaired;
mod snapshot;
mod state_paths;
mod sync_plan;
mod sync_state;
mod transfer;

#[cfg(test)]
mod sync_tests;

pub use error::{RemoteError, RemoteErrorKind};
pub use mirror::{Mirror, MirrorEvent, MirrorStats};
pub use project::Project;
pub use pull::{ConflictResolution, DownloadSummary, WorkingCopy, pull};
pub use repaired::RepairRecord;
pub use sync_state::record_removal;

//! The state of a pipeline in object storage: mirrored while the pipeline runs, fetched on another
//! machine.
//!
//! Knows files, digests and buckets; nothing of what the files mean but which ones belong together.
//! The engine knows nothing of this crate: it tells a listener which names it changed
//! (`pipe_fs::watch`).
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
//! | `.pipe/store/PIPELINE.json` in the folder | the base, and files that were removed on purpose |
//! | `.pipe/store/PIPELINE.lock` | held by whoever changes the store or that file |
//! | `.pipe/aside/` | files of the folder that `--take store` replaced |
//!
//! The rule that all of this keeps: an object is put once, under a name that says what its content
//! is, and an index that lists it is put after it, under a number of its own that nobody else can
//! take. So at every instant, whatever was killed, the newest index describes a state in which the
//! project's folder once was, and all of it is there.

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
mod snapshot;
mod sync_plan;
mod sync_state;
mod transfer;

#[cfg(test)]
mod sync_tests;

pub use error::{RemoteError, RemoteErrorKind};
pub use http::requests;
pub use mirror::{Mirror, MirrorEvent, MirrorStats};
pub use project::Project;
pub use pull::{ConflictResolution, DownloadSummary, WorkingCopy, pull};
pub use sync_state::record_removal;

//! The engine of `pipe`: pipeline files, the graph, plans, records, and carrying a plan out, here or
//! as jobs of Slurm.
//!
//! Stands on `pipe_core`, `pipe_fs` and `pipe_runs`. Knows nothing of burn, models or images. Stages
//! reach it only through a trait, so that its tests run on a scripted fake stage without burn.

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

mod artifact;
pub mod command;
mod concern;
pub mod exec;
pub mod export;
pub mod graph;
pub mod identity;
mod inspection;
pub mod kind;
pub mod plan;
pub mod policy;
mod reference;
mod rejection;
pub mod schema;
pub mod spec;
pub mod store;

use pipe_core::parallel;

// What lies on the floors below, under the paths that it had here.
pub use pipe_core::{error, failure, foreign, ids, progress, secret, shell, stop};
pub use pipe_fs::bounded;
pub use pipe_runs::events;

/// A YAML file: what it holds, and how it is read.
pub mod source {
    pub use pipe_core::source::{Part, Position, Source};
    pub use pipe_fs::source::read;
}

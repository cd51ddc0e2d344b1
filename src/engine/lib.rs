//! The engine of `pipe`: pipeline files, the graph, plans and how they are carried out.
//!
//! Knows nothing of runs, checkpoints, models or images. Stages reach it only through a trait, so that its tests
//! run on a scripted fake stage and compile in seconds.

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
mod aside;
pub mod command;
mod diagnostic;
pub mod exec;
pub mod export;
mod file_formats;
pub mod forecast;
pub mod graph;
pub mod hooks;
pub mod identity;
mod inspection;
pub mod kind;
mod own_files;
pub mod pipeline_file;
mod pipeline_view;
pub mod plan;
pub mod policy;
mod reference;
mod rejection;
pub mod schema;
pub mod session;
pub mod state;
mod upstream;

// What stage kinds outside of this crate read their settings with, and describe them by.
pub use {figment, schemars};

/// A YAML file: what it holds, and how it is read.
pub mod source {
    pub use pipe_core::source::{Part, Pieces, Position, Source};
    pub use pipe_fs::source::read;
}

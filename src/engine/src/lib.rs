//! The engine of `pipe`: pipeline files, the graph, plans, runs and checkpoints.
//!
//! Knows nothing of burn, models or images. Stages reach it only through a trait, so that its tests
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

pub mod bounded_read;
pub mod command;
pub mod error;
pub mod events;
mod excerpt;
pub mod exec;
pub mod export;
pub mod graph;
pub mod identity;
pub mod kind;
mod parallel;
pub mod pipeline_file;
pub mod plan;
pub mod policy;
#[cfg(target_os = "linux")]
mod processes;
pub mod progress;
pub mod schema;
pub mod secret;
pub mod shell;
pub mod source;
pub mod stop;
pub mod store;
pub mod threads;
pub mod untrusted_text;

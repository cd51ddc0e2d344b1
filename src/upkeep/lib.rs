//! What can be said of all that stands on disk together, runs and records alike: what is damaged,
//! what can be made whole, what can go.
//!
//! Knows no stage kinds and no command.

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
pub mod repair;
pub mod run_archive;
pub mod thin;
pub mod verify;

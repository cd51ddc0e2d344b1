//! The floor that everything stands on: names, failures, messages about what people wrote,
//! fingerprints, events, the wish to stop.
//!
//! Opens no file and starts no program. Knows nothing of stages, runs or training but their names.

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

pub mod digest;
pub mod error;
mod excerpt;
pub mod failure;
pub mod fingerprint;
pub mod ids;
pub mod names;
pub mod parallel;
pub mod progress;
pub mod secret;
pub mod shell;
pub mod source;
mod status;
pub mod stop;
pub mod threads;
pub mod untrusted_text;

pub use status::Status;

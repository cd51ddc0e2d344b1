//! Trainings: the loop, devices, sampling, checkpoints of models, and the stage kinds.
//!
//! Knows nothing of pipeline files, graphs or the command line; those belong to `burn-pipe-engine`
//! and the binary.

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

pub mod checkpoint;
pub mod device;
pub mod sampling;
pub mod stages;
pub mod trainer;

pub use pipe_core::rng;
pub use pipe_data as data;
pub use pipe_models::{architecture, diffusion, kernels, lora, nn};

//! Everything that needs burn: the DiffiT model, EDM's objective, and the training loop.
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

pub mod architecture;
pub mod checkpoint;
pub mod device;
pub mod diffit;
pub mod diffusion;
pub mod kernels;
pub mod lora;
pub mod sampling;
pub mod stages;
pub mod trainer;
pub mod unet;

pub use pipe_data as data;
pub use pipe_data::rng;

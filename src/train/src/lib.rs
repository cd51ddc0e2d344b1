//! Everything that needs burn: data sets, the DiffiT model, EDM's objective, and the training loop.
//!
//! Knows nothing of pipeline files, graphs or the command line; those belong to `pipe-engine` and
//! the binary.

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
pub mod data;
pub mod device;
pub mod diffit;
pub mod fit;
pub mod kernels;
pub mod lora;
pub mod noise;
pub mod rng;
pub mod sample;
pub mod stages;
pub mod unet;

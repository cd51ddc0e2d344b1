//! Models: architectures of networks and their registry, layers, kernels, LoRA, and diffusion.
//!
//! Knows of checkpoint files what a model needs of them. Knows nothing of data sets, trainings,
//! devices but the one that a tensor stands on, stages or pipeline files.

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
pub mod diffit;
pub mod diffusion;
pub mod header;
pub mod kernels;
pub mod lora;
pub mod nn;
pub mod probe;
#[cfg(test)]
mod testing;
pub mod unet;

/// burn, and what derives schemas, of the versions that an architecture of one's own needs.
pub use {burn, schemars};

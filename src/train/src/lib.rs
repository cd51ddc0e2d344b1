//! Everything that needs burn: data sets, the DiffiT model, EDM's objective, and the training loop.
//!
//! Knows nothing of pipeline files, graphs or the command line; those belong to `pipe-engine` and the binary.

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

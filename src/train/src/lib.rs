//! Everything that needs burn: data sets, the DiffiT model, EDM's objective, and the training loop.
//!
//! Knows nothing of pipeline files, graphs or the command line; those belong to `pipe-engine` and the binary.

pub mod diffit;
pub mod kernels;
pub mod noise;
pub mod rng;

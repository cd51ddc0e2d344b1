//! Models: architectures of networks and their registry, layers, kernels, LoRA, and diffusion.
//!
//! Knows of checkpoint files what a model needs of them. Knows nothing of data sets, trainings,
//! devices but the one that a tensor stands on, stages or pipeline files.
//!
//! ```
//! use pipe_models::architecture::Architectures;
//! use pipe_models::burn::tensor::Device;
//! use pipe_models::nn::param_paths;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // As the header of a checkpoint has it. Without `arch` it is a DiffiT.
//! let config = serde_json::json!({
//!     "dim": 16, "mults": [1, 2], "depths": [1, 1], "heads": 2, "window": 4,
//!     "image_size": 8, "channels": 3, "num_classes": 2,
//! });
//! let network = Architectures::builtin().read(config)?.init(7, &Device::flex())?;
//! assert!(param_paths(&network).iter().any(|(_, name, _)| name.contains("qkv_s")));
//! # Ok(())
//! # }
//! ```
//!
//! # Where things are
//!
//! | module | |
//! |---|---|
//! | [`architecture`] | begin here: what a family of networks is, and the registry of them |
//! | [`diffit`], [`unet`] | one family each |
//! | [`nn`] | layers, first weights, and parameters by their names |
//! | [`kernels`] | the parts of networks, fused for CPUs or in burn's operations |
//! | [`lora`] | low-rank adapters: put in, merged, exported as PEFT has them |
//! | [`diffusion`] | EDM: the objective, and the sampler |
//! | [`inception`] | the network that judges pictures |

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
pub mod inception;
pub mod kernels;
pub mod lora;
pub mod nn;
pub mod probe;
#[cfg(test)]
mod testing;
pub mod unet;

/// burn, and what derives schemas, of the versions that an architecture of one's own needs.
pub use {burn, schemars};

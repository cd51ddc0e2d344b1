//! Trainings: the loop, devices, sampling, checkpoints of models, and the stage kinds.
//!
//! Knows nothing of pipeline files, graphs or the command line; those belong to `burn-pipe-engine`
//! and the binary. What it gives them are stage kinds. With those a session of the engine trains:
//!
//! ```
//! use std::path::Path;
//!
//! use pipe_core::progress::NullListener;
//! use pipe_core::stop::Stop;
//! use pipe_engine::exec::LocalExecutor;
//! use pipe_engine::session::Session;
//! use pipe_train::architecture::Architectures;
//! use pipe_train::stages::RunFiles;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let project = tempfile::tempdir()?;
//! let file = "
//! name: shapes
//! stages:
//!   data: { kind: dataset, source: shapes, image_size: 8, num_images: 8 }
//!   base:
//!     kind: train
//!     dataset: data
//!     epochs: 1
//!     batch_size: 4
//!     model: { dim: 16, mults: [1, 2], depths: [1, 1], heads: 2, window: 4 }
//!     device: cpu
//! ";
//! std::fs::write(project.path().join("shapes.yaml"), file)?;
//!
//! let kinds = pipe_train::stages::kinds(&Architectures::builtin());
//! let session = Session::load(project.path(), Path::new("shapes.yaml"), &kinds, &[])?.formats(&RunFiles);
//! let stop = Stop::default();
//! let execution = session.execution(&stop, &NullListener);
//! let (plan, inspected) = session.plan(&execution).map_err(|(_, error)| error)?;
//! session.run(&LocalExecutor, &execution, &plan, inspected)?;
//! assert!(project.path().join("checkpoints/base_training/run_001/checkpoints/best.ckpt").is_file());
//! # Ok(())
//! # }
//! ```
//!
//! # Where things are
//!
//! | module | |
//! |---|---|
//! | [`stages`] | begin here: the stage kinds, one file each, and their list |
//! | [`trainer`] | the loop, and what belongs to it: optimizer, EMA weights, schedule, checkpoints |
//! | [`sampling`] | image grids and pictures from a checkpoint |
//! | [`evaluate`] | how good a model is, without stages |
//! | [`checkpoint`] | from checkpoints to networks; export, import |
//! | [`device`] | which GPUs there are, and how they are opened |
//!
//! Networks, LoRA and diffusion are in `burn-pipe-models`, and data sets in `burn-pipe-data`.

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
pub mod evaluate;
mod npy;
pub mod replay;
pub mod sampling;
pub mod stages;
pub mod trainer;

pub use pipe_core::rng;
pub use pipe_data as data;
pub use pipe_models::{architecture, diffusion, kernels, lora, nn};

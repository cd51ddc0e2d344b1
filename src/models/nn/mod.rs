//! What networks are made of: layers with PyTorch's names, the numbers that they begin with, and
//! their parameters as named tensors.
//!
//! Knows no architecture.

mod init;
mod layers;
mod pass;
mod state_dict;
mod sum;
mod time_embedding;

pub use init::initialize;
pub use layers::{Conv2d, Embedding, Linear, Norm, Pointwise, Projection, parameter};
pub use pass::{Dropout, Pass};
pub use state_dict::{
    LORA_A, LORA_B, LoadError, ParamPath, Scope, fill, first_of, host_tensor, load_state_dict,
    param_paths, state_dict, walk,
};
pub use sum::sum_all;
pub use time_embedding::TimeEmbedding;

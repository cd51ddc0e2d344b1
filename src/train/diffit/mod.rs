//! DiffiT, the network that is trained: settings, modules, initial numbers, state dictionary,
//! probe.

mod architecture;
mod blocks;
mod config;
mod init;
mod layers;
mod network;
mod pass;
pub mod probe;
mod state_dict;

pub use architecture::DiffitSettings;
pub use blocks::{DiffitBlock, ResBlock, TimeEmbedding, Tmsa};
pub use config::{CHANNELS_PER_GROUP, ConfigError, DiffitConfig, Preset};
pub(crate) use init::initialize;
pub use layers::{Conv2d, Embedding, Linear, Norm, Pointwise, Projection};
pub use network::Diffit;
pub use pass::Pass;
pub use state_dict::{LORA_A, LORA_B, LoadError, Scope, load_state_dict, param_paths, state_dict};
pub(crate) use state_dict::{fill, host_tensor, walk};

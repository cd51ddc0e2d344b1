//! DiffiT, the network that is trained: settings, modules, initial numbers, state dictionary, probe.

mod blocks;
mod config;
mod init;
mod layers;
mod network;
pub mod probe;
mod state_dict;

pub use blocks::{DiffitBlock, ResBlock, TimeEmbedding, Tmsa};
pub use config::{CHANNELS_PER_GROUP, ConfigError, DiffitConfig, Preset};
pub use layers::{Conv2d, Embedding, Linear, Norm, Projection};
pub use network::Diffit;
pub use state_dict::{LoadError, load_state_dict, param_paths, state_dict};

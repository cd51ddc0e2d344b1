//! DiffiT: settings, modules, initial numbers.

mod architecture;
mod blocks;
mod config;
mod network;

pub use architecture::DiffitSettings;
pub use blocks::{DiffitBlock, ResBlock, Tmsa};
pub use config::{CHANNELS_PER_GROUP, DiffitConfig, Preset};
pub use network::Diffit;

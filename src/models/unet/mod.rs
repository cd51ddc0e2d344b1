//! A U-Net of the ADM and DDPM++ family: settings, modules, initial numbers.

mod architecture;
mod blocks;
mod config;
mod network;

pub use architecture::UnetSettings;
pub use blocks::{Attention, Residual};
pub use config::{HEAD_WIDTH, Preset, UnetConfig};
pub use network::Unet;

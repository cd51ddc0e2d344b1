//! LoRA: low-rank factors beside frozen projections (Hu et al. 2021, arXiv 2106.09685). Settings
//! named as in PEFT, the factors attached by burn, and files in PEFT's format.

mod adapter;
mod inject;
mod layers;
mod peft;
mod settings;
mod targets;

pub use adapter::{Adapter, AdapterError, BaseDigests, HEADER_KEY};
pub use inject::{AdaptedModel, LoraPlan};
pub use layers::{AdaptedLayer, LayerKind, layer_names, parameter_count};
pub use settings::LoraConfig;
pub use targets::TargetError;

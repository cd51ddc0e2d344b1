//! Architectures of networks: what one has to say of itself, and the registry of those that a
//! program knows.
//!
//! Everything outside (the loop, optimizer, EMA weights, LoRA, sampler, checkpoints) works with
//! [`ModelConfig`] and [`Network`], whichever architecture they are of, and names none. A new
//! one is a type with [`Architecture`] and a network with [`Denoiser`]; a program hands it in with
//! [`Architectures::with`], the product's own stand in [`Architectures::builtin`].

mod config;
mod network;
mod registry;
mod settings;

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
pub use config::ModelConfig;
pub use network::Network;
pub use registry::{ArchitectureInfo, Architectures};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
pub use settings::{ModelSettings, SettingsError};

use crate::diffit::{ConfigError, Pass};

/// The label table, which is trained in full where the classes are others than the base's.
pub const LABEL_TABLE: &str = "time.label.weight";

/// A network that EDM's preconditioning makes a denoiser of. The names of its fields are the names
/// of its parameters in checkpoints; its label table, where it knows classes, is
/// [`LABEL_TABLE`]. Parameters have up to eight axes.
pub trait Denoiser: Module + Sync + 'static {
    /// `x [batch, channels, size, size]`, `c_noise [batch]`, `label [batch]` (a class, or the
    /// number of classes for "no class", as `None` does) to `[batch, channels, size, size]`.
    /// Computes in the weights' number format; input and output are `f32`.
    fn forward(
        &self,
        x: Tensor<4>,
        c_noise: Tensor<1>,
        label: Option<Tensor<1, Int>>,
        pass: &Pass,
    ) -> Tensor<4>;
}

/// What decides the parameters of one network of an architecture. Its JSON is in the header of
/// checkpoints.
pub trait Architecture:
    Clone + PartialEq + std::fmt::Debug + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// The network itself.
    type Network: Denoiser;
    /// Its own keys of `model:`, each with a default. Their comments are the descriptions in the
    /// schema.
    type Settings: Serialize + DeserializeOwned + JsonSchema;

    /// Name in settings files and headers: `model: { arch: NAME }`.
    const NAME: &'static str;
    /// One sentence for the schema, with the paper.
    const ABOUT: &'static str;
    /// Name and description of every preset, smallest first. The first one counts where the
    /// settings name none. Names are unique among all architectures.
    const PRESETS: &'static [(&'static str, &'static str)];
    /// Name of a tensor that every network of the architecture has and no other one's.
    const MARK: &'static str;
    /// The keys of [`Settings`](Self::Settings).
    const KEYS: &'static [&'static str];

    /// The network of a preset for RGB images of `image_size`² pixels, with what the settings
    /// change in it. `num_classes` 0 means no labels.
    fn new(preset: &str, settings: Self::Settings, image_size: usize, num_classes: usize) -> Self;
    /// The smallest network with every kind of layer.
    fn smallest() -> Self;
    /// The network that the shapes of a state dictionary tell of. What cannot be told is left at a
    /// value that [`validate`](Self::validate) refuses.
    fn infer(shapes: &Shapes, image_size: usize) -> Self;

    /// Side of the square image in pixels.
    fn image_size(&self) -> usize;
    /// Colour channels of the image.
    fn channels(&self) -> usize;
    /// Number of classes; 0 for a network without labels.
    fn num_classes(&self) -> usize;
    /// The same network for other classes.
    fn with_classes(self, num_classes: usize) -> Self;

    /// Checks that a network of this shape exists.
    ///
    /// # Errors
    /// The first [`ConfigError`] found.
    fn validate(&self) -> Result<(), ConfigError>;
    /// The network with every parameter at zero; they take no memory before they are filled.
    ///
    /// # Errors
    /// A shape that [`validate`](Self::validate) refuses.
    fn skeleton(&self, device: &Device) -> Result<Self::Network, ConfigError>;
    /// A new network on `device`, whose numbers depend on the seed alone.
    ///
    /// # Errors
    /// A shape that [`validate`](Self::validate) refuses.
    fn init(&self, seed: u64, device: &Device) -> Result<Self::Network, ConfigError>;
}

/// Names and shapes of a state dictionary.
#[derive(Debug, Default)]
pub struct Shapes<'a>(pub BTreeMap<&'a str, &'a [usize]>);

impl Shapes<'_> {
    /// Length of an axis of a tensor; 0 for what is not there.
    pub fn size(&self, name: &str, axis: usize) -> usize {
        self.0.get(name).and_then(|shape| shape.get(axis)).copied().unwrap_or(0)
    }

    /// Members of the list `prefix` (with its dot), whose names go on with a number.
    pub fn count(&self, prefix: &str) -> usize {
        let number =
            |name: &&str| name.strip_prefix(prefix)?.split('.').next()?.parse::<usize>().ok();
        self.0.keys().filter_map(number).max().map_or(0, |last| last + 1)
    }

    /// Number of classes, by the label table.
    pub fn num_classes(&self) -> usize {
        self.size(LABEL_TABLE, 0).saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffit::{param_paths, walk};

    #[test]
    fn the_json_of_the_default_architecture_has_no_arch_and_that_of_others_has() {
        let known = Architectures::builtin();
        let json = |name| serde_json::to_value(known.get(name).unwrap().smallest()).unwrap();
        assert_eq!(json("diffit").get("arch"), None);
        assert_eq!(json("unet")["arch"], "unet");
        for arch in known.iter() {
            let read = known.read(json(arch.name())).unwrap();
            assert_eq!((read.arch(), &read), (arch.name(), &arch.smallest()));
        }
        let unknown = serde_json::json!({"arch": "vit"});
        let error = known.read(unknown).unwrap_err().to_string();
        assert_eq!(error, "unknown variant `vit`, expected `diffit` or `unet`");
    }

    #[test]
    fn parameters_have_the_names_of_the_architecture_and_shapes_tell_its_config() {
        let known = Architectures::builtin();
        for arch in known.iter() {
            let config = arch.smallest().with_classes(4);
            let net = config.skeleton(&Device::flex()).unwrap();
            let paths = walk(&net);
            assert!(paths.iter().any(|p| p.name == arch.mark()), "{}", arch.name());
            let shapes =
                Shapes(paths.iter().map(|p| (p.name.as_str(), p.shape.as_slice())).collect());
            assert_eq!(arch.infer(&shapes, config.image_size()), config);
            let others = known.iter().filter(|other| other.name() != arch.name());
            assert!(!others.into_iter().any(|other| paths.iter().any(|p| p.name == other.mark())));
            assert_eq!(param_paths(&net).len(), paths.len());
        }
    }
}

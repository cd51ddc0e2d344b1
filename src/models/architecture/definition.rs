//! What an architecture has to say of itself, and its networks have to do.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::config_error::ConfigError;
use crate::diffusion::Objective;
use crate::nn::{Pass, initialize};

/// The label table, which is trained in full where the classes are others than the base's.
pub const LABEL_TABLE: &str = "time.label.weight";

/// The weights of what the augmentation did to an image.
pub const AUGMENT_WEIGHTS: &str = "time.augment";

/// A network that the scaling of its objective makes a denoiser of. The names of its fields are the names
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

    /// What it is trained for: what its output means.
    fn objective(&self) -> Objective {
        Objective::default()
    }
}

/// The images that a network makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageShape {
    /// Side of the square image in pixels.
    pub size: usize,
    /// Colour channels.
    pub channels: usize,
    /// Number of classes; 0 for a network without labels.
    pub classes: usize,
}

impl ImageShape {
    /// Side of the image where the JSON of a config has none.
    pub fn default_size() -> usize {
        32
    }

    /// Whether the JSON of a config leaves a number out.
    pub(crate) fn is_none(count: &usize) -> bool {
        *count == 0
    }

    /// Colour channels where the JSON of a config has none.
    pub fn default_channels() -> usize {
        3
    }
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

    /// The network of a preset for these images, with what the settings change in it.
    fn new(preset: &str, settings: Self::Settings, image: ImageShape) -> Self;
    /// The smallest network with every kind of layer.
    fn smallest() -> Self;
    /// The network that the shapes of a state dictionary tell of. What cannot be told is left at a
    /// value that [`validate`](Self::validate) refuses.
    fn infer(shapes: &Shapes, image_size: usize) -> Self;

    /// The images that the network makes.
    fn image(&self) -> ImageShape;
    /// The same network for other classes.
    fn with_classes(self, num_classes: usize) -> Self;

    /// The same network, told by so many numbers what the augmentation did to an image. One of an
    /// architecture that cannot be told stays as it is.
    fn with_augment_labels(self, _labels: usize) -> Self {
        self
    }
    /// Numbers that tell the network what the augmentation did to an image.
    fn augment_labels(&self) -> usize {
        0
    }

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
    /// Whether the numbers of the parameter begin at 0. Those of the others are PyTorch's defaults
    /// for their layers: see [`initialize`].
    fn begins_at_zero(_parameter: &str) -> bool {
        false
    }
    /// A new network on `device`, whose numbers depend on the seed alone.
    ///
    /// # Errors
    /// A shape that [`validate`](Self::validate) refuses.
    fn init(&self, seed: u64, device: &Device) -> Result<Self::Network, ConfigError> {
        Ok(initialize(self.skeleton(device)?, seed, Self::begins_at_zero))
    }
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

    /// Numbers that tell of the augmentation, by their weights.
    pub fn augment_labels(&self) -> usize {
        self.size(AUGMENT_WEIGHTS, 0)
    }

    /// Number of classes, by the label table.
    pub fn num_classes(&self) -> usize {
        self.size(LABEL_TABLE, 0).saturating_sub(1)
    }
}

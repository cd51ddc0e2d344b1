//! The U-Net as one of the architectures.

use burn::tensor::{Device, Int, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::config::{Preset, UnetConfig};
use super::network::Unet;
use crate::architecture::{Architecture, ConfigError, Denoiser, ImageShape, Shapes};
use crate::nn::Pass;

impl Denoiser for Unet {
    fn forward(
        &self,
        x: Tensor<4>,
        c_noise: Tensor<1>,
        label: Option<Tensor<1, Int>>,
        pass: &Pass,
    ) -> Tensor<4> {
        self.forward(x, c_noise, label, pass)
    }
}

/// What of a preset is changed. The comments are the descriptions in the schema.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UnetSettings {
    /// Channels at full resolution.
    pub dim: Option<usize>,
    /// Channel multiplier of each resolution.
    #[schemars(example = vec![1, 2, 2])]
    pub mults: Option<Vec<usize>>,
    /// Of a `unet`: residual blocks at every resolution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depth: Option<usize>,
    /// Of a `unet`: sides, in pixels, of the resolutions with attention.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = vec![8, 16])]
    pub attention: Option<Vec<usize>>,
    // Always null. Identities have them from the time when all architectures shared their keys.
    #[serde(skip_deserializing)]
    #[schemars(skip)]
    depths: (),
    #[serde(skip_deserializing)]
    #[schemars(skip)]
    heads: (),
    #[serde(skip_deserializing)]
    #[schemars(skip)]
    window: (),
}

impl Architecture for UnetConfig {
    type Network = Unet;
    type Settings = UnetSettings;

    const NAME: &'static str = "unet";
    const ABOUT: &'static str =
        "U-Net of the ADM and DDPM++ family (Dhariwal and Nichol 2021, arXiv 2105.05233).";
    const PRESETS: &'static [(&'static str, &'static str)] = &[
        ("unet_tiny", "64 and 128 channels, two blocks at each of two resolutions."),
        ("unet_small", "96 and 192 channels, two blocks at each of three resolutions."),
        ("unet_cifar10", "256 channels, four blocks at each of three resolutions."),
    ];
    const MARK: &'static str = "stem.weight";
    const KEYS: &'static [&'static str] = &["dim", "mults", "depth", "attention"];

    fn new(preset: &str, settings: UnetSettings, image: ImageShape) -> Self {
        let preset = Preset::ALL.into_iter().find(|p| p.name() == preset).unwrap_or(Preset::Tiny);
        let preset = preset.config(image.size, image.classes);
        Self {
            dim: settings.dim.unwrap_or(preset.dim),
            mults: settings.mults.unwrap_or(preset.mults),
            depth: settings.depth.unwrap_or(preset.depth),
            attention: settings.attention.unwrap_or(preset.attention),
            channels: image.channels,
            ..preset
        }
    }

    fn smallest() -> Self {
        Self {
            dim: 32,
            mults: vec![1],
            depth: 1,
            attention: vec![8],
            image_size: 8,
            channels: 3,
            num_classes: 0,
            augment_labels: 0,
        }
    }

    fn infer(shapes: &Shapes, image_size: usize) -> Self {
        let dim = shapes.size(Self::MARK, 0);
        let levels = shapes.count("down.");
        let width = |level: usize| shapes.size(&format!("down.{level}.0.conv1.weight"), 0);
        let has_attention =
            |level: &usize| shapes.size(&format!("down.{level}.0.attention.qkv.weight"), 0) > 0;
        let mut attention: Vec<usize> = (0..levels)
            .filter(has_attention)
            .map(|level| u32::try_from(level).ok().and_then(|level| image_size.checked_shr(level)))
            .map(Option::unwrap_or_default)
            .collect();
        attention.reverse();
        Self {
            dim,
            mults: (0..levels).map(|level| width(level) / dim.max(1)).collect(),
            depth: shapes.count("down.0."),
            attention,
            image_size,
            channels: shapes.size(Self::MARK, 1),
            num_classes: shapes.num_classes(),
            augment_labels: shapes.augment_labels(),
        }
    }

    fn image(&self) -> ImageShape {
        ImageShape { size: self.image_size, channels: self.channels, classes: self.num_classes }
    }

    fn with_classes(self, num_classes: usize) -> Self {
        Self { num_classes, ..self }
    }

    fn with_augment_labels(self, augment_labels: usize) -> Self {
        Self { augment_labels, ..self }
    }

    fn augment_labels(&self) -> usize {
        self.augment_labels
    }

    fn validate(&self) -> Result<(), ConfigError> {
        self.validate()
    }

    fn skeleton(&self, device: &Device) -> Result<Unet, ConfigError> {
        self.skeleton(device)
    }

    /// The weights of each last layer: of the residual blocks, of attention, and of the network.
    fn begins_at_zero(parameter: &str) -> bool {
        ["conv2.weight", "attention.proj.weight"].iter().any(|end| parameter.ends_with(end))
            || parameter == "head.weight"
    }
}

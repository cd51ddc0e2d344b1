//! DiffiT as one of the architectures.

use burn::tensor::{Device, Int, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::config::{DiffitConfig, Preset};
use super::network::Diffit;
use crate::architecture::{Architecture, ConfigError, Denoiser, ImageShape, Shapes};
use crate::nn::Pass;

impl Denoiser for Diffit {
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
pub struct DiffitSettings {
    /// Channels at full resolution.
    pub dim: Option<usize>,
    /// Channel multiplier of each resolution.
    #[schemars(example = vec![1, 2, 2])]
    pub mults: Option<Vec<usize>>,
    /// Residual blocks at each resolution.
    #[schemars(example = vec![2, 2, 2])]
    pub depths: Option<Vec<usize>>,
    /// Attention heads.
    pub heads: Option<usize>,
    /// Side of an attention window in pixels.
    pub window: Option<usize>,
}

impl Architecture for DiffitConfig {
    type Network = Diffit;
    type Settings = DiffitSettings;

    const NAME: &'static str = "diffit";
    const ABOUT: &'static str =
        "Diffusion transformer with window attention (Hatamizadeh et al. 2024, arXiv 2312.02139).";
    const PRESETS: &'static [(&'static str, &'static str)] = &[
        ("diffit_tiny", "64 channels, one block at each of three resolutions."),
        ("diffit_small", "128 channels, two blocks at each of three resolutions."),
        ("diffit_cifar10", "128 channels, four blocks at each of three resolutions."),
    ];
    const MARK: &'static str = "tokenizer.weight";
    const KEYS: &'static [&'static str] = &["dim", "mults", "depths", "heads", "window"];

    fn new(preset: &str, settings: DiffitSettings, image: ImageShape) -> Self {
        let preset = Preset::ALL.into_iter().find(|p| p.name() == preset).unwrap_or(Preset::Tiny);
        let preset = preset.config(image.size, image.classes);
        Self {
            dim: settings.dim.unwrap_or(preset.dim),
            mults: settings.mults.unwrap_or(preset.mults),
            depths: settings.depths.unwrap_or(preset.depths),
            heads: settings.heads.unwrap_or(preset.heads),
            window: settings.window.unwrap_or(preset.window),
            channels: image.channels,
            ..preset
        }
    }

    fn smallest() -> Self {
        Self {
            dim: 16,
            mults: vec![1],
            depths: vec![1],
            heads: 1,
            window: 8,
            image_size: 8,
            channels: 3,
            num_classes: 0,
            augment_labels: 0,
        }
    }

    fn infer(shapes: &Shapes, image_size: usize) -> Self {
        let dim = shapes.size(Self::MARK, 0);
        let levels = shapes.count("down.") + 1;
        let width = |level: usize| match level {
            0 => dim,
            level => shapes.size(&format!("down.{}.weight", level - 1), 0),
        };
        let depth = |level: usize| {
            if level + 1 == levels {
                shapes.count("middle.")
            } else {
                shapes.count(&format!("encoder.{level}."))
            }
        };
        // The widest window is the setting: at coarser resolutions it shrinks with the image.
        let tables = || shapes.0.iter().filter(|(name, _)| name.ends_with("attn.bias_table"));
        let rows = tables().filter_map(|(_, shape)| shape.first()).max().copied().unwrap_or(0);
        Self {
            dim,
            mults: (0..levels).map(|level| width(level) / dim.max(1)).collect(),
            depths: (0..levels).map(depth).collect(),
            heads: tables().filter_map(|(_, shape)| shape.get(1)).next().copied().unwrap_or(0),
            window: rows.isqrt().div_ceil(2),
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

    fn skeleton(&self, device: &Device) -> Result<Diffit, ConfigError> {
        self.skeleton(device)
    }
}

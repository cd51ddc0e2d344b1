//! The shape of a U-Net: its settings, the presets, and what makes a combination impossible.
//!
//! Knows nothing of tensors. The keys are the keyword arguments of the reference `Unet(**config)`,
//! so that the JSON in a checkpoint's header builds the same network in PyTorch.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::architecture::{ConfigError, ImageShape};

/// Channels of one attention head. Every width is a multiple of it, and so of the groups of every
/// norm.
pub const HEAD_WIDTH: usize = 32;

/// Everything that decides the parameters of a network and their shapes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnetConfig {
    /// Channels of the first convolution; a multiple of 32.
    pub dim: usize,
    /// Channel multiplier of each resolution, finest first; each further one halves the image's
    /// side.
    pub mults: Vec<usize>,
    /// Residual blocks at each resolution on the way down; on the way up there is one more.
    pub depth: usize,
    /// Sides, in pixels, of the resolutions whose blocks have attention. The block in the middle
    /// always has it.
    pub attention: Vec<usize>,
    /// Side of the square image in pixels.
    #[serde(default = "ImageShape::default_size")]
    pub image_size: usize,
    /// Colour channels of the image.
    #[serde(default = "ImageShape::default_channels")]
    pub channels: usize,
    /// Number of classes; 0 trains without labels.
    #[serde(default)]
    pub num_classes: usize,
    /// Numbers that tell what the augmentation did to an image; 0 trains without.
    #[serde(default, skip_serializing_if = "ImageShape::is_none")]
    pub augment_labels: usize,
}

/// A network by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// 64 channels, two blocks at each of two resolutions.
    Tiny,
    /// 96 channels, two blocks at each of three resolutions.
    Small,
    /// 256 channels, four blocks at each of three resolutions.
    Cifar10,
}

impl Preset {
    /// Every preset, smallest first.
    pub const ALL: [Preset; 3] = [Preset::Tiny, Preset::Small, Preset::Cifar10];

    /// The name used in settings files.
    pub fn name(self) -> &'static str {
        match self {
            Preset::Tiny => "unet_tiny",
            Preset::Small => "unet_small",
            Preset::Cifar10 => "unet_cifar10",
        }
    }

    /// The network of this preset for RGB images of `image_size`² pixels; `num_classes` 0 means no
    /// labels.
    pub fn config(self, image_size: usize, num_classes: usize) -> UnetConfig {
        let (dim, mults, depth, attention) = match self {
            Preset::Tiny => (64, vec![1, 2], 2, vec![8]),
            Preset::Small => (96, vec![1, 2, 2], 2, vec![8, 16]),
            Preset::Cifar10 => (128, vec![2, 2, 2], 4, vec![16]),
        };
        UnetConfig {
            dim,
            mults,
            depth,
            attention,
            image_size,
            channels: 3,
            num_classes,
            augment_labels: 0,
        }
    }
}

impl UnetConfig {
    /// Channels at each resolution, finest first.
    pub fn dims(&self) -> Vec<usize> {
        self.mults.iter().map(|mult| self.dim * mult).collect()
    }

    /// Width of the embedding of noise level and class.
    pub fn time_dim(&self) -> usize {
        4 * self.dim
    }

    /// Whether the blocks at resolution `level` have attention.
    pub fn has_attention(&self, level: usize) -> bool {
        self.attention.contains(&(self.image_size >> level))
    }

    /// Checks that a network of this shape exists.
    ///
    /// # Errors
    /// The first [`ConfigError`] found.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let sizes = [
            ("dim", self.dim),
            ("mults", self.mults.iter().copied().min().unwrap_or(0)),
            ("depth", self.depth),
            ("attention", self.attention.iter().copied().min().unwrap_or(1)),
            ("image_size", self.image_size),
            ("channels", self.channels),
        ];
        if let Some((key, _)) = sizes.into_iter().find(|(_, value)| *value == 0) {
            return Err(ConfigError::Zero { key });
        }
        if !self.dim.is_multiple_of(HEAD_WIDTH) {
            return Err(ConfigError::Dim {
                dim: self.dim,
                of: HEAD_WIDTH,
                why: "the channels of an attention head",
            });
        }
        ConfigError::check_halving(self.image_size, self.mults.len() - 1)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::Architecture;

    #[test]
    fn presets_are_valid_at_common_sizes() {
        for preset in Preset::ALL {
            for size in [16, 32, 64] {
                assert_eq!(preset.config(size, 10).validate(), Ok(()));
            }
            let config = <UnetConfig as Architecture>::new(
                preset.name(),
                Default::default(),
                ImageShape { size: 16, channels: 3, classes: 0 },
            );
            assert_eq!(config, preset.config(16, 0), "its name means it");
        }
    }

    #[test]
    fn json_has_the_reference_keyword_names() {
        let json =
            serde_json::to_value(Preset::Small.config(32, 10)).expect("a config is plain data");
        let expected = serde_json::json!({
            "dim": 96, "mults": [1, 2, 2], "depth": 2, "attention": [8, 16],
            "image_size": 32, "channels": 3, "num_classes": 10,
        });
        assert_eq!(json, expected);
        assert_eq!(
            serde_json::from_value::<UnetConfig>(json).ok(),
            Some(Preset::Small.config(32, 10))
        );
    }

    #[test]
    fn impossible_shapes_name_the_key() {
        let with = |change: fn(&mut UnetConfig)| {
            let mut config = Preset::Small.config(32, 0);
            change(&mut config);
            config.validate().expect_err("the change makes it impossible").to_string()
        };
        let found = [
            with(|c| c.depth = 0),
            with(|c| c.mults = vec![]),
            with(|c| c.mults = vec![1, 0]),
            with(|c| c.attention = vec![0]),
            with(|c| c.dim = 48),
            with(|c| c.image_size = 30),
            with(|c| c.mults = vec![1; 80]),
        ];
        let expected = [
            "`depth` must be at least 1",
            "`mults` must be at least 1",
            "`mults` must be at least 1",
            "`attention` must be at least 1",
            "`dim` 48 is not a multiple of 32 (the channels of an attention head)",
            "`image_size` 30 cannot be halved 2 times (once for each resolution after the first); use a multiple of 4",
            "`image_size` 32 cannot be halved 79 times (once for each resolution after the first); use a multiple of 0",
        ];
        assert_eq!(found, expected);
    }
}

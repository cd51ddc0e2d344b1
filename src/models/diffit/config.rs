//! The shape of a DiffiT network: its settings, the presets, and what makes a combination
//! impossible.
//!
//! Knows nothing of tensors. The keys are the keyword arguments of the reference
//! `Diffit(**config)`, so that the JSON in a checkpoint's header builds the same network in
//! PyTorch.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::architecture::{ConfigError, ImageShape};

/// Channels that share one group in every group norm.
pub const CHANNELS_PER_GROUP: usize = 16;

/// Everything that decides the parameters of a network and their shapes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiffitConfig {
    /// Channels at full resolution; a multiple of 16.
    pub dim: usize,
    /// Channel multiplier of each resolution, finest first; each further one halves the image's
    /// side.
    pub mults: Vec<usize>,
    /// Residual blocks at each resolution.
    pub depths: Vec<usize>,
    /// Attention heads.
    pub heads: usize,
    /// Side of an attention window in pixels; shrinks to the image where that is smaller.
    pub window: usize,
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
    /// 64 channels, one block at each of three resolutions.
    Tiny,
    /// 128 channels, two blocks at each of three resolutions.
    Small,
    /// 128 channels, four blocks at each of three resolutions.
    Cifar10,
}

impl Preset {
    /// Every preset, smallest first.
    pub const ALL: [Preset; 3] = [Preset::Tiny, Preset::Small, Preset::Cifar10];

    /// The name used in settings files.
    pub fn name(self) -> &'static str {
        match self {
            Preset::Tiny => "diffit_tiny",
            Preset::Small => "diffit_small",
            Preset::Cifar10 => "diffit_cifar10",
        }
    }

    /// The network of this preset for RGB images of `image_size`² pixels; `num_classes` 0 means no
    /// labels.
    pub fn config(self, image_size: usize, num_classes: usize) -> DiffitConfig {
        let (dim, depth) = match self {
            Preset::Tiny => (64, 1),
            Preset::Small => (128, 2),
            Preset::Cifar10 => (128, 4),
        };
        DiffitConfig {
            dim,
            mults: vec![1, 2, 2],
            depths: vec![depth; 3],
            heads: 4,
            window: 8,
            image_size,
            channels: 3,
            num_classes,
            augment_labels: 0,
        }
    }
}

impl DiffitConfig {
    /// Channels at each resolution, finest first.
    pub fn dims(&self) -> Vec<usize> {
        self.mults.iter().map(|mult| self.dim * mult).collect()
    }

    /// Width of the time token.
    pub fn time_dim(&self) -> usize {
        4 * self.dim
    }

    /// Side of the image at resolution `level`.
    pub fn side(&self, level: usize) -> usize {
        self.image_size >> level
    }

    /// Side of an attention window at resolution `level`.
    pub fn window_at(&self, level: usize) -> usize {
        self.window.min(self.side(level))
    }

    /// Checks that a network of this shape exists.
    ///
    /// # Errors
    /// The first [`ConfigError`] found.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let sizes = [
            ("dim", self.dim),
            ("heads", self.heads),
            ("window", self.window),
            ("image_size", self.image_size),
            ("channels", self.channels),
            ("mults", self.mults.len()),
        ];
        if let Some((key, _)) = sizes.into_iter().find(|(_, value)| *value == 0) {
            return Err(ConfigError::Zero { key });
        }
        if self.mults.contains(&0) {
            return Err(ConfigError::Zero { key: "mults" });
        }
        if self.mults.len() != self.depths.len() {
            return Err(ConfigError::Levels { mults: self.mults.len(), depths: self.depths.len() });
        }
        for (level, dim) in self.dims().into_iter().enumerate() {
            for (of, why) in
                [(CHANNELS_PER_GROUP, "the group norm's size"), (self.heads, "`heads`")]
            {
                if !dim.is_multiple_of(of) {
                    return Err(ConfigError::Channels { level, dim, of, why });
                }
            }
        }
        ConfigError::check_halving(self.image_size, self.mults.len() - 1)?;
        for level in 0..self.mults.len() {
            let (window, side) = (self.window_at(level), self.side(level));
            if !side.is_multiple_of(window) {
                return Err(ConfigError::Window {
                    window,
                    side,
                    level,
                    image_size: self.image_size,
                });
            }
        }
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
            let config = <DiffitConfig as Architecture>::new(
                preset.name(),
                Default::default(),
                ImageShape { size: 16, channels: 3, classes: 0 },
            );
            assert_eq!(config, preset.config(16, 0), "its name means it");
        }
    }

    #[test]
    fn a_window_as_large_as_the_image_leaves_no_border_at_any_resolution() {
        for preset in Preset::ALL {
            for size in [8, 16, 32] {
                let config = DiffitConfig { window: size, ..preset.config(size, 0) };
                assert_eq!(config.validate(), Ok(()));
                for level in 0..config.mults.len() {
                    assert_eq!(config.window_at(level), config.side(level));
                }
            }
        }
        let bordered = Preset::Tiny.config(16, 0);
        assert!(bordered.window_at(0) < bordered.side(0));
    }

    #[test]
    fn json_has_the_reference_keyword_names() {
        let json =
            serde_json::to_value(Preset::Tiny.config(32, 10)).expect("a config is plain data");
        let expected = serde_json::json!({
            "dim": 64, "mults": [1, 2, 2], "depths": [1, 1, 1], "heads": 4, "window": 8,
            "image_size": 32, "channels": 3, "num_classes": 10,
        });
        assert_eq!(json, expected);
        assert_eq!(
            serde_json::from_value::<DiffitConfig>(json).ok(),
            Some(Preset::Tiny.config(32, 10))
        );
    }

    #[test]
    fn impossible_shapes_name_the_key() {
        let with = |change: fn(&mut DiffitConfig)| {
            let mut config = Preset::Tiny.config(32, 0);
            change(&mut config);
            config.validate().expect_err("the change makes it impossible").to_string()
        };
        let found = [
            with(|c| c.heads = 0),
            with(|c| c.depths = vec![1]),
            with(|c| c.dim = 24),
            with(|c| c.heads = 3),
            with(|c| c.image_size = 30),
            with(|c| c.image_size = 20),
        ];
        let expected = [
            "`heads` must be at least 1",
            "`mults` and `depths` need one number for each resolution, found 3 and 1",
            "`dim` times `mults[0]` is 24 channels, not a multiple of 16 (the group norm's size)",
            "`dim` times `mults[0]` is 64 channels, not a multiple of 3 (`heads`)",
            "`image_size` 30 cannot be halved 2 times (once for each resolution after the first); use a multiple of 4",
            "`window` 8 does not divide the 20 px side at resolution 0 of `image_size` 20; choose another `window` or `image_size`",
        ];
        assert_eq!(found, expected);
    }
}

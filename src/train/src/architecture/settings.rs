//! The `model:` block: a family, a preset, and what differs from it.

use pipe_engine::kind::Rejection;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Arch, ModelConfig};

/// A network by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Preset {
    /// 64 channels, one block at each of three resolutions.
    #[serde(rename = "diffit_tiny")]
    DiffitTiny,
    /// 128 channels, two blocks at each of three resolutions.
    #[serde(rename = "diffit_small")]
    DiffitSmall,
    /// 128 channels, four blocks at each of three resolutions.
    #[serde(rename = "diffit_cifar10")]
    DiffitCifar10,
    /// 64 and 128 channels, two blocks at each of two resolutions.
    #[serde(rename = "unet_tiny")]
    UnetTiny,
    /// 96 and 192 channels, two blocks at each of three resolutions.
    #[serde(rename = "unet_small")]
    UnetSmall,
    /// 256 channels, four blocks at each of three resolutions.
    #[serde(rename = "unet_cifar10")]
    UnetCifar10,
}

impl Preset {
    /// Every preset, by family, smallest first.
    pub const ALL: [Preset; 6] = [
        Preset::DiffitTiny,
        Preset::DiffitSmall,
        Preset::DiffitCifar10,
        Preset::UnetTiny,
        Preset::UnetSmall,
        Preset::UnetCifar10,
    ];

    /// The name used in settings files.
    pub fn name(self) -> &'static str {
        match self {
            Preset::DiffitTiny => "diffit_tiny",
            Preset::DiffitSmall => "diffit_small",
            Preset::DiffitCifar10 => "diffit_cifar10",
            Preset::UnetTiny => "unet_tiny",
            Preset::UnetSmall => "unet_small",
            Preset::UnetCifar10 => "unet_cifar10",
        }
    }

    /// The family.
    pub fn arch(self) -> Arch {
        match self {
            Preset::DiffitTiny | Preset::DiffitSmall | Preset::DiffitCifar10 => Arch::Diffit,
            Preset::UnetTiny | Preset::UnetSmall | Preset::UnetCifar10 => Arch::Unet,
        }
    }
}

/// The network: a preset, and what differs from it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSettings {
    /// The family of networks.
    // Not written where it is the default: identities and files are older than the second family.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Arch", extend("default" = "diffit"))]
    #[schemars(extend("x-known-as" = ["architecture", "model_type"]))]
    pub arch: Option<Arch>,
    /// Of `arch`; its smallest if unset.
    // Without a preset in a block, the family decides; without the block, this is the default's.
    #[serde(default)]
    #[schemars(with = "Preset", extend("default" = "diffit_tiny"))]
    pub preset: Option<Preset>,
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
    /// Of a `unet`: residual blocks at every resolution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depth: Option<usize>,
    /// Of a `unet`: sides, in pixels, of the resolutions with attention.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = vec![8, 16])]
    pub attention: Option<Vec<usize>>,
    /// Learn the classes of the data set, so that samples can be asked for by class.
    pub class_conditional: bool,
    /// Share of images that are trained without their label, for classifier-free guidance
    /// (Ho and Salimans 2022, arXiv 2207.12598).
    #[schemars(range(min = 0.0, max = 1.0))]
    pub label_dropout: f64,
}

impl Default for ModelSettings {
    fn default() -> Self {
        Self {
            arch: None,
            preset: Some(Preset::DiffitTiny),
            dim: None,
            mults: None,
            depths: None,
            heads: None,
            window: None,
            depth: None,
            attention: None,
            class_conditional: true,
            label_dropout: 0.1,
        }
    }
}

impl ModelSettings {
    fn arch(&self) -> Arch {
        self.arch.unwrap_or_default()
    }

    fn preset(&self) -> Preset {
        self.preset.unwrap_or(self.arch().default_preset())
    }

    /// The settings with what depends on the family filled in: one form for all that mean the same.
    ///
    /// # Errors
    /// A preset or a key of another family.
    pub fn resolved(mut self) -> Result<Self, Rejection> {
        let (arch, preset) = (self.arch(), self.preset());
        if preset.arch() != arch {
            let (name, of) = (preset.name(), preset.arch().name());
            let text =
                format!("`{name}` is a preset of `arch: {of}`, not of `arch: {}`", arch.name());
            return Err(Rejection::value("model.preset", text));
        }
        let of_some = [
            ("depths", self.depths.is_some()),
            ("heads", self.heads.is_some()),
            ("window", self.window.is_some()),
            ("depth", self.depth.is_some()),
            ("attention", self.attention.is_some()),
        ];
        let foreign = |(key, is_set): &(&str, bool)| *is_set && !arch.keys().contains(key);
        if let Some((key, _)) = of_some.into_iter().find(foreign) {
            let has = arch.keys().join(", ");
            let text = format!("`arch: {}` has no such setting; its own are {has}", arch.name());
            return Err(Rejection::value(format!("model.{key}"), text));
        }
        self.arch = (arch != Arch::default()).then_some(arch);
        self.preset = Some(preset);
        Ok(self)
    }

    /// The network for a data set.
    pub fn config(&self, image_size: usize, classes: usize) -> ModelConfig {
        let classes = if self.class_conditional { classes } else { 0 };
        ModelConfig::new(self.preset(), self, image_size, classes)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn resolved(settings: Value) -> Result<Value, String> {
        let settings: ModelSettings = serde_json::from_value(settings).unwrap();
        let resolved = settings.resolved().map_err(|e| match e {
            Rejection::Value { key, message } => format!("{key}: {message}"),
            Rejection::Form(error) => error.to_string(),
        })?;
        Ok(serde_json::to_value(resolved).unwrap())
    }

    #[test]
    fn every_preset_is_of_a_family_and_has_its_name() {
        for preset in Preset::ALL {
            assert_eq!(serde_json::to_value(preset).unwrap(), preset.name());
            let settings = ModelSettings { preset: Some(preset), ..Default::default() };
            let config = settings.config(32, 10);
            assert_eq!((config.arch(), config.validate()), (preset.arch(), Ok(())));
            assert_eq!((config.image_size(), config.num_classes()), (32, 10));
        }
    }

    #[test]
    fn the_default_family_is_not_written_and_the_settings_are_those_of_before() {
        let before = json!({
            "preset": "diffit_tiny", "dim": null, "mults": null, "depths": null, "heads": null,
            "window": null, "class_conditional": true, "label_dropout": 0.1,
        });
        assert_eq!(resolved(json!({})), Ok(before.clone()));
        assert_eq!(serde_json::to_value(ModelSettings::default()).unwrap(), before);
        assert_eq!(resolved(json!({"arch": "diffit"})), Ok(before.clone()));
        assert_eq!(resolved(before.clone()), Ok(before));
    }

    #[test]
    fn another_family_has_its_own_preset_and_keys() {
        let unet = resolved(json!({"arch": "unet", "depth": 1})).unwrap();
        assert_eq!((&unet["arch"], &unet["preset"]), (&json!("unet"), &json!("unet_tiny")));
        assert_eq!(resolved(unet.clone()), Ok(unet));
        let refused = |settings: Value| resolved(settings).unwrap_err();
        let wrong_preset = refused(json!({"preset": "unet_small"}));
        assert!(
            wrong_preset.contains("`unet_small` is a preset of `arch: unet`"),
            "{wrong_preset}"
        );
        let wrong_key = refused(json!({"arch": "unet", "heads": 2}));
        assert!(wrong_key.contains("model.heads") && wrong_key.contains("depth, attention"));
    }
}

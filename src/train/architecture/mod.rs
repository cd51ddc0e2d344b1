//! The families of networks and the list of them: what a family has to say of itself, and one type
//! for the settings and one for the network of whichever it is.
//!
//! Everything outside (the loop, optimizer, EMA weights, LoRA, sampler, checkpoints) works with
//! [`ModelConfig`] and [`Network`] and names no family. Another one is a folder with its
//! [`Architecture`], its presets in [`Preset`], and a line in the list below.

mod settings;

use std::collections::BTreeMap;

use burn::module::{Devices, Module, ModuleMapper, ModuleVisitor};
use burn::tensor::{Device, Int, Tensor};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
pub use settings::{ModelSettings, Preset};

use crate::diffit::{ConfigError, Diffit, DiffitConfig, Pass};
use crate::unet::{Unet, UnetConfig};

/// The label table, which is trained in full where the classes are others than the base's.
pub const LABEL_TABLE: &str = "time.label.weight";

/// A network that EDM's preconditioning makes a denoiser of. The names of its fields are the names
/// of its parameters in checkpoints; its label table, where it knows classes, is
/// [`LABEL_TABLE`].
pub trait Denoiser: Module {
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

/// What decides the parameters of one network of a family. Its JSON is in the header of
/// checkpoints.
pub trait Architecture: Clone + PartialEq + std::fmt::Debug + Serialize + DeserializeOwned {
    /// The network itself.
    type Network: Denoiser;

    /// Name of a tensor that every network of the family has and no other family's.
    const MARK: &'static str;
    /// Keys of `model:` that this family has and not every other one.
    const KEYS: &'static [&'static str];

    /// The network of a preset for RGB images of `image_size`² pixels, with what the settings
    /// change in it. `num_classes` 0 means no labels; a preset of another family is the smallest.
    fn new(preset: Preset, settings: &ModelSettings, image_size: usize, num_classes: usize)
    -> Self;
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

/// The key of a family's name in the JSON of a [`ModelConfig`].
const ARCH: &str = "arch";

/// Declares the families, the default first, each with its name, its smallest preset, its network
/// and its settings.
macro_rules! architectures {
    ($($Family:ident($name:literal, $preset:ident): $Net:ty, $Config:ty;)*) => {
        /// A family of networks, by its name.
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema,
        )]
        #[serde(rename_all = "lowercase")]
        pub enum Arch {
            /// Diffusion transformer with window attention (Hatamizadeh et al. 2024, arXiv
            /// 2312.02139).
            #[default]
            Diffit,
            /// U-Net of the ADM and DDPM++ family (Dhariwal and Nichol 2021, arXiv 2105.05233).
            Unet,
        }

        impl Arch {
            /// Every family, the default first.
            pub const ALL: &[Arch] = &[$(Arch::$Family),*];

            /// The name used in settings files and headers.
            pub fn name(self) -> &'static str {
                match self { $(Arch::$Family => $name,)* }
            }

            /// The preset where the settings name none.
            pub fn default_preset(self) -> Preset {
                match self { $(Arch::$Family => Preset::$preset,)* }
            }

            /// Keys of `model:` that this family has and not every other one.
            pub fn keys(self) -> &'static [&'static str] {
                match self { $(Arch::$Family => <$Config>::KEYS,)* }
            }

            /// Name of a tensor that every network of the family has and no other family's.
            pub fn mark(self) -> &'static str {
                match self { $(Arch::$Family => <$Config>::MARK,)* }
            }

            /// The network that the shapes of a state dictionary tell of: see
            /// [`Architecture::infer`].
            pub fn infer(self, shapes: &Shapes, image_size: usize) -> ModelConfig {
                match self {
                    $(Arch::$Family => <$Config>::infer(shapes, image_size).into(),)*
                }
            }

            /// The smallest network with every kind of layer.
            pub fn smallest(self) -> ModelConfig {
                match self { $(Arch::$Family => <$Config>::smallest().into(),)* }
            }
        }

        /// Everything that decides the parameters of a network and their shapes, of whichever
        /// family.
        #[derive(Debug, Clone, PartialEq)]
        pub enum ModelConfig {
            $($Family($Config),)*
        }

        $(impl From<$Config> for ModelConfig {
            fn from(config: $Config) -> Self {
                Self::$Family(config)
            }
        })*

        impl ModelConfig {
            /// The family.
            pub fn arch(&self) -> Arch {
                match self { $(Self::$Family(_) => Arch::$Family,)* }
            }

            /// The network of a preset: see [`Architecture::new`].
            fn new(preset: Preset, settings: &ModelSettings, size: usize, classes: usize) -> Self {
                match preset.arch() {
                    $(Arch::$Family => {
                        <$Config as Architecture>::new(preset, settings, size, classes).into()
                    })*
                }
            }

            /// Side of the square image in pixels.
            pub fn image_size(&self) -> usize {
                match self { $(Self::$Family(config) => Architecture::image_size(config),)* }
            }

            /// Colour channels of the image.
            pub fn channels(&self) -> usize {
                match self { $(Self::$Family(config) => Architecture::channels(config),)* }
            }

            /// Number of classes; 0 for a network without labels.
            pub fn num_classes(&self) -> usize {
                match self { $(Self::$Family(config) => Architecture::num_classes(config),)* }
            }

            /// The same network for other classes.
            pub fn with_classes(self, classes: usize) -> Self {
                match self {
                    $(Self::$Family(config) => Self::$Family(config.with_classes(classes)),)*
                }
            }

            /// Checks that a network of this shape exists.
            ///
            /// # Errors
            /// The first [`ConfigError`] found.
            pub fn validate(&self) -> Result<(), ConfigError> {
                match self { $(Self::$Family(config) => Architecture::validate(config),)* }
            }

            /// The network with every parameter at zero: see [`Architecture::skeleton`].
            ///
            /// # Errors
            /// A shape that [`validate`](Self::validate) refuses.
            pub fn skeleton(&self, device: &Device) -> Result<Network, ConfigError> {
                match self {
                    $(Self::$Family(config) => {
                        Ok(Network::$Family(Architecture::skeleton(config, device)?))
                    })*
                }
            }

            /// A new network on `device`: see [`Architecture::init`].
            ///
            /// # Errors
            /// A shape that [`validate`](Self::validate) refuses.
            pub fn init(&self, seed: u64, device: &Device) -> Result<Network, ConfigError> {
                match self {
                    $(Self::$Family(config) => {
                        Ok(Network::$Family(Architecture::init(config, seed, device)?))
                    })*
                }
            }
        }

        /// The settings alone for the default family, as they were before there was another; the
        /// family's name before them for the others.
        impl Serialize for ModelConfig {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::Error;
                let value = match self { $(Self::$Family(config) => serde_json::to_value(config),)* };
                let mut value = value.map_err(S::Error::custom)?;
                if self.arch() != Arch::default() && let Value::Object(keys) = &mut value {
                    keys.insert(ARCH.to_owned(), self.arch().name().into());
                }
                value.serialize(serializer)
            }
        }

        impl<'de> Deserialize<'de> for ModelConfig {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let mut value = Value::deserialize(deserializer)?;
                let arch = value.as_object_mut().and_then(|keys| keys.remove(ARCH));
                let arch = arch.map_or(Ok(Arch::default()), serde_json::from_value);
                match arch.map_err(D::Error::custom)? {
                    $(Arch::$Family => serde_json::from_value(value).map(Self::$Family),)*
                }
                .map_err(D::Error::custom)
            }
        }

        /// A network of whichever family. Its parameters have the names that the family gives them.
        #[derive(Debug, Clone)]
        #[allow(clippy::large_enum_variant, reason = "there are few, and each is moved whole")]
        pub enum Network {
            $($Family($Net),)*
        }

        impl Denoiser for Network {
            fn forward(
                &self,
                x: Tensor<4>,
                c_noise: Tensor<1>,
                label: Option<Tensor<1, Int>>,
                pass: &Pass,
            ) -> Tensor<4> {
                match self {
                    $(Self::$Family(net) => Denoiser::forward(net, x, c_noise, label, pass),)*
                }
            }
        }

        /// By hand: burn's derivation for an enum would put the family before every name.
        impl Module for Network {
            fn collect_devices(&self, devices: Devices) -> Devices {
                match self { $(Self::$Family(net) => net.collect_devices(devices),)* }
            }
            fn fork(self, device: &Device) -> Self {
                match self { $(Self::$Family(net) => Self::$Family(net.fork(device)),)* }
            }
            fn to_device(self, device: &Device) -> Self {
                match self { $(Self::$Family(net) => Self::$Family(net.to_device(device)),)* }
            }
            fn train(self) -> Self {
                match self { $(Self::$Family(net) => Self::$Family(net.train()),)* }
            }
            fn valid(&self) -> Self {
                match self { $(Self::$Family(net) => Self::$Family(net.valid()),)* }
            }
            fn materialize(self) -> Self {
                match self { $(Self::$Family(net) => Self::$Family(net.materialize()),)* }
            }
            fn visit<Visitor: ModuleVisitor>(&self, visitor: &mut Visitor) {
                match self { $(Self::$Family(net) => net.visit(visitor),)* }
            }
            fn map<Mapper: ModuleMapper>(self, mapper: &mut Mapper) -> Self {
                match self { $(Self::$Family(net) => Self::$Family(net.map(mapper)),)* }
            }
        }
    };
}

architectures! {
    Diffit("diffit", DiffitTiny): Diffit, DiffitConfig;
    Unet("unet", UnetTiny): Unet, UnetConfig;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffit::{param_paths, walk};

    #[test]
    fn the_json_of_the_default_family_has_no_arch_and_that_of_others_has() {
        let json = |arch: Arch| serde_json::to_value(arch.smallest()).unwrap();
        assert_eq!(json(Arch::Diffit).get(ARCH), None);
        assert_eq!(json(Arch::Unet)[ARCH], "unet");
        for arch in Arch::ALL {
            let read: ModelConfig = serde_json::from_value(json(*arch)).unwrap();
            assert_eq!((read.arch(), &read), (*arch, &arch.smallest()));
        }
        let unknown = serde_json::json!({"arch": "vit"});
        let error = serde_json::from_value::<ModelConfig>(unknown).unwrap_err().to_string();
        assert_eq!(error, "unknown variant `vit`, expected `diffit` or `unet`");
    }

    #[test]
    fn a_network_s_parameters_have_the_family_s_names_and_shapes_tell_its_config() {
        for arch in Arch::ALL {
            let config = arch.smallest().with_classes(4);
            let net = config.skeleton(&Device::flex()).unwrap();
            let paths = walk(&net);
            assert!(paths.iter().any(|p| p.name == arch.mark()), "{arch:?}");
            let shapes =
                Shapes(paths.iter().map(|p| (p.name.as_str(), p.shape.as_slice())).collect());
            assert_eq!(arch.infer(&shapes, config.image_size()), config);
            let others = Arch::ALL.iter().filter(|other| *other != arch);
            assert!(!others.into_iter().any(|other| paths.iter().any(|p| p.name == other.mark())));
            assert_eq!(param_paths(&net).len(), paths.len());
        }
    }
}

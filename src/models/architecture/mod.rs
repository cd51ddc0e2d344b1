//! Architectures of networks: what one has to say of itself, and the registry of those that a
//! program knows.
//!
//! Everything outside (the loop, optimizer, EMA weights, LoRA, sampler, checkpoints) works with
//! [`ModelConfig`] and [`Network`], whichever architecture they are of, and names none. A new
//! one is a type with [`Architecture`] and a network with [`Denoiser`]; a program hands it in with
//! [`Architectures::with`], the product's own stand in [`Architectures::builtin`].

mod config;
mod config_error;
mod definition;
mod network;
mod registry;
mod settings;

pub use config::ModelConfig;
pub use config_error::ConfigError;
pub use definition::{Architecture, Denoiser, ImageShape, LABEL_TABLE, Shapes};
pub use network::Network;
pub use registry::{ArchitectureInfo, Architectures};
pub use settings::{ModelSettings, SettingsError, describe};

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::nn::{param_paths, walk};

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

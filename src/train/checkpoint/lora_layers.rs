//! The layers of a model that LoRA has put factors beside, or would.

use std::path::Path;

use burn::tensor::Device;
use pipe_models::architecture::ImageShape;
use pipe_runs::Checkpoint;
use serde_json::Map;

use super::rebuild::{BASE_FILE, RebuildError, config, inference_prefix};
use crate::architecture::{ArchitectureInfo, Architectures, ModelConfig};
use crate::lora::{
    AdaptedLayer, Adapter, LoraConfig, LoraPlan, TargetError, layer_names, parameter_count,
};

/// The layers with factors, and how much of the model they are.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraLayers {
    pub layers: Vec<AdaptedLayer>,
    /// Parameters that are trained in full beside the factors, each with its count.
    pub in_full: Vec<(String, usize)>,
    /// Numbers in the model without factors; `None` where an adapter's base is not known.
    pub base: Option<usize>,
}

/// Why the layers of a file are not known.
#[derive(Debug, thiserror::Error)]
pub enum LayersError {
    #[error(transparent)]
    Model(#[from] RebuildError),
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error("{0} has LoRA weights, so its layers are chosen already; choose those of a base model")]
    Chosen(String),
}

impl LoraLayers {
    /// Numbers that are trained.
    pub fn trainable(&self) -> usize {
        let factors: usize = self.layers.iter().map(|layer| layer.parameters).sum();
        factors + self.in_full.iter().map(|(_, count)| count).sum::<usize>()
    }

    /// Numbers in the model with its factors.
    pub fn parameters(&self) -> Option<usize> {
        let factors: usize = self.layers.iter().map(|layer| layer.parameters).sum();
        self.base.map(|base| base + factors)
    }

    /// Those of a file: a checkpoint of a whole model, of which `lora` chooses (all where it names
    /// none), a checkpoint of LoRA, or a folder in PEFT's format.
    pub fn of_file(
        known: &Architectures,
        file: &Path,
        lora: &LoraConfig,
        is_chosen: bool,
    ) -> Result<Self, LayersError> {
        let refuse_choice = || {
            let refused = LayersError::Chosen(file.display().to_string());
            if is_chosen { Err(refused) } else { Ok(()) }
        };
        if file.is_dir() {
            refuse_choice()?;
            let adapter = Adapter::read(file).map_err(RebuildError::from)?;
            let base = file.parent().map(|run| run.join(BASE_FILE)).filter(|path| path.is_file());
            let base = base.map(|base| Checkpoint::open(&base)).transpose();
            let base = base.map_err(RebuildError::from)?.map(|base| config(known, &base));
            let base = base.transpose()?.map(|config| match adapter.num_classes() {
                Some(classes) => config.with_classes(classes),
                None => config,
            });
            return Ok(Self::of_adapter(&adapter, base.as_ref())?);
        }
        let checkpoint = Checkpoint::open(file).map_err(RebuildError::from)?;
        let config = config(known, &checkpoint)?;
        let adapter = Adapter::from_checkpoint(&checkpoint, inference_prefix(&checkpoint));
        match adapter.map_err(RebuildError::from)? {
            Some(adapter) => {
                refuse_choice()?;
                Ok(Self::of_adapter(&adapter, Some(&config))?)
            }
            None => Self::of_config(&config, lora),
        }
    }

    /// Those that `lora` chooses of a new network: a preset for images of that side.
    pub fn of_preset(
        known: &dyn ArchitectureInfo,
        preset: &str,
        image_size: usize,
        lora: &LoraConfig,
    ) -> Result<Self, LayersError> {
        let image =
            ImageShape { size: image_size, channels: ImageShape::default_channels(), classes: 0 };
        let config = known.config(preset, &Map::new(), image);
        let config = config.map_err(|e| RebuildError::Json(serde::de::Error::custom(e)))?;
        Self::of_config(&config, lora)
    }

    fn of_config(config: &ModelConfig, lora: &LoraConfig) -> Result<Self, LayersError> {
        let model = config.skeleton(&Device::flex()).map_err(RebuildError::from)?;
        let all = || LoraConfig { target_modules: layer_names(&model), ..lora.clone() };
        let lora = if lora.target_modules.is_empty() { all() } else { lora.clone() };
        let layers = LoraPlan::new(&lora, &model)?.layers(&model);
        Ok(Self { layers, in_full: Vec::new(), base: Some(parameter_count(&model)) })
    }

    fn of_adapter(adapter: &Adapter, base: Option<&ModelConfig>) -> Result<Self, RebuildError> {
        let base = base.map(|config| config.skeleton(&Device::flex())).transpose()?;
        let base = base.map(|model| parameter_count(&model));
        Ok(Self { layers: adapter.layers(), in_full: adapter.trained_in_full(), base })
    }
}

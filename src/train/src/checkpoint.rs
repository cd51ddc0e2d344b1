//! Models from checkpoint files: a checkpoint alone is enough to rebuild its model.

use burn::tensor::Device;
use pipe_engine::store::{Checkpoint, CheckpointError};

use crate::diffit::probe::{Probe, probe as probe_model};
use crate::diffit::{ConfigError, Diffit, DiffitConfig, LoadError, load_state_dict};

/// Why a model could not be rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    #[error("failed to rebuild the model: its config is not valid: {0}")]
    Json(serde_json::Error),
    #[error("failed to rebuild the model: {0}")]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Load(#[from] LoadError<CheckpointError>),
}

/// Builds the model that a checkpoint holds. `prefix` chooses the weights: `state_dict.` or `ema_state_dict.`.
pub fn model(
    checkpoint: &Checkpoint,
    prefix: &str,
    device: &Device,
) -> Result<(Diffit, DiffitConfig), RebuildError> {
    let config: DiffitConfig =
        serde_json::from_value(checkpoint.header().model_config.clone()).map_err(RebuildError::Json)?;
    config.validate()?;
    let names: Vec<String> = checkpoint.tensors().map(|t| t.name.clone()).collect();
    let skeleton = config.init(checkpoint.header().seed, device)?;
    let available = names.iter().map(String::as_str);
    let lookup = |name: &str| match names.iter().any(|n| n == name) {
        true => checkpoint.read(name).map(Some),
        false => Ok(None),
    };
    Ok((load_state_dict(skeleton, prefix, available, lookup)?, config))
}

/// The model's outputs on fixed inputs, on the CPU.
pub fn probe(checkpoint: &Checkpoint, prefix: &str) -> Result<Probe, RebuildError> {
    let device = Device::flex();
    let (net, config) = model(checkpoint, prefix, &device)?;
    Ok(probe_model(&net, &config, &device))
}

//! Checkpoints for others: weights alone, adapters folded in.

use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;
use pipe_engine::kind::StageError;
use pipe_fs::{Disk, atomic};
use pipe_models::header::{BASE_DIGEST, BASE_WEIGHTS, BASE_WEIGHTS_DIGEST};
use pipe_runs::Checkpoint;
use pipe_runs::checkpoint::{Header, Written, write};
use pipe_runs::tensor::HostTensor;

use super::rebuild::{RebuildError, adapted_model, inference_prefix, model};
use crate::architecture::Architectures;
use crate::device::read_parameters;
use crate::lora::{Adapter, HEADER_KEY};
use crate::nn::Scope;
use crate::trainer::{EMA_WEIGHTS, WEIGHTS};

/// Why nothing was exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(transparent)]
    Rebuild(#[from] RebuildError),
    #[error(transparent)]
    Write(#[from] atomic::WriteError),
    #[error(transparent)]
    Read(#[from] pipe_runs::CheckpointError),
    #[error("{0}")]
    Device(StageError),
    #[error("{} holds no LoRA weights to merge; name an adapter with --lora", .0.display())]
    NothingToMerge(std::path::PathBuf),
}

impl From<StageError> for ExportError {
    fn from(error: StageError) -> Self {
        Self::Device(error)
    }
}

/// Writes the weights of a checkpoint, and its EMA weights, without the optimizer's state.
pub fn weights_only(
    disk: &Disk,
    checkpoint: &Checkpoint,
    to: &Path,
) -> Result<Written, ExportError> {
    checkpoint.verify()?;
    let names = checkpoint.tensors().map(|t| t.name.clone());
    let weights = names.filter(|name| name.starts_with(WEIGHTS) || name.starts_with(EMA_WEIGHTS));
    let tensors =
        weights.map(|name| checkpoint.read(&name)).collect::<Result<Vec<HostTensor>, _>>()?;
    Ok(write(disk, to, &stripped(checkpoint.header()), &tensors)?)
}

/// Writes the weights that are sampled from, the EMA weights where there are any, as the only ones.
/// Those of LoRA are folded into their base, so that the file stands by itself.
pub fn inference_weights(
    disk: &Disk,
    known: &Architectures,
    checkpoint: &Checkpoint,
    to: &Path,
) -> Result<Written, ExportError> {
    checkpoint.verify()?;
    let prefix = inference_prefix(checkpoint);
    if checkpoint.header().extra.contains_key(HEADER_KEY) {
        let (model, _) = model(known, checkpoint, prefix, &Device::flex())?;
        let tensors: Vec<_> =
            read_parameters(&model.materialize(), &Scope::All, WEIGHTS)?.into_iter().collect();
        let mut header = stripped(checkpoint.header());
        forget_adapter(&mut header);
        return Ok(write(disk, to, &header, &tensors)?);
    }
    let names = checkpoint.tensors().filter(|t| t.name.starts_with(prefix)).map(|t| &t.name);
    let named = |name: &String| {
        let tensor = checkpoint.read(name)?;
        let name = format!("{WEIGHTS}{}", name.strip_prefix(prefix).unwrap_or(name));
        Ok(HostTensor { name, ..tensor })
    };
    let tensors = names.map(named).collect::<Result<Vec<_>, pipe_runs::CheckpointError>>()?;
    Ok(write(disk, to, &stripped(checkpoint.header()), &tensors)?)
}

/// Writes a LoRA checkpoint as whole weights: those of its base with the factors multiplied out and
/// added. With `lora`, the checkpoint is the base and the adapter comes from there.
pub fn merged(
    disk: &Disk,
    known: &Architectures,
    checkpoint: &Checkpoint,
    lora: Option<&Adapter>,
    to: &Path,
) -> Result<Written, ExportError> {
    let device = Device::flex();
    checkpoint.verify()?;
    let mut header = stripped(checkpoint.header());
    let mut tensors = Vec::new();
    if let Some(adapter) = lora {
        let (model, config) =
            adapted_model(known, checkpoint, inference_prefix(checkpoint), adapter, &device)?;
        tensors.extend(read_parameters(&model.materialize(), &Scope::All, WEIGHTS)?);
        header.model_config = serde_json::to_value(&config).unwrap_or_default();
        if !adapter.class_names.is_empty() {
            let names = serde_json::to_string(&adapter.class_names).unwrap_or_default();
            header.extra.insert("class_names".to_owned(), names);
        }
    } else {
        if !header.extra.contains_key(HEADER_KEY) {
            return Err(ExportError::NothingToMerge(checkpoint.path().to_owned()));
        }
        for prefix in [WEIGHTS, EMA_WEIGHTS] {
            if checkpoint.tensors().any(|t| t.name.starts_with(prefix)) {
                let (model, _) = model(known, checkpoint, prefix, &device)?;
                tensors.extend(read_parameters(&model.materialize(), &Scope::All, prefix)?);
            }
        }
        forget_adapter(&mut header);
    }
    Ok(write(disk, to, &header, &tensors)?)
}

/// Takes out what says that the weights are those of LoRA.
fn forget_adapter(header: &mut Header) {
    for key in [HEADER_KEY, BASE_DIGEST, BASE_WEIGHTS, BASE_WEIGHTS_DIGEST] {
        header.extra.remove(key);
    }
}

/// The header of a file that training does not go on from.
pub(super) fn stripped(header: &Header) -> Header {
    Header {
        step_in_epoch: 0,
        scheduler_state_dict: serde_json::json!({}),
        loop_state: serde_json::json!({}),
        ..header.clone()
    }
}

//! A model out of its checkpoint: the config in the header, the weights, and LoRA's factors beside
//! them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use pipe_engine::identity::hex;
use pipe_runs::tensor::HostTensor;
use pipe_runs::{Checkpoint, CheckpointError};
use sha2::{Digest, Sha256};

use crate::architecture::ConfigError;
use crate::architecture::{Architectures, LABEL_TABLE, ModelConfig, Network};
use crate::diffusion::Objective;
use crate::lora::{Adapter, AdapterError, BaseDigests};
use crate::nn::{LoadError, Scope, fill, load_state_dict, walk};
use crate::trainer::{EMA_WEIGHTS, WEIGHTS};
use pipe_models::header::{self, BASE_DIGEST, BASE_WEIGHTS, class_names, label_dropout};
use pipe_models::probe::{Probe, probe as probe_model};

/// Name of the base model in the folder of a LoRA run.
pub const BASE_FILE: &str = "base_model.ckpt";

/// Why a model could not be rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    #[error("failed to rebuild the model: its config is not valid: {0}")]
    Json(serde_json::Error),
    #[error("{}: what its model was trained for is not known here: {error}", file.display())]
    Objective { file: PathBuf, error: serde_json::Error },
    #[error(
        "{}: the adapter was trained for the objective {adapter}, and the base model {} for {base}",
        file.display(), base_file.display()
    )]
    OtherObjective { file: PathBuf, base_file: PathBuf, adapter: &'static str, base: &'static str },
    #[error("failed to rebuild the model: {0}")]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Load(#[from] LoadError<CheckpointError>),
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("{} holds LoRA weights only, and its base model {} is another one than it was trained on", file.display(), base.display())]
    OtherBase { file: PathBuf, base: PathBuf },
    #[error("{}: {} numbers that are not finite: {}", file.display(), if names.len() == 1 { "a tensor holds" } else { "tensors hold" }, names.join(", "))]
    NotFinite { file: PathBuf, names: Vec<String> },
    #[error(
        "{file} holds LoRA weights only, and its base model is not at {}; put it there, or name it: \
         `pipe sample BASE --lora {file}`, `pipe ckpt export BASE --merge --lora {file} -o OUT`",
        base.display(), file = file.display()
    )]
    NoBase { file: PathBuf, base: PathBuf },
    #[error("{} is a checkpoint without LoRA weights", file.display())]
    NoAdapter { file: PathBuf },
}

/// The weights to sample with: the EMA weights where the checkpoint has any.
pub fn inference_prefix(checkpoint: &Checkpoint) -> &'static str {
    if checkpoint.tensors().any(|t| t.name.starts_with(EMA_WEIGHTS)) {
        EMA_WEIGHTS
    } else {
        WEIGHTS
    }
}

/// [`inference_prefix`], or the weights themselves where EMA weights are not wanted.
fn prefix(checkpoint: &Checkpoint, ema: bool) -> &'static str {
    if ema { inference_prefix(checkpoint) } else { WEIGHTS }
}

/// Builds the model that a checkpoint holds, of one of the `known` architectures, LoRA's factors
/// beside its weights. `prefix` chooses the weights: `state_dict.` or `ema_state_dict.`.
pub fn model(
    known: &Architectures,
    checkpoint: &Checkpoint,
    prefix: &str,
    device: &Device,
) -> Result<(Network, ModelConfig), RebuildError> {
    let Some(adapter) = Adapter::from_checkpoint(checkpoint, prefix)? else {
        return full_model(known, checkpoint, prefix, device);
    };
    let base = base_of(checkpoint)?;
    let extra = &checkpoint.header().extra;
    let base_prefix = extra.get(BASE_WEIGHTS).map_or(WEIGHTS, String::as_str);
    adapted_model(known, &base, base_prefix, &adapter, device)
}

/// Where the base model of a LoRA checkpoint stands that was copied out of its run: `a.base.ckpt`
/// beside `a.ckpt`.
pub fn base_beside(checkpoint: &Path) -> PathBuf {
    let name = checkpoint.file_name().unwrap_or_default().to_string_lossy();
    checkpoint.with_file_name(format!("{}.base.ckpt", name.strip_suffix(".ckpt").unwrap_or(&name)))
}

/// The base model of a LoRA checkpoint: [`base_beside`] it, or `base_model.ckpt` in its run's
/// folder; checked to be the right one.
pub fn base_of(checkpoint: &Checkpoint) -> Result<Checkpoint, RebuildError> {
    let run = checkpoint.path().parent().and_then(Path::parent);
    let of_run = run.unwrap_or(Path::new("..")).join(BASE_FILE);
    let base = Some(base_beside(checkpoint.path())).filter(|path| path.exists()).unwrap_or(of_run);
    if !base.exists() {
        return Err(RebuildError::NoBase { file: checkpoint.path().to_owned(), base });
    }
    let base = Checkpoint::open(&base)?;
    if base.digest() == checkpoint.header().extra.get(BASE_DIGEST).map(String::as_str) {
        Ok(base)
    } else {
        Err(RebuildError::OtherBase {
            file: checkpoint.path().to_owned(),
            base: base.path().to_owned(),
        })
    }
}

/// A base model with an adapter on it.
pub fn adapted_model(
    known: &Architectures,
    base: &Checkpoint,
    prefix: &str,
    adapter: &Adapter,
    device: &Device,
) -> Result<(Network, ModelConfig), RebuildError> {
    let (model, config) = match adapter.num_classes() {
        Some(classes) => model_for_classes(known, base, prefix, classes, device)?,
        None => full_model(known, base, prefix, device)?,
    };
    if adapter.num_classes().is_none()
        && config.num_classes() > 0
        && !adapter.class_names.is_empty()
        && adapter.class_names.len() != config.num_classes()
    {
        let (own, base) = (adapter.class_names.len(), config.num_classes());
        let problem = format!(
            "`{LABEL_TABLE}` is missing: the adapter is for {own} classes, the base model has {base}"
        );
        return Err(AdapterError::Mismatch { problems: vec![problem] }.into());
    }
    Ok((adapter.apply(model)?, config))
}

/// A model for other classes than its checkpoint's: every row of the label table is the
/// checkpoint's "no class", so that at first all classes give what the checkpoint gives without
/// one. A model without classes stays so.
pub fn model_for_classes(
    known: &Architectures,
    checkpoint: &Checkpoint,
    prefix: &str,
    classes: usize,
    device: &Device,
) -> Result<(Network, ModelConfig), RebuildError> {
    let own = config(known, checkpoint)?;
    if own.num_classes() == 0 {
        return full_model(known, checkpoint, prefix, device);
    }
    let config = own.with_classes(classes);
    let skeleton = config.skeleton(device)?;
    let names: BTreeSet<String> =
        walk(&skeleton).into_iter().map(|p| p.name).filter(|name| name != LABEL_TABLE).collect();
    let scope = Scope::Only(Arc::new(names));
    let table = format!("{prefix}{LABEL_TABLE}");
    let model = load_finite(skeleton, &scope, checkpoint, prefix, Some(&table))?;
    let rows = checkpoint.read(&table)?;
    let width = rows.shape.get(1).copied().unwrap_or(0).max(1);
    let rows = rows.to_f32().unwrap_or_default();
    let none = rows.rchunks_exact(width).next().unwrap_or_default();
    let values = none.repeat(classes + 1);
    Ok((fill(model, [(LABEL_TABLE.to_owned(), values)].into()), config))
}

fn full_model(
    known: &Architectures,
    checkpoint: &Checkpoint,
    prefix: &str,
    device: &Device,
) -> Result<(Network, ModelConfig), RebuildError> {
    let config = config(known, checkpoint)?;
    let skeleton = config.skeleton(device)?;
    let model = load_finite(skeleton, &Scope::All, checkpoint, prefix, None)?;
    Ok((model, config))
}

/// Fills a network from a checkpoint's weights, all but the tensor `without`.
///
/// # Errors
/// Names and shapes that do not fit, and tensors with numbers that are not finite: nothing can be
/// computed with them.
fn load_finite(
    skeleton: Network,
    scope: &Scope,
    checkpoint: &Checkpoint,
    prefix: &str,
    without: Option<&str>,
) -> Result<Network, RebuildError> {
    let available =
        checkpoint.tensors().map(|t| t.name.as_str()).filter(|name| Some(*name) != without);
    let mut not_finite = Vec::new();
    let model = load_state_dict(skeleton, scope, prefix, available, |name| {
        let found = checkpoint.find(name)?;
        let numbers = found.as_ref().and_then(HostTensor::to_f32).unwrap_or_default();
        if numbers.iter().any(|number| !number.is_finite()) {
            not_finite.push(name.to_owned());
        }
        Ok(found)
    })?;
    if not_finite.is_empty() {
        Ok(model.with_objective(objective(checkpoint)?))
    } else {
        Err(RebuildError::NotFinite { file: checkpoint.path().to_owned(), names: not_finite })
    }
}

/// What a checkpoint's model was trained for.
fn objective(checkpoint: &Checkpoint) -> Result<Objective, RebuildError> {
    let file = || checkpoint.path().to_owned();
    header::objective(checkpoint).map_err(|error| RebuildError::Objective { file: file(), error })
}

/// `sha256:…` over names, shapes and numbers of the weights under a prefix: the same for every file
/// that holds them.
pub fn weights_digest(checkpoint: &Checkpoint, prefix: &str) -> Result<String, CheckpointError> {
    let mut hash = Sha256::new();
    for entry in checkpoint.tensors() {
        let Some(name) = entry.name.strip_prefix(prefix) else { continue };
        let tensor = checkpoint.read(&entry.name)?;
        hash.update(format!("{name} {:?}\n", tensor.shape));
        hash.update(&tensor.bytes);
    }
    Ok(format!("sha256:{}", hex(&hash.finalize())))
}

/// What is wrong with putting an adapter on this base model, in words, if it was trained on another
/// one. A base with the same weights in another file is the same.
pub fn other_base(base: &Checkpoint, adapter: &Adapter) -> Result<Option<String>, CheckpointError> {
    let BaseDigests { file, weights } = &adapter.base;
    let is_file = |file: &String| base.digest() == Some(file);
    if file.as_ref().is_none_or(is_file) {
        return Ok(None);
    }
    if let Some(weights) = weights {
        for prefix in [EMA_WEIGHTS, WEIGHTS] {
            if weights_digest(base, prefix)? == *weights {
                return Ok(None);
            }
        }
    }
    Ok(Some(format!(
        "{} is not the base model that the adapter was trained on, so its images will differ; that one is {BASE_FILE} in \
         the folder of the adapter's run",
        base.path().display()
    )))
}

/// The config in a checkpoint's header, which is one of a network.
pub(super) fn config(
    known: &Architectures,
    checkpoint: &Checkpoint,
) -> Result<ModelConfig, RebuildError> {
    let json = checkpoint.header().model_config.clone();
    let config = known.read(json).map_err(RebuildError::Json)?;
    config.validate()?;
    Ok(config)
}

/// The model's outputs on fixed inputs, on the CPU.
pub fn probe(
    known: &Architectures,
    checkpoint: &Checkpoint,
    prefix: &str,
) -> Result<Probe, RebuildError> {
    let device = Device::flex();
    let (net, config) = model(known, checkpoint, prefix, &device)?;
    Ok(probe_model(&net, [config.channels(), config.image_size()], &device))
}

/// A model to sample images with.
pub struct SamplingModel {
    /// Without autodiff.
    pub net: Network,
    pub config: ModelConfig,
    /// Empty if the checkpoint does not say.
    pub class_names: Vec<String>,
    pub epoch: u64,
    /// What is legal and probably not meant.
    pub warning: Option<String>,
    /// The larger one where LoRA was trained on top. `None` if a checkpoint does not say.
    pub label_dropout: Option<f64>,
    /// What decides its pictures, as they say it: the checkpoint's digest, which weights, and the
    /// adapter's digest if there is one.
    pub source: Vec<(&'static str, String)>,
}

/// An adapter from a LoRA checkpoint, or from a folder in PEFT's format.
pub fn adapter(path: &Path, ema: bool) -> Result<Adapter, RebuildError> {
    if path.is_dir() {
        return Ok(Adapter::read(path)?);
    }
    let checkpoint = Checkpoint::open(path)?;
    let found = Adapter::from_checkpoint(&checkpoint, prefix(&checkpoint, ema))?;
    found.ok_or_else(|| RebuildError::NoAdapter { file: path.to_owned() })
}

/// Loads a checkpoint to sample images with: its EMA weights where it has any and `ema` is wanted.
/// `lora` is an adapter to put on it: a LoRA checkpoint, or a folder in PEFT's format.
pub fn load_for_sampling(
    known: &Architectures,
    file: &Path,
    lora: Option<&Path>,
    ema: bool,
    device: &Device,
) -> Result<SamplingModel, RebuildError> {
    let checkpoint = Checkpoint::open(file)?;
    let epoch = checkpoint.header().epoch;
    let label_dropout = label_dropout(&checkpoint);
    let weights = if prefix(&checkpoint, ema) == EMA_WEIGHTS { "ema" } else { "raw" };
    let mut source =
        vec![("checkpoint", checkpoint.head_digest().to_owned()), ("weights", weights.to_owned())];
    let Some(lora) = lora else {
        let (net, config) = model(known, &checkpoint, prefix(&checkpoint, ema), device)?;
        let class_names = class_names(&checkpoint);
        let warning = None;
        return Ok(SamplingModel {
            net,
            config,
            class_names,
            epoch,
            warning,
            label_dropout,
            source,
        });
    };
    let adapter = adapter(lora, ema)?;
    let digest = if lora.is_dir() {
        Adapter::folder_digest(lora)?
    } else {
        let file = Checkpoint::open(lora)?;
        let (adapter, base) = (objective(&file)?, objective(&checkpoint)?);
        if adapter != base {
            return Err(RebuildError::OtherObjective {
                file: lora.to_owned(),
                base_file: checkpoint.path().to_owned(),
                adapter: adapter.kind.name(),
                base: base.kind.name(),
            });
        }
        file.head_digest().to_owned()
    };
    source.push(("adapter", digest));
    let (net, config) =
        adapted_model(known, &checkpoint, inference_prefix(&checkpoint), &adapter, device)?;
    let warning = other_base(&checkpoint, &adapter)?;
    let class_names =
        if adapter.class_names.is_empty() { class_names(&checkpoint) } else { adapter.class_names };
    Ok(SamplingModel { net, config, class_names, epoch, warning, label_dropout, source })
}

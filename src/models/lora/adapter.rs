//! An adapter outside of training: from a checkpoint, to and from PEFT's two files, onto a network.
//!
//! Format: `adapter_model.safetensors` with `base_model.model.PATH.lora_A.weight` and
//! `…lora_B.weight`, and `adapter_config.json`, as PEFT's `save_pretrained` writes them
//! (<https://huggingface.co/docs/peft/developer_guides/checkpoint>).

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use pipe_fs::{Disk, atomic};
use pipe_runs::tensor::{Dtype, HostTensor};
use pipe_runs::{Checkpoint, CheckpointError};
use safetensors::tensor::{SafeTensors, TensorView};
use serde_json::{Value, json};

use super::inject::LoraPlan;
use super::peft::PeftConfig;
use super::settings::LoraConfig;
use super::targets::{Layer, layers};
use crate::architecture::{LABEL_TABLE, Network};
use crate::header::{BASE_DIGEST, BASE_WEIGHTS_DIGEST, class_names};
use crate::nn::{LORA_A, LORA_B, fill, first_of, param_paths};

/// Key of a LoRA checkpoint's header: settings and plan of the adapter.
pub const HEADER_KEY: &str = "lora";
const WEIGHTS_FILE: &str = "adapter_model.safetensors";
const CONFIG_FILE: &str = "adapter_config.json";
/// Key of the weights file's metadata: content digest of the checkpoint.
const SOURCE: &str = "checkpoint_digest";
const PEFT_PREFIX: &str = "base_model.model.";

/// Factors with all that is needed to put them on a base model.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    pub config: LoraConfig,
    pub plan: LoraPlan,
    /// By the names that [`param_paths`] gives a network with factors; 32-bit floats.
    pub tensors: BTreeMap<String, HostTensor>,
    /// Empty if not known.
    pub class_names: Vec<String>,
    /// Content digest of the checkpoint that the factors come from, if that is known.
    pub source: Option<String>,
    /// The base model that the factors were trained on, as far as that is known.
    pub base: BaseDigests,
    /// The config that it was read with, if that was PEFT's: it names what the file must hold.
    peft: Option<PeftConfig>,
}

/// What is known of the base model that an adapter was trained on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BaseDigests {
    /// Content digest of its file.
    pub file: Option<String>,
    /// Digest of its weights alone, which another file may hold as well.
    pub weights: Option<String>,
}

impl BaseDigests {
    /// From a header, or from the metadata of an adapter's file.
    pub fn of(entries: &BTreeMap<String, String>) -> Self {
        let entry = |key: &str| entries.get(key).filter(|digest| !digest.is_empty()).cloned();
        Self { file: entry(BASE_DIGEST), weights: entry(BASE_WEIGHTS_DIGEST) }
    }
}

/// Why an adapter could not be read, written or used.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    #[error("failed to read {}: {message}", path.display())]
    Read { path: PathBuf, message: String },
    #[error(transparent)]
    Write(#[from] atomic::WriteError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("the adapter does not fit the model: {}", first_of(problems))]
    Mismatch { problems: Vec<String> },
}

impl Adapter {
    /// What tells a folder in PEFT's format from another: the digests of its two files.
    pub fn folder_digest(folder: &Path) -> Result<String, AdapterError> {
        let digest = |name: &str| {
            let path = folder.join(name);
            pipe_fs::sha256_of(&path)
                .map_err(|e| AdapterError::Read { path, message: e.to_string() })
        };
        Ok(format!("{} {}", digest(WEIGHTS_FILE)?, digest(CONFIG_FILE)?))
    }

    /// The adapter in a LoRA checkpoint; `None` for another checkpoint. `prefix` chooses the
    /// weights.
    pub fn from_checkpoint(
        checkpoint: &Checkpoint,
        prefix: &str,
    ) -> Result<Option<Self>, AdapterError> {
        let header = checkpoint.header();
        let Some(text) = header.extra.get(HEADER_KEY) else { return Ok(None) };
        let wrong = |e: serde_json::Error| AdapterError::Read {
            path: checkpoint.path().to_owned(),
            message: format!("its `{HEADER_KEY}` is not valid: {e}"),
        };
        let Described { config, plan } = serde_json::from_str(text).map_err(wrong)?;
        let mut tensors = BTreeMap::new();
        for name in checkpoint.tensors().filter_map(|t| t.name.strip_prefix(prefix)) {
            let tensor = checkpoint.read(&format!("{prefix}{name}"))?;
            tensors.insert(name.to_owned(), HostTensor { name: name.to_owned(), ..tensor });
        }
        let class_names = class_names(checkpoint);
        let source = checkpoint.digest().map(str::to_owned);
        let base = BaseDigests::of(&header.extra);
        Ok(Some(Self { config, plan, tensors, class_names, source, base, peft: None }))
    }

    /// What [`from_checkpoint`](Self::from_checkpoint) wants to find in the header.
    pub fn describe(config: &LoraConfig, plan: &LoraPlan) -> String {
        json!(Described { config: config.clone(), plan: plan.clone() }).to_string()
    }

    /// Number of classes, where the adapter brings a label table of its own.
    pub fn num_classes(&self) -> Option<usize> {
        self.tensors.get(LABEL_TABLE).and_then(|t| t.shape.first()?.checked_sub(1))
    }

    /// Puts the factors beside the projections of `base`, whose label table has room for the
    /// adapter's classes.
    ///
    /// # Errors
    /// Every name or shape that does not fit, at once.
    pub fn apply(&self, base: Network) -> Result<Network, AdapterError> {
        let mut problems = self.missing_in(&base);
        let model = self.plan.inject(base, 0).model;
        let places: HashMap<String, Vec<usize>> =
            param_paths(&model).into_iter().map(|(_, name, shape)| (name, shape)).collect();
        let mut values = HashMap::new();
        for (name, tensor) in &self.tensors {
            match (places.get(name), tensor.to_f32()) {
                (None, _) => problems.push(format!("`{name}` is not part of the model")),
                (Some(shape), _) if *shape != tensor.shape => problems.push(format!(
                    "`{name}` has the shape {:?}, the model needs {shape:?}",
                    tensor.shape
                )),
                (_, None) => {
                    problems.push(format!("`{name}` holds {:?}, the model needs F32", tensor.dtype))
                }
                (_, Some(numbers)) if numbers.iter().any(|x| !x.is_finite()) => {
                    problems.push(format!("`{name}` holds numbers that are not finite"));
                }
                (_, Some(numbers)) => {
                    values.insert(name.clone(), numbers);
                }
            }
        }
        let factors = places.keys().filter(|name| name.ends_with(LORA_A) || name.ends_with(LORA_B));
        problems.extend(
            factors
                .filter(|name| !self.tensors.contains_key(*name))
                .map(|n| format!("`{n}` is missing")),
        );
        problems.sort();
        problems.dedup();
        if problems.is_empty() {
            Ok(fill(model, values))
        } else {
            Err(AdapterError::Mismatch { problems })
        }
    }

    /// What the adapter should bring for this network and does not.
    fn missing_in(&self, base: &Network) -> Vec<String> {
        let missing = |name: String| format!("`{name}` is missing");
        let Some(peft) = &self.peft else { return Vec::new() };
        let all = layers(base);
        let is_meant = |p: &&Layer| {
            peft.targets(&p.path) == Some(true) && (!p.is_convolution || peft.has_names())
        };
        let meant = all.iter().filter(is_meant);
        let without = meant.filter(|p| !self.plan.ranks.contains_key(&p.path));
        let factors =
            without.flat_map(|p| [LORA_A, LORA_B].map(|end| missing(format!("{}{end}", p.path))));
        let modules = peft.modules_to_save.iter().flatten();
        let saved =
            modules.filter(|m| !self.tensors.keys().any(|name| name.starts_with(&format!("{m}."))));
        let saved = saved.map(|module| missing(format!("{module}.weight")));
        factors.chain(saved).collect()
    }

    /// Writes PEFT's two files into a folder, each whole or not at all.
    pub fn write(&self, disk: &Disk, folder: &Path) -> Result<(), AdapterError> {
        atomic::create_folder(disk, folder)?;
        let views = self.tensors.iter().map(|(name, tensor)| {
            let view =
                TensorView::new(safetensors::Dtype::F32, tensor.shape.clone(), &tensor.bytes);
            view.map(|view| (format!("{PEFT_PREFIX}{name}"), view))
        });
        let wrong = |path: &Path| {
            let path = path.to_owned();
            move |e: safetensors::SafeTensorError| AdapterError::Read {
                path,
                message: e.to_string(),
            }
        };
        let path = folder.join(WEIGHTS_FILE);
        let views: Vec<_> = views.collect::<Result<_, _>>().map_err(wrong(&path))?;
        let metadata = HashMap::from([
            ("format".to_owned(), "pt".to_owned()),
            ("class_names".to_owned(), json!(self.class_names).to_string()),
            (SOURCE.to_owned(), self.source.clone().unwrap_or_default()),
            (BASE_DIGEST.to_owned(), self.base.file.clone().unwrap_or_default()),
            (BASE_WEIGHTS_DIGEST.to_owned(), self.base.weights.clone().unwrap_or_default()),
        ]);
        let bytes = safetensors::serialize(views, Some(metadata)).map_err(wrong(&path))?;
        let (text, config) = (format!("{:#}\n", self.peft_config()), folder.join(CONFIG_FILE));
        // The weights come last: they say which checkpoint both were made from, and so that both
        // are there.
        for path in [&config, &path] {
            atomic::remove_temporary_files_for(disk, path);
        }
        atomic::write(disk, &config, |out| out.write_all(text.as_bytes()))?;
        Ok(atomic::write(disk, &path, |out| out.write_all(&bytes))?)
    }

    /// Whether the config in a folder says what [`write`](Self::write) would write.
    pub fn has_config_in(&self, folder: &Path) -> bool {
        let text = std::fs::read_to_string(folder.join(CONFIG_FILE)).unwrap_or_default();
        // Numbers as a file has them.
        let read = |text: &str| serde_json::from_str::<Value>(text).ok();
        read(&text) == read(&self.peft_config().to_string())
    }

    fn peft_config(&self) -> Value {
        let LoraConfig { r, lora_alpha, lora_dropout, use_rslora, .. } = &self.config;
        let others: BTreeMap<&String, &usize> =
            self.plan.ranks.iter().filter(|(_, rank)| *rank != r).collect();
        let modules_to_save = self.tensors.contains_key(LABEL_TABLE).then(|| json!(["time.label"]));
        json!({
            "peft_type": "LORA",
            "task_type": null,
            "base_model_name_or_path": null,
            "r": r,
            "lora_alpha": lora_alpha,
            "lora_dropout": lora_dropout,
            "target_modules": self.plan.ranks.keys().collect::<Vec<_>>(),
            "rank_pattern": others,
            "alpha_pattern": {},
            "use_rslora": use_rslora,
            "use_dora": false,
            "bias": "none",
            "fan_in_fan_out": false,
            "init_lora_weights": true,
            "inference_mode": true,
            "modules_to_save": modules_to_save,
        })
    }

    /// Reads PEFT's two files, written by this program or another.
    ///
    /// # Errors
    /// Files that are missing or no adapter, and adapters that do something else besides (biases,
    /// DoRA, scales of their own, a base that was changed at the start): they would give other
    /// results than they should.
    pub fn read(folder: &Path) -> Result<Self, AdapterError> {
        let path = folder.join(CONFIG_FILE);
        let wrong =
            |path: &Path, message: String| AdapterError::Read { path: path.to_owned(), message };
        let text = std::fs::read_to_string(&path).map_err(|e| wrong(&path, e.to_string()))?;
        let peft = PeftConfig::parse(&text).map_err(|message| wrong(&path, message))?;

        let path = folder.join(WEIGHTS_FILE);
        let bytes = std::fs::read(&path).map_err(|e| wrong(&path, e.to_string()))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| wrong(&path, e.to_string()))?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.tensors() {
            let name = name.strip_prefix(PEFT_PREFIX).unwrap_or(&name).to_owned();
            if view.dtype() != safetensors::Dtype::F32 {
                return Err(wrong(
                    &path,
                    format!("`{name}` holds {:?}, only F32 is read", view.dtype()),
                ));
            }
            let (shape, bytes) = (view.shape().to_vec(), view.data().to_vec());
            tensors.insert(name.clone(), HostTensor { name, dtype: Dtype::F32, shape, bytes });
        }
        let metadata =
            SafeTensors::read_metadata(&bytes).ok().and_then(|(_, m)| m.metadata().clone());
        let metadata: BTreeMap<String, String> = metadata.unwrap_or_default().into_iter().collect();
        let class_names =
            metadata.get("class_names").and_then(|names| serde_json::from_str(names).ok());
        let source = metadata.get(SOURCE).filter(|digest| !digest.is_empty()).cloned();
        let base = BaseDigests::of(&metadata);
        let config = peft.settings();
        let rank = |(name, tensor): (&String, &HostTensor)| {
            Some((name.strip_suffix(LORA_A)?.to_owned(), *tensor.shape.first()?))
        };
        let ranks: BTreeMap<String, usize> = tensors.iter().filter_map(rank).collect();
        let scales = ranks.iter().map(|(path, r)| (path.clone(), config.scale(*r))).collect();
        let plan = LoraPlan { ranks, scales };
        let class_names = class_names.unwrap_or_default();
        Ok(Self { config, plan, tensors, class_names, source, base, peft: Some(peft) })
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Described {
    config: LoraConfig,
    plan: LoraPlan,
}

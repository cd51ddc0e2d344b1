//! Checkpoints from PyTorch and Lightning, and from safetensors files: those whose tensors are
//! called as this program's are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use pipe_fs::{Disk, atomic};
use pipe_runs::checkpoint::{Header, Written, write};
use pipe_runs::tensor::HostTensor;

use super::foreign::{self, ForeignTensor};
use crate::architecture::ConfigError;
use crate::architecture::{ArchitectureInfo, Architectures, ModelConfig, Shapes};
use crate::nn::walk;
use crate::trainer::{EMA_WEIGHTS, WEIGHTS};

/// The longest safetensors file that is imported.
pub(super) const LONGEST: u64 = 64 << 30;

/// Why a file was not imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("failed to read {}: {message}", path.display())]
    Read { path: PathBuf, message: String },
    #[error("{} holds no model of a known architecture: no tensor is called {marks}; it has {}", path.display(), listed(found))]
    Foreign { path: PathBuf, marks: String, found: Vec<String> },
    #[error(
        "{} holds another architecture: missing {}; unexpected {}; of another shape {}",
        path.display(), listed(missing), listed(unexpected), listed(shapes)
    )]
    Mismatch { path: PathBuf, missing: Vec<String>, unexpected: Vec<String>, shapes: Vec<String> },
    #[error("failed to import {} by the mapping:\n  {}", path.display(), problems.join("\n  "))]
    Mapping { path: PathBuf, problems: Vec<String> },
    #[error("--classes: the names do not fit {}: {message}", path.display())]
    Classes { path: PathBuf, message: String },
    #[error("{} holds a model that cannot be: {error}", path.display())]
    Config { path: PathBuf, error: ConfigError },
    #[error(transparent)]
    Write(#[from] atomic::WriteError),
}

/// What the file does not say itself.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Side of the images that the model was trained on: no tensor's shape tells it.
    pub image_size: usize,
    /// Names of the classes, in the order of their labels.
    pub class_names: Vec<String>,
}

/// Converts a file of PyTorch, or a safetensors file, to a checkpoint of this program. The architecture is read from the
/// shapes of the tensors; EMA weights are taken over where the file has any under a name with
/// `ema` in it.
pub fn import(
    disk: &Disk,
    known: &Architectures,
    from: &Path,
    to: &Path,
    options: &ImportOptions,
) -> Result<Written, ImportError> {
    let read = |message: String| ImportError::Read { path: from.to_owned(), message };
    let all = foreign::tensors(from, LONGEST).map_err(read)?;
    // What stands before the name of the architecture's mark stands before all names.
    let prefixes = |arch: &dyn ArchitectureInfo| -> Vec<&str> {
        all.keys().filter_map(|name| name.strip_suffix(arch.mark())).collect()
    };
    let mut found = known.iter().map(|arch| (arch, prefixes(arch)));
    let found = found.find(|(_, prefixes)| !prefixes.is_empty());
    let Some((arch, mut prefixes)) = found else {
        let (found, marks) = (all.keys().cloned().collect(), marks(known));
        return Err(ImportError::Foreign { path: from.to_owned(), marks, found });
    };
    prefixes.sort_by_key(|prefix| (prefix.contains("ema"), prefix.len()));
    let main = prefixes[0];
    let part = |prefix: &str| -> BTreeMap<&str, &ForeignTensor> {
        all.iter().filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?, tensor))).collect()
    };
    let main_part = part(main);
    let shapes =
        Shapes(main_part.iter().map(|(name, tensor)| (*name, tensor.shape.as_slice())).collect());
    let config = arch.infer(&shapes, options.image_size);
    config.validate().map_err(|error| ImportError::Config { path: from.to_owned(), error })?;
    check_classes(from, &options.class_names, config.num_classes())?;
    let mut tensors = Vec::new();
    let ema = prefixes.iter().find(|prefix| prefix.contains("ema") && **prefix != main);
    for (prefix, name) in [(Some(&main), WEIGHTS), (ema, EMA_WEIGHTS)] {
        let Some(prefix) = prefix else { continue };
        // Where nothing stands before the names, other parts of the file stand beside them.
        let others = |name: &str| {
            prefix.is_empty() && prefixes.iter().any(|p| !p.is_empty() && name.starts_with(p))
        };
        let mut part = part(prefix);
        part.retain(|name, _| !others(name));
        tensors.extend(converted(from, &part, &config, name)?);
    }
    Ok(write(disk, to, &header(&config, options, 0, 0), &tensors)?)
}

/// The header of an imported checkpoint, at the end of an epoch.
pub(super) fn header(
    config: &ModelConfig,
    options: &ImportOptions,
    epoch: u64,
    global_step: u64,
) -> Header {
    Header {
        epoch,
        global_step,
        step_in_epoch: 0,
        metrics: BTreeMap::new(),
        scheduler_state_dict: serde_json::json!({}),
        loop_state: serde_json::json!({}),
        saved_at: chrono::Utc::now(),
        identity: "imported".to_owned(),
        seed: 0,
        model_config: serde_json::to_value(config).unwrap_or_default(),
        extra: if options.class_names.is_empty() {
            BTreeMap::new()
        } else {
            let names = serde_json::to_string(&options.class_names).unwrap_or_default();
            BTreeMap::from([("class_names".to_owned(), names)])
        },
    }
}

/// Refuses names that are not one for each label.
pub(super) fn check_classes(
    path: &Path,
    names: &[String],
    labels: usize,
) -> Result<(), ImportError> {
    let wrong = |message: String| Err(ImportError::Classes { path: path.to_owned(), message });
    let mut seen = BTreeSet::new();
    if let Some(twice) = names.iter().find(|name| !seen.insert(name.as_str())) {
        return wrong(format!("`{twice}` is named twice"));
    }
    if names.iter().any(|name| name.trim().is_empty()) {
        return wrong("one of the names is empty".to_owned());
    }
    match (names.len(), labels) {
        (0, _) => Ok(()),
        (given, labels) if given == labels => Ok(()),
        (given, 0) => wrong(format!("{given} are named, and the model has no classes")),
        (given, labels) => {
            wrong(format!("{given} are named, and the model has {labels}, one for each label"))
        }
    }
}

/// What does not fit an architecture, of the tensors that there are.
pub(super) struct Misfit {
    missing: Vec<String>,
    unexpected: Vec<String>,
    shapes: Vec<String>,
}

impl Misfit {
    /// `found`: the shapes of the tensors by name.
    pub fn of(found: &BTreeMap<&str, &[usize]>, config: &ModelConfig) -> Result<Self, ConfigError> {
        let skeleton = config.skeleton(&Device::flex())?;
        let wanted: BTreeMap<String, Vec<usize>> =
            walk(&skeleton).into_iter().map(|p| (p.name, p.shape)).collect();
        let names: BTreeSet<&str> = wanted.keys().map(String::as_str).collect();
        let there: BTreeSet<&str> = found.keys().copied().collect();
        let list = |names: BTreeSet<&str>| -> Vec<String> {
            names.into_iter().map(str::to_owned).collect()
        };
        let other = |(name, shape): (&String, &Vec<usize>)| {
            let found = *found.get(name.as_str())?;
            (found != shape).then(|| format!("{name} {found:?} instead of {shape:?}"))
        };
        Ok(Self {
            missing: list(&names - &there),
            unexpected: list(&there - &names),
            shapes: wanted.iter().filter_map(other).collect(),
        })
    }

    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.shapes.is_empty()
    }

    /// Each with what is wrong with it.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let parts = [
            ("missing", &self.missing),
            ("unexpected", &self.unexpected),
            ("of another shape", &self.shapes),
        ];
        parts
            .into_iter()
            .flat_map(|(what, names)| names.iter().map(move |name| format!("{what}: {name}")))
    }
}

/// The tensors of one part under the names of a checkpoint; or all that does not fit.
fn converted(
    path: &Path,
    found: &BTreeMap<&str, &ForeignTensor>,
    config: &ModelConfig,
    prefix: &str,
) -> Result<Vec<HostTensor>, ImportError> {
    let shapes = found.iter().map(|(name, tensor)| (*name, tensor.shape.as_slice())).collect();
    let misfit = Misfit::of(&shapes, config)
        .map_err(|error| ImportError::Config { path: path.to_owned(), error })?;
    if !misfit.is_empty() {
        let Misfit { missing, unexpected, shapes } = misfit;
        return Err(ImportError::Mismatch { path: path.to_owned(), missing, unexpected, shapes });
    }
    let read = |message: String| ImportError::Read { path: path.to_owned(), message };
    let host = |(name, tensor): (&&str, &&ForeignTensor)| tensor.host(&format!("{prefix}{name}"));
    found.iter().map(|found| host(found).map_err(read)).collect()
}

/// The tensors that tell an architecture.
pub(super) fn marks(known: &Architectures) -> String {
    let marks: Vec<String> = known.iter().map(|arch| format!("`…{}`", arch.mark())).collect();
    marks.join(" or ")
}

/// A list that a person can read: the first few, and how many more.
pub(super) fn listed(names: &[String]) -> String {
    const SHOWN: usize = 12;
    match names.len() {
        0 => "nothing".to_owned(),
        n if n <= SHOWN => names.join(", "),
        n => format!("{} and {} more", names[..SHOWN].join(", "), n - SHOWN),
    }
}

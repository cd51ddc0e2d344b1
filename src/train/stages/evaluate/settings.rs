//! The settings of an `evaluate` stage.

use std::path::PathBuf;

use pipe_engine::kind::Rejection;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::copy_best::inside_project;
use crate::data::Split;
use crate::device::DeviceSpec;
use crate::diffusion::Sampler;
use crate::evaluate::weights::PUBLISHED;
use crate::evaluate::{NEAREST, Resize};
use crate::sampling::{GuidanceInterval, SamplerSettings, Seeds, default_guidance, default_steps};

/// Judges a trained model: its loss on images that it was not trained on, and its pictures beside
/// real ones.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvaluateSettings {
    /// The stage whose model is judged: any that makes checkpoints.
    pub from: String,
    /// Judge each checkpoint of `from` while it is trained, not the best one in the end: each has a
    /// folder of its own below `to`. What is found out can be the training's `monitor`, such as
    /// `quality.fid` for a stage `quality`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub each_checkpoint: bool,
    /// The `dataset` stage of the real images.
    #[schemars(example = &"data")]
    pub dataset: String,
    /// The folder for what is found, relative to the project: `metrics.json`, sheets of images, and
    /// the pictures that were sampled, in `pictures`.
    #[schemars(example = &"quality")]
    pub to: PathBuf,
    /// What to find out. `val_loss`: the loss of the validation images, in all, by noise level and by
    /// class. `fid`, `kid`: how far pictures are from real images as a whole. `precision`, `recall`:
    /// how many pictures look real, and how many real images are covered. `nearest`: how near each
    /// picture is to a training image, with a sheet of them.
    #[schemars(extend("minItems" = 1, "uniqueItems" = true))]
    #[schemars(example = ["fid", "nearest"])]
    pub metrics: Vec<Metric>,
    /// The images that pictures are compared with: `train` or `validation`; the training images if
    /// unset, and those of a set of test images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<RealImages>,
    /// The pictures to sample, one for each of these seeds: `0-9999` or `1,5,7-9`. Seeds go round the
    /// classes.
    #[serde(default = "default_seeds")]
    pub seeds: Seeds,
    /// The classes to sample, by name; all of them if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<String>>,
    /// Noise levels of the sampler.
    #[serde(default = "default_steps")]
    #[schemars(range(min = 1, max = 1000))]
    #[schemars(extend("x-known-as" = ["num_inference_steps", "sampling_steps", "num_steps"]))]
    pub steps: usize,
    /// Weight of the class (classifier-free guidance): 1 takes it as it is, more exaggerates it.
    #[serde(default = "default_guidance")]
    #[schemars(extend("x-known-as" = ["guidance_scale", "cfg", "cfg_scale"]))]
    pub guidance: f64,
    /// Noise levels with guidance: above the first one, up to the second one; all if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-known-as" = ["guidance_limit"], "examples" = [[0.28, 2.9]]))]
    pub guidance_interval: Option<GuidanceInterval>,
    /// How images come out of noise.
    #[serde(default, skip_serializing_if = "SamplerSettings::is_default")]
    pub sampler: SamplerSettings,
    /// The weights of Inception-v3, which `fid`, `kid`, `precision` and `recall` look with: a state
    /// dictionary of PyTorch's or a safetensors file, relative to the project. The published ones
    /// are downloaded where they are not there.
    #[serde(default = "published_weights", skip_serializing_if = "is_published")]
    #[schemars(extend("x-class" = "runtime"))]
    pub features: PathBuf,
    /// How images get the size that Inception-v3 wants: as `clean`-fid does, or, as `legacy`, as
    /// pytorch-fid does. Figures are compared with those of the same way alone.
    #[serde(default, skip_serializing_if = "is_clean")]
    pub resize: Resize,
    /// For `fid`: an `.npz` file with `mu` and `sigma` of real images, in the place of the data set's,
    /// as pytorch-fid and EDM write them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-class" = "runtime"))]
    #[schemars(example = &"fid-refs/cifar10-32x32.npz")]
    pub statistics: Option<PathBuf>,
    /// Judge the EMA weights where there are any.
    #[serde(default = "yes")]
    pub ema: bool,
    /// Images that are computed at once.
    #[serde(default = "default_batch_size")]
    #[schemars(range(min = 1), extend("x-class" = "runtime"))]
    pub batch_size: usize,
    /// Where to compute: `auto`, `cpu`, `gpu`, `gpu:N`.
    #[serde(default)]
    #[schemars(extend("x-class" = "runtime"))]
    pub device: DeviceSpec,
}

/// What can be found out about a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// The loss of the validation images.
    ValLoss,
    /// The Fréchet inception distance.
    Fid,
    /// The kernel inception distance.
    Kid,
    /// The share of pictures that look real.
    Precision,
    /// The share of real images that pictures cover.
    Recall,
    /// How near pictures are to training images.
    Nearest,
}

impl Metric {
    /// As it is written in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::ValLoss => "val_loss",
            Self::Fid => "fid",
            Self::Kid => "kid",
            Self::Precision => "precision",
            Self::Recall => "recall",
            Self::Nearest => NEAREST,
        }
    }

    /// Whether pictures must be sampled for it.
    pub fn is_of_pictures(self) -> bool {
        self != Self::ValLoss
    }

    /// Whether Inception-v3 looks at them.
    pub fn is_of_features(self) -> bool {
        self.is_of_pictures() && self != Self::Nearest
    }
}

/// The real images that pictures are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RealImages {
    Train,
    Validation,
}

impl From<RealImages> for Split {
    fn from(images: RealImages) -> Self {
        match images {
            RealImages::Train => Self::Train,
            RealImages::Validation => Self::Validation,
        }
    }
}

fn published_weights() -> PathBuf {
    PathBuf::from(PUBLISHED)
}

fn is_published(path: &PathBuf) -> bool {
    *path == published_weights()
}

fn is_clean(resize: &Resize) -> bool {
    *resize == Resize::Clean
}

fn default_seeds() -> Seeds {
    Seeds::first(2048)
}

fn default_batch_size() -> usize {
    32
}

fn yes() -> bool {
    true
}

impl EvaluateSettings {
    /// Refuses values out of their ranges. The sampler that they describe.
    pub fn check(&self) -> Result<Sampler, Rejection> {
        inside_project(&self.to).map_err(|message| Rejection::value("to", message))?;
        Rejection::unless("metrics", !self.metrics.is_empty(), "at least one")?;
        let twice = |(at, metric): (usize, &Metric)| self.metrics[..at].contains(metric);
        let is_once = !self.metrics.iter().enumerate().any(twice);
        Rejection::unless("metrics", is_once, "each metric once")?;
        let uses = self.statistics.is_none() || self.has(Metric::Fid);
        Rejection::unless("statistics", uses, "`fid` among the metrics: nothing else uses it")?;
        Rejection::unless("batch_size", self.batch_size >= 1, "at least 1")?;
        self.sampler.sampler(self.steps, self.guidance, self.guidance_interval)
    }

    /// Whether a setting of pictures has another value than its default, which the file of a run has.
    pub fn is_set(&self, key: &str) -> bool {
        let unset = Self {
            split: None,
            seeds: default_seeds(),
            classes: None,
            steps: default_steps(),
            guidance: default_guidance(),
            guidance_interval: None,
            sampler: SamplerSettings::default(),
            features: published_weights(),
            resize: Resize::Clean,
            ..self.clone()
        };
        let value = |settings: &Self| serde_json::to_value(settings).unwrap_or_default();
        value(self).get(key) != value(&unset).get(key)
    }

    pub fn has(&self, metric: Metric) -> bool {
        self.metrics.contains(&metric)
    }

    /// Whether Inception-v3 looks at pictures.
    pub fn uses_features(&self) -> bool {
        self.metrics.iter().any(|metric| metric.is_of_features())
    }

    /// Whether pictures must be sampled.
    pub fn samples(&self) -> bool {
        self.metrics.iter().any(|metric| metric.is_of_pictures())
    }
}

//! The settings of a `sample` stage.

use std::path::PathBuf;

use pipe_data::ClassName;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::sample_guide::GuideSettings;
use crate::device::DeviceSpec;
use crate::sampling::{
    GuidanceCheck, GuidanceInterval, SamplerSettings, Seeds, default_guidance, default_steps,
};

/// Samples images from a trained model into an image grid, a row for each class.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SampleSettings {
    /// The stage whose model is used: any that makes checkpoints.
    pub(super) from: String,
    /// The file to write, relative to the project: a .png, .jpg or .webp. With `seeds`: a folder, a
    /// .zip or an .npz file.
    pub(super) to: PathBuf,
    /// Sample from each checkpoint of `from` while it is trained: `grid.png` becomes
    /// `grid_epoch_001.png` and so on, and a folder has a folder for each. The file `to` itself is that
    /// of the best checkpoint.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) each_checkpoint: bool,
    /// A picture of its own for each of these seeds, `0-49999` or `1,5,7-9`, in place of a grid of
    /// `n`. Seeds go round the classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) seeds: Option<Seeds>,
    /// Images in all, shared out among the classes: at least one for each, or the last ones get
    /// none.
    #[serde(default = "default_n")]
    #[schemars(range(min = 1, max = 10_000))]
    #[schemars(extend("x-known-as" = ["num_samples"]))]
    pub(super) n: usize,
    /// The classes to sample, by name; all of them if unset.
    #[serde(default, deserialize_with = "class_names")]
    #[schemars(with = "Option<Vec<ClassName>>")]
    pub(super) classes: Option<Vec<String>>,
    /// Noise levels of the sampler; with `heun` the network is evaluated `2 steps - 1` times.
    #[serde(default = "default_steps")]
    #[schemars(range(min = 1, max = 1000))]
    #[schemars(extend("x-known-as" = ["num_inference_steps", "sampling_steps", "num_steps"]))]
    pub(super) steps: usize,
    /// Weight of the class (classifier-free guidance), or of the model against its `guide`: 1 takes
    /// it as it is, more exaggerates it.
    #[serde(default = "default_guidance")]
    #[schemars(extend("x-known-as" = ["guidance_scale", "cfg", "cfg_scale"]))]
    pub(super) guidance: f64,
    /// Noise levels with guidance: above the first one, up to the second one; all if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-known-as" = ["guidance_limit"], "examples" = [[0.28, 2.9]]))]
    pub(super) guidance_interval: Option<GuidanceInterval>,
    /// A worse model of the same images, an earlier or a smaller one, which guides in the place of
    /// the estimate without a class (autoguidance). It counts by its content.
    // The content of the checkpoint and its epoch count (`derived`), not its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-class" = "runtime", "x-known-as" = ["autoguidance", "gnet"]))]
    pub(super) guide: Option<GuideSettings>,
    /// How images come out of noise.
    #[serde(default, skip_serializing_if = "SamplerSettings::is_default")]
    pub(super) sampler: SamplerSettings,
    /// In place of a grid a strip of so many columns for each image: what it was estimated to be
    /// while it was denoised, and what it became.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 1000))]
    pub(super) strip: Option<usize>,
    /// Seed of the noise that the images begin as.
    #[serde(default)]
    pub(super) seed: u64,
    /// Sample with the EMA weights where there are any.
    #[serde(default = "yes")]
    pub(super) ema: bool,
    /// Images that are sampled at once.
    #[serde(default = "default_batch_size")]
    #[schemars(range(min = 1), extend("x-class" = "runtime"))]
    pub(super) batch_size: usize,
    /// Where to compute: `auto`, `cpu`, `gpu`, `gpu:N`.
    #[serde(default)]
    #[schemars(extend("x-class" = "runtime"))]
    pub(super) device: DeviceSpec,
}

/// Names of classes, of which some are numbers: those of digits need no quotes.
fn class_names<'de, D: Deserializer<'de>>(named: D) -> Result<Option<Vec<String>>, D::Error> {
    let named = Option::<Vec<ClassName>>::deserialize(named)?;
    Ok(named.map(|named| named.iter().map(ClassName::to_string).collect()))
}

pub(super) fn default_n() -> usize {
    32
}

fn default_batch_size() -> usize {
    16
}

fn yes() -> bool {
    true
}

impl SampleSettings {
    pub(super) fn guidance_check(
        &self,
        classes: Option<usize>,
        label_dropout: Option<f64>,
    ) -> GuidanceCheck {
        GuidanceCheck {
            guidance: self.guidance,
            has_interval: self.guidance_interval.is_some(),
            has_guide: self.guide.is_some(),
            classes,
            label_dropout,
        }
    }
}

//! Samples images from a network. An image depends on its seed, its number and its class alone: not
//! on how many are sampled with it.

use burn::tensor::{Device, Tensor, TensorData};
use image::{Rgb, RgbImage};
use pipe_engine::kind::StageError;
use rand::RngExt;
use rand_distr::StandardNormal;

use crate::architecture::{Denoiser, ModelConfig};
use crate::device;
use crate::diffusion::Sampler;
use crate::rng::{Purpose, stream};

/// One image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// Ignored by a network without classes.
    pub label: usize,
    pub seed: u64,
    /// Images of one seed are told apart by their numbers.
    pub number: u64,
}

/// What to sample.
#[derive(Debug, Clone)]
pub struct SampleSpec {
    pub draws: Vec<Draw>,
    pub sampler: Sampler,
    /// Images that are sampled at once.
    pub batch_size: usize,
}

impl SampleSpec {
    /// Evaluations of all batches together, for a progress bar.
    pub fn total_steps(&self) -> u64 {
        (self.draws.len().div_ceil(self.batch_size.max(1)) * self.sampler.steps) as u64
    }
}

/// Samples with `net`, which stands on `device` without autodiff. `after` is told how many steps of
/// [`SampleSpec::total_steps`] are done, and stops by answering `false`; the result is `None` then.
///
/// # Errors
/// When the device fails: see [`device::read`].
pub fn generate(
    net: &impl Denoiser,
    config: &ModelConfig,
    spec: &SampleSpec,
    device: &Device,
    mut after: impl FnMut(u64) -> bool,
) -> Result<Option<Vec<RgbImage>>, StageError> {
    let (channels, size) = (config.channels(), config.image_size());
    let mut images = Vec::with_capacity(spec.draws.len());
    let mut done = 0;
    for draws in spec.draws.chunks(spec.batch_size.max(1)) {
        let noise: Vec<f32> = draws
            .iter()
            .flat_map(|draw| {
                let rng = stream(draw.seed, Purpose::Sample, 0, draw.number);
                rng.sample_iter(StandardNormal).take(channels * size * size)
            })
            .collect();
        let shape = [draws.len(), channels, size, size];
        let noise = Tensor::<4>::from_data(TensorData::new(noise, shape), device);
        let label = (config.num_classes() > 0).then(|| {
            let labels: Vec<i64> = draws.iter().map(|draw| draw.label as i64).collect();
            Tensor::from_data(TensorData::new(labels, [shape[0]]), device)
        });
        let step = |_| {
            done += 1;
            after(done)
        };
        let Some(x) = spec.sampler.sample(&net.objective(), net, noise, label, step) else {
            return Ok(None);
        };
        let values: Vec<f32> = device::read(x)?.iter::<f32>().collect();
        images
            .extend(values.chunks_exact(channels * size * size).map(|values| to_rgb(values, size)));
    }
    Ok(Some(images))
}

/// `[3, size, size]` in [-1, 1] as bytes; what lies outside is cut off.
pub(super) fn to_rgb(values: &[f32], size: usize) -> RgbImage {
    RgbImage::from_fn(size as u32, size as u32, |x, y| {
        let at = |channel: usize| values[(channel * size + y as usize) * size + x as usize];
        Rgb([0, 1, 2].map(|channel| (at(channel).clamp(-1.0, 1.0) * 127.5 + 127.5).round() as u8))
    })
}

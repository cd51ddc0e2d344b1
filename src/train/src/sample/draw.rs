//! Draws images from a network. An image depends on its number, its class and the seed alone: not
//! on how many are drawn with it.

use burn::tensor::{Device, Tensor, TensorData};
use image::{Rgb, RgbImage};
use pipe_engine::kind::StageError;
use rand::RngExt;
use rand_distr::StandardNormal;

use crate::architecture::{Denoiser, ModelConfig};
use crate::device;
use crate::noise::{Edm, Sampler};
use crate::rng::{Purpose, stream};

/// What to draw.
#[derive(Debug, Clone)]
pub struct Drawing {
    /// The class of each image; ignored by a network without classes.
    pub labels: Vec<usize>,
    pub seed: u64,
    pub sampler: Sampler,
    /// Images that are drawn at once.
    pub batch_size: usize,
}

impl Drawing {
    /// Evaluations of all batches together, for a progress bar.
    pub fn total_steps(&self) -> u64 {
        (self.labels.len().div_ceil(self.batch_size.max(1)) * self.sampler.steps) as u64
    }
}

/// Draws with `net`, which stands on `device` without autodiff. `after` is told how many steps of
/// [`Drawing::total_steps`] are done, and stops by answering `false`; the result is `None` then.
///
/// # Errors
/// When the device fails: see [`device::read`].
pub fn draw(
    net: &impl Denoiser,
    config: &ModelConfig,
    drawing: &Drawing,
    device: &Device,
    mut after: impl FnMut(u64) -> bool,
) -> Result<Option<Vec<RgbImage>>, StageError> {
    let (channels, size) = (config.channels(), config.image_size());
    let mut images = Vec::with_capacity(drawing.labels.len());
    let mut done = 0;
    for labels in drawing.labels.chunks(drawing.batch_size.max(1)) {
        let noise: Vec<f32> = (images.len()..images.len() + labels.len())
            .flat_map(|index| {
                let rng = stream(drawing.seed, Purpose::Sample, 0, index as u64);
                rng.sample_iter(StandardNormal).take(channels * size * size)
            })
            .collect();
        let shape = [labels.len(), channels, size, size];
        let noise = Tensor::<4>::from_data(TensorData::new(noise, shape), device);
        let label = (config.num_classes() > 0).then(|| {
            let labels: Vec<i64> = labels.iter().map(|label| *label as i64).collect();
            Tensor::from_data(TensorData::new(labels, [shape[0]]), device)
        });
        let step = |_| {
            done += 1;
            after(done)
        };
        let Some(x) = drawing.sampler.sample(&Edm::default(), net, noise, label, step) else {
            return Ok(None);
        };
        let values: Vec<f32> = device::read(x)?.iter::<f32>().collect();
        images.extend(
            values.chunks_exact(channels * size * size).map(|values| from_values(values, size)),
        );
    }
    Ok(Some(images))
}

/// `[3, size, size]` in [-1, 1] as bytes; what lies outside is cut off.
pub(super) fn from_values(values: &[f32], size: usize) -> RgbImage {
    RgbImage::from_fn(size as u32, size as u32, |x, y| {
        let at = |channel: usize| values[(channel * size + y as usize) * size + x as usize];
        Rgb([0, 1, 2].map(|channel| (at(channel).clamp(-1.0, 1.0) * 127.5 + 127.5).round() as u8))
    })
}

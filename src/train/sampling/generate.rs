//! Samples images from a network. An image depends on its seed, its number and its class alone: not
//! on how many are sampled with it.

use burn::tensor::{Device, Tensor, TensorData};
use image::{Rgb, RgbImage};
use pipe_engine::kind::StageError;
use rand::RngExt;
use rand_distr::StandardNormal;

use crate::architecture::{ModelConfig, Network};
use crate::checkpoint::SamplingModel;
use crate::device;
use crate::diffusion::{Guided, Sampler};
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

/// A model to sample from, on its device, without autodiff.
#[derive(Clone, Copy)]
pub struct ModelView<'a> {
    pub net: &'a Network,
    /// What guides it in the place of its own estimate without a class.
    pub guide: Option<&'a Network>,
    pub config: &'a ModelConfig,
    /// Empty if they are not known.
    pub class_names: &'a [String],
}

impl<'a> ModelView<'a> {
    pub fn of(opened: &'a SamplingModel, guide: Option<&'a SamplingModel>) -> Self {
        let SamplingModel { net, config, class_names, .. } = opened;
        Self { net, guide: guide.map(|guide| &guide.net), config, class_names }
    }
}

/// Samples with a model on `device`. `after` is told how many steps of [`SampleSpec::total_steps`]
/// are done, and stops by answering `false`; the result is `None` then.
///
/// # Errors
/// When the device fails: see [`device::read`].
pub fn generate(
    model: ModelView,
    spec: &SampleSpec,
    device: &Device,
    after: impl FnMut(u64) -> bool,
) -> Result<Option<Vec<RgbImage>>, StageError> {
    let strips = generate_strips(model, spec, &[], device, after)?;
    Ok(strips.map(|strips| strips.into_iter().flatten().collect()))
}

/// The same, with a strip for each draw: what the image was estimated to be at these `steps`,
/// counted from 1 and rising, and the image at last.
pub fn generate_strips(
    model: ModelView,
    spec: &SampleSpec,
    steps: &[usize],
    device: &Device,
    mut after: impl FnMut(u64) -> bool,
) -> Result<Option<Vec<Vec<RgbImage>>>, StageError> {
    let ModelView { net, guide, config, .. } = model;
    let (channels, size) = (config.channels(), config.image_size());
    let mut strips = Vec::with_capacity(spec.draws.len());
    let mut done = 0;
    for draws in spec.draws.chunks(spec.batch_size.max(1)) {
        let shape = [draws.len(), channels, size, size];
        let normals = |purpose, step| {
            let of_draw = |draw: &Draw| {
                let rng = stream(draw.seed, purpose, step, draw.number);
                rng.sample_iter(StandardNormal).take(channels * size * size)
            };
            let normals: Vec<f32> = draws.iter().flat_map(of_draw).collect();
            Tensor::<4>::from_data(TensorData::new(normals, shape), device)
        };
        let label = (config.num_classes() > 0).then(|| {
            let labels: Vec<i64> = draws.iter().map(|draw| draw.label as i64).collect();
            Tensor::from_data(TensorData::new(labels, [shape[0]]), device)
        });
        let networks = Guided { net, guide, label };
        let (mut seen, mut failed) = (vec![Vec::new(); draws.len()], None);
        let noise = normals(Purpose::Sample, 0);
        let fresh = |step: usize| normals(Purpose::Churn, step as u64);
        let x = spec.sampler.run(&networks, noise, fresh, |step| {
            if steps.contains(&step.number)
                && let Err(e) = look(step.estimate.clone(), &mut seen)
            {
                failed = Some(e);
                return false;
            }
            done += 1;
            after(done)
        });
        if let Some(e) = failed {
            return Err(e);
        }
        let Some(x) = x else { return Ok(None) };
        look(x, &mut seen)?;
        strips.append(&mut seen);
    }
    Ok(Some(strips))
}

/// Adds to each strip its image of `x [batch, 3, size, size]`.
fn look(x: Tensor<4>, strips: &mut [Vec<RgbImage>]) -> Result<(), StageError> {
    let [_, channels, size, _] = x.dims();
    let values: Vec<f32> = device::read(x)?.iter::<f32>().collect();
    for (strip, values) in strips.iter_mut().zip(values.chunks_exact(channels * size * size)) {
        strip.push(to_rgb(values, size));
    }
    Ok(())
}

/// `[3, size, size]` in [-1, 1] as bytes; what lies outside is cut off.
pub(crate) fn to_rgb(values: &[f32], size: usize) -> RgbImage {
    RgbImage::from_fn(size as u32, size as u32, |x, y| {
        let at = |channel: usize| values[(channel * size + y as usize) * size + x as usize];
        Rgb([0, 1, 2].map(|channel| (at(channel).clamp(-1.0, 1.0) * 127.5 + 127.5).round() as u8))
    })
}

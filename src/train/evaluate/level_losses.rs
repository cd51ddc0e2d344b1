//! The loss of images that no training step saw, by noise level and by class.
//!
//! The mean over the noise levels of training (Karras et al. 2022, arXiv 2206.00364, equation 8) is
//! estimated by strata: each image is denoised once at the median of each of eight equally
//! probable parts of the distribution that the objective draws levels from. So one image's luck with
//! its noise level decides nothing, and the loss of a level can be told.

use burn::tensor::{Device, Int, Tensor, TensorData};
use pipe_engine::kind::{Failure, StageError};
use rand::RngExt;
use rand_distr::StandardNormal;
use rayon::prelude::*;

use crate::architecture::{Denoiser, ModelConfig, Network};
use crate::data::{DataError, Dataset, same_class_name};
use crate::device;
use crate::diffusion::Objective;
use crate::kernels;
use crate::nn::Pass;
use crate::rng::{Purpose, stream};
use crate::sampling::unknown_class;

/// Noise levels at which each image is denoised.
const LEVELS: usize = 8;
/// Standard normals below which 1/16, 3/16, … 15/16 of all lie.
const MEDIANS: [f32; LEVELS] = [
    -1.534_120_5,
    -0.887_146_56,
    -0.488_776_4,
    -0.157_310_68,
    0.157_310_68,
    0.488_776_4,
    0.887_146_56,
    1.534_120_5,
];

/// Which images to denoise, and with what.
pub struct LossRequest<'a> {
    pub net: &'a Network,
    pub config: &'a ModelConfig,
    /// Of the model, in the order of its labels.
    pub class_names: &'a [String],
    pub dataset: &'a Dataset,
    /// Positions in the data set.
    pub images: &'a [usize],
    /// Images that are denoised at once.
    pub batch_size: usize,
}

/// Mean losses of some images.
#[derive(Debug, Clone, PartialEq)]
pub struct LevelLosses {
    /// Over all of it.
    pub mean: f64,
    /// By noise level σ, lowest first.
    pub by_level: Vec<(f64, f64)>,
    /// By class of the data set that has images, in the order of the labels.
    pub by_class: Vec<(String, f64)>,
}

impl LossRequest<'_> {
    /// Denoises every image at every level. `after` is told how many of how many batches are done,
    /// and stops by answering `false`; the result is `None` then. A pure function of model and
    /// images, but for rounding that may depend on the batch's size.
    ///
    /// # Errors
    /// A class that the model does not know, an image that cannot be read, a device that fails.
    pub fn losses(
        &self,
        device: &Device,
        mut after: impl FnMut(u64, u64) -> bool + Send,
    ) -> Result<Option<LevelLosses>, StageError> {
        let label_of = self.label_of()?;
        let objective = self.net.objective();
        let sigmas = (1..)
            .step_by(2)
            .zip(MEDIANS)
            .map(|(odd, normal)| objective.level_at(f64::from(odd) / (2 * LEVELS) as f64, normal));
        let sigmas: Vec<f32> = sigmas.collect();
        let classes = self.dataset.class_names();
        let mut of_level = vec![0.0; LEVELS];
        let mut of_class = vec![(0.0, 0u64); classes.len()];
        let batch = self.batch_size.max(1);
        let total = (self.images.len().div_ceil(batch) * LEVELS) as u64;
        let mut done = 0;
        for images in self.images.chunks(batch) {
            let pixels = self.read(images)?;
            for (level, sigma) in sigmas.iter().enumerate() {
                let losses = kernels::in_own_pool(|| {
                    self.of_batch(
                        &objective,
                        images,
                        pixels.clone(),
                        (level, *sigma),
                        &label_of,
                        device,
                    )
                })?;
                for (index, loss) in images.iter().zip(losses) {
                    of_level[level] += loss;
                    if let Some((sum, count)) =
                        of_class.get_mut(self.dataset.label(*index) as usize)
                    {
                        (*sum, *count) = (*sum + loss, *count + 1);
                    }
                }
                done += 1;
                if !after(done, total) {
                    return Ok(None);
                }
            }
        }
        let images = self.images.len().max(1) as f64;
        let by_class = classes.iter().zip(&of_class).filter(|(_, (_, count))| *count > 0);
        Ok(Some(LevelLosses {
            mean: of_level.iter().sum::<f64>() / (images * LEVELS as f64),
            by_level: sigmas
                .iter()
                .zip(&of_level)
                .map(|(s, sum)| ((*s).into(), sum / images))
                .collect(),
            by_class: by_class.map(|(name, (sum, n))| (name.clone(), sum / *n as f64)).collect(),
        }))
    }

    /// The model's label for each class of the data set, by name.
    fn label_of(&self) -> Result<Vec<i64>, StageError> {
        let names = self.class_names;
        if self.config.num_classes() == 0 {
            return Ok(vec![0; self.dataset.class_names().len()]);
        }
        let label = |class: &String| {
            let exact = names.iter().position(|name| name == class);
            let found = exact.or_else(|| names.iter().position(|n| same_class_name(n, class)));
            let none = || {
                let text = format!("dataset: {}", unknown_class(class, names));
                StageError::new(Failure::Setting, text)
            };
            found.map(|label| label as i64).ok_or_else(none)
        };
        self.dataset.class_names().iter().map(label).collect()
    }

    /// `[images, 3, size, size]` in -1..=1.
    fn read(&self, images: &[usize]) -> Result<Vec<f32>, StageError> {
        let read: Result<Vec<Vec<f32>>, DataError> =
            images.par_iter().map(|index| self.dataset.model_input(*index, None)).collect();
        let read = read.map_err(|e| StageError::new(Failure::Input, e.to_string()))?;
        Ok(read.concat())
    }

    /// The loss of each image of a batch.
    fn of_batch(
        &self,
        objective: &Objective,
        images: &[usize],
        pixels: Vec<f32>,
        (level, sigma): (usize, f32),
        label_of: &[i64],
        device: &Device,
    ) -> Result<Vec<f64>, StageError> {
        let (count, size) = (images.len(), self.config.image_size());
        let each = pixels.len() / count.max(1);
        let noise = images.iter().flat_map(|index| {
            let rng = stream(0, Purpose::Validation, level as u64 + 1, *index as u64);
            rng.sample_iter(StandardNormal).take(each)
        });
        let noise: Vec<f32> = noise.collect();
        let shape = [count, 3, size, size];
        let on_device = |values| Tensor::<4>::from_data(TensorData::new(values, shape), device);
        let (image, noise) = (on_device(pixels), on_device(noise));
        let label = (self.config.num_classes() > 0).then(|| {
            let of = |index: &usize| label_of.get(self.dataset.label(*index) as usize).copied();
            let labels: Vec<i64> = images.iter().map(|index| of(index).unwrap_or(0)).collect();
            Tensor::<1, Int>::from_data(TensorData::new(labels, [count]), device)
        });
        let levels = Tensor::<1>::full([count], sigma, device);
        let noised = image.clone() + noise * sigma;
        let weight = objective.weight(levels.clone().reshape([count, 1, 1, 1]));
        let denoised = objective.denoise(self.net, noised, levels, label, &Pass::inference());
        let squares = (denoised - image).square().reshape([count, each]).mean_dim(1);
        Ok(device::read(squares * weight.reshape([count, 1]))?.iter::<f64>().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::Architectures;
    use crate::data::{DatasetSettings, Split};

    fn dataset(images: usize) -> Dataset {
        let settings = DatasetSettings {
            image_size: 8,
            num_images: images,
            val_split: 0.5,
            ..DatasetSettings::default()
        };
        Dataset::open(&settings, &std::path::Path::new("/").into(), &()).unwrap()
    }

    fn model(classes: usize) -> (Network, ModelConfig) {
        let text = format!(
            r#"{{"dim": 16, "mults": [1, 2], "depths": [1, 1], "heads": 2, "window": 4, "image_size": 8,
                 "channels": 3, "num_classes": {classes}}}"#
        );
        let config = Architectures::builtin().read(serde_json::from_str(&text).unwrap()).unwrap();
        (config.init(7, &Device::flex()).unwrap(), config)
    }

    fn losses(batch_size: usize, names: &[String]) -> Result<LevelLosses, StageError> {
        let dataset = dataset(64);
        let (net, config) = model(names.len());
        let request = LossRequest {
            net: &net,
            config: &config,
            class_names: names,
            dataset: &dataset,
            images: dataset.indices(Split::Validation),
            batch_size,
        };
        Ok(request.losses(&Device::flex(), |_, _| true)?.unwrap())
    }

    #[test]
    fn means_of_levels_and_of_classes_are_the_mean_whatever_the_batch() {
        let names = dataset(64).class_names().to_vec();
        let found = losses(5, &names).unwrap();
        assert_eq!((found.by_level.len(), found.by_class.len()), (LEVELS, 8));
        let mean = |all: Vec<f64>| all.iter().sum::<f64>() / all.len() as f64;
        let levels = mean(found.by_level.iter().map(|(_, loss)| *loss).collect());
        let classes = mean(found.by_class.iter().map(|(_, loss)| *loss).collect());
        assert!((levels / found.mean - 1.0).abs() < 1e-12);
        assert!((classes / found.mean - 1.0).abs() < 1e-12, "as many images of each class");
        assert!(found.by_level.windows(2).all(|pair| pair[0].0 < pair[1].0));
        let other = losses(32, &names).unwrap();
        assert!((other.mean / found.mean - 1.0).abs() < 1e-5, "{} {}", other.mean, found.mean);
    }

    /// The mean of λ(σ) (D(y + σ n; σ) - y)² with λ(σ) = (σ² + σ_data²) / (σ σ_data)², image by image.
    #[test]
    fn the_loss_of_a_level_is_that_of_the_paper() {
        let names = dataset(64).class_names().to_vec();
        let found = losses(16, &names).unwrap();
        let dataset = dataset(64);
        let images = dataset.indices(Split::Validation);
        let (net, _) = model(8);
        let device = Device::flex();
        let (level, (sigma, loss)) = (2, found.by_level[2]);
        let weight = (sigma * sigma + 0.25) / (sigma * 0.5f64).powi(2);
        let mut sum = 0.0;
        for index in images {
            let pixels = dataset.model_input(*index, None).unwrap();
            let rng = stream(0, Purpose::Validation, level + 1, *index as u64);
            let noise = rng.sample_iter::<f64, _>(StandardNormal);
            let noised = pixels.iter().zip(noise).map(|(y, n)| *y + (sigma * n) as f32);
            let noised = TensorData::new(noised.collect::<Vec<f32>>(), [1, 3, 8, 8]);
            let label = TensorData::new(vec![i64::from(dataset.label(*index))], [1]);
            let denoised = net.objective().denoise(
                &net,
                Tensor::<4>::from_data(noised, &device),
                Tensor::<1>::full([1], sigma, &device),
                Some(Tensor::<1, Int>::from_data(label, &device)),
                &Pass::inference(),
            );
            let denoised: Vec<f32> = denoised.into_data().try_into_vec().unwrap();
            let square = |(d, y): (&f32, &f32)| f64::from(d - y).powi(2);
            sum += denoised.iter().zip(&pixels).map(square).sum::<f64>() / pixels.len() as f64;
        }
        let expected = weight * sum / images.len() as f64;
        assert!((loss / expected - 1.0).abs() < 1e-4, "{loss} {expected}");
    }

    #[test]
    fn a_class_that_the_model_does_not_know_is_named() {
        let message = losses(8, &["oak".to_owned()]).unwrap_err().message;
        assert_eq!(message, "dataset: the model has no class `circle`; it has oak");
    }

    #[test]
    fn the_levels_are_the_medians_of_equally_probable_parts() {
        // By the error function's series: Φ(z) = 1/2 + φ(z) Σ z^(2k+1) / (1 · 3 ⋯ (2k+1)).
        let phi = |z: f64| {
            let (mut term, mut sum, mut k) = (z, z, 1.0);
            while f64::abs(term) > 1e-16 {
                k += 2.0;
                term *= z * z / k;
                sum += term;
            }
            0.5 + sum * (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
        };
        for (part, median) in MEDIANS.iter().enumerate() {
            let expected = (2 * part + 1) as f64 / 16.0;
            assert!((phi(f64::from(*median)) - expected).abs() < 1e-6, "{part}");
        }
    }
}

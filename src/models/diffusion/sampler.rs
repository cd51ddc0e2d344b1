//! EDM's deterministic sampler: Heun's second-order method along the probability flow, with
//! classifier-free guidance.
//!
//! Source: Karras et al. 2022, arXiv 2206.00364, algorithm 1 and equation 5 (S_churn = 0);
//! guidance: Ho and Salimans 2022, arXiv 2207.12598, in the form of a weight on the difference, so
//! that 1 means none.

use burn::tensor::{Int, Tensor};

use super::objective::Objective;
use crate::architecture::{Denoiser, LABEL_TABLE};
use crate::kernels;
use crate::nn::{Pass, walk};

/// How to get from noise to an image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    /// Noise levels; the network is evaluated `2 steps - 1` times.
    pub steps: usize,
    pub sigma_min: f64,
    pub sigma_max: f64,
    /// How much closer the levels lie at the clean end.
    pub rho: f64,
    /// Weight of the class: 1 takes the conditional estimate as it is, more exaggerates the class.
    pub guidance: f64,
}

impl Default for Sampler {
    fn default() -> Self {
        Self { steps: 18, sigma_min: 0.002, sigma_max: 80.0, rho: 7.0, guidance: 1.0 }
    }
}

impl Sampler {
    /// The noise levels, highest first, and a last 0 (equation 5).
    pub fn sigmas(&self) -> Vec<f64> {
        let root = |sigma: f64| sigma.powf(1.0 / self.rho);
        let (high, low) = (root(self.sigma_max), root(self.sigma_min));
        let last = self.steps.saturating_sub(1).max(1) as f64;
        let level = |i: usize| (high + i as f64 / last * (low - high)).powf(self.rho);
        (0..self.steps).map(level).chain([0.0]).collect()
    }

    /// Denoises `noise [batch, channels, size, size]` (standard normal) to images in [-1, 1],
    /// without autodiff. `label [batch]` holds classes, or the number of classes for "no class";
    /// `None` for a network without any. `after` is told the number of the step just done, from 1,
    /// and stops the sampler by answering `false`.
    pub fn sample(
        &self,
        edm: &Objective,
        net: &impl Denoiser,
        noise: Tensor<4>,
        label: Option<Tensor<1, Int>>,
        mut after: impl FnMut(usize) -> bool,
    ) -> Option<Tensor<4>> {
        let [batch, ..] = noise.dims();
        let device = noise.device();
        // A GPU is asked for half the launches. On a CPU two passes need half the memory.
        let apart = self.guidance == 1.0 || kernels::in_host_memory(&noise.clone().flatten(0, 3));
        let no_class = label.as_ref().filter(|_| !apart).and_then(|label| no_class(net, label));
        let slope = |x: Tensor<4>, sigma: f64| -> Tensor<4> {
            let levels = Tensor::<1>::full([batch], sigma, &device);
            let labels = (label.clone(), no_class.clone());
            let denoised = self.denoise(edm, net, x.clone(), levels, labels);
            (x - denoised) / sigma
        };
        let sigmas = self.sigmas();
        let mut x = noise * self.sigma_max; // [batch, channels, size, size]
        for (step, pair) in sigmas.windows(2).enumerate() {
            let (sigma, next) = (pair[0], pair[1]);
            let first = slope(x.clone(), sigma);
            let ahead = x.clone() + first.clone() * (next - sigma);
            x = if next > 0.0 {
                x + (first + slope(ahead, next)) * (0.5 * (next - sigma))
            } else {
                ahead
            };
            if !after(step + 1) {
                return None;
            }
        }
        Some(x)
    }

    /// The guided estimate of the images. `labels`: the classes, and as many times "no class" where
    /// both estimates are to be made in one pass.
    fn denoise(
        &self,
        edm: &Objective,
        net: &impl Denoiser,
        x: Tensor<4>,
        sigma: Tensor<1>,
        labels: (Option<Tensor<1, Int>>, Option<Tensor<1, Int>>),
    ) -> Tensor<4> {
        let (pass, [batch]) = (Pass::inference(), sigma.dims());
        let (with, without) = match labels {
            (label, _) if self.guidance == 1.0 || label.is_none() => {
                return edm.denoise(net, x, sigma, label, &pass);
            }
            (Some(label), Some(no_class)) => {
                let (x, sigma) = (x.repeat_dim(0, 2), sigma.repeat_dim(0, 2));
                let labels = Tensor::cat(vec![label, no_class], 0);
                let both = edm.denoise(net, x, sigma, Some(labels), &pass);
                (both.clone().narrow(0, 0, batch), both.narrow(0, batch, batch))
            }
            (label, _) => (
                edm.denoise(net, x.clone(), sigma.clone(), label, &pass),
                edm.denoise(net, x, sigma, None, &pass),
            ),
        };
        without.clone() + (with - without) * self.guidance
    }
}

/// "No class" for as many images as there are labels; `None` for a network without a label table.
fn no_class(net: &impl Denoiser, label: &Tensor<1, Int>) -> Option<Tensor<1, Int>> {
    let rows = walk(net).into_iter().find(|param| param.name == LABEL_TABLE)?.shape[0];
    Some(Tensor::full(label.dims(), rows as i64 - 1, &label.device()))
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::architecture::Architectures;

    #[test]
    fn levels_fall_from_the_highest_to_the_lowest_and_end_at_zero() {
        let sigmas = Sampler::default().sigmas();
        assert_eq!(sigmas.len(), 19);
        assert!(
            (sigmas[0] - 80.0).abs() < 1e-9
                && (sigmas[17] - 0.002).abs() < 1e-12
                && sigmas[18] == 0.0
        );
        assert!(sigmas.windows(2).all(|pair| pair[0] > pair[1]));
        // (80^(1/7) + 9/17 (0.002^(1/7) - 80^(1/7)))^7
        assert!((sigmas[9] - 1.923_340).abs() < 1e-5, "{}", sigmas[9]);
    }

    #[test]
    fn one_step_is_possible() {
        assert_eq!(Sampler { steps: 1, ..Sampler::default() }.sigmas(), [80.0, 0.0]);
    }

    #[test]
    fn guidance_in_one_pass_is_guidance_in_two() {
        let text = r#"{"dim": 16, "mults": [1, 2], "depths": [1, 1], "heads": 2, "window": 4, "image_size": 8,
                       "channels": 3, "num_classes": 2}"#;
        let config = Architectures::builtin().read(serde_json::from_str(text).unwrap()).unwrap();
        let device = Device::flex();
        let net = config.init(7, &device).unwrap();
        let draw = |count: usize| (0..count).map(|i| (0.37 * i as f32).sin()).collect::<Vec<_>>();
        for images in [1, 3] {
            let x = TensorData::new(draw(images * 192), [images, 3, 8, 8]);
            let x = Tensor::<4>::from_data(x, &device);
            let classes: Vec<i64> = (0..images as i64).map(|i| i % 2).collect();
            let label = Tensor::<1, Int>::from_data(TensorData::new(classes, [images]), &device);
            let sigma = Tensor::<1>::full([images], 0.7, &device);
            let estimate = |guidance, no_class| {
                let sampler = Sampler { guidance, ..Sampler::default() };
                let labels = (Some(label.clone()), no_class);
                let found =
                    sampler.denoise(&Objective::default(), &net, x.clone(), sigma.clone(), labels);
                found.into_data().try_into_vec::<f32>().unwrap()
            };
            for guidance in [0.0, 2.5] {
                let together = no_class(&net, &label);
                assert!(together.is_some());
                let (one, two) = (estimate(guidance, together), estimate(guidance, None));
                let worst = one.iter().zip(&two).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst < 1e-5, "{images} images, guidance {guidance}: off by {worst}");
                assert_ne!(two, estimate(1.0, None), "the class makes a difference");
            }
        }
    }
}

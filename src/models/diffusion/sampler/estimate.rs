//! What the images are estimated to be at one noise level: by the network alone, or guided by its
//! estimate without a class or by another network.
//!
//! Sources: Ho and Salimans 2022, arXiv 2207.12598, in the form of a weight on the difference, so
//! that 1 means none; Karras et al. 2024, arXiv 2406.02507, equation 3 (autoguidance); Kynkäänniemi
//! et al. 2024, arXiv 2404.07724 (guidance in an interval of noise levels alone).

use burn::tensor::{Int, Tensor};

use super::Sampler;
use crate::architecture::{Denoiser, LABEL_TABLE};
use crate::kernels;
use crate::nn::{Pass, walk};

/// The networks that images are sampled from.
pub struct Guided<'a, N> {
    pub net: &'a N,
    /// Autoguidance: a network that is worse in the same way, such as an earlier or a smaller one,
    /// for images of the same shape and classes. Without it the estimate without a class guides.
    pub guide: Option<&'a N>,
    /// `[batch]`: classes, or the number of classes for "no class"; `None` for networks without
    /// any.
    pub label: Option<Tensor<1, Int>>,
}

/// Estimates of one sampling.
pub(super) struct Estimator<'a, N> {
    networks: &'a Guided<'a, N>,
    guidance: f64,
    interval: Option<(f64, f64)>,
    /// "No class" for each image, where both estimates are made in one pass.
    no_class: Option<Tensor<1, Int>>,
}

impl<'a, N: Denoiser> Estimator<'a, N> {
    pub fn new(sampler: &Sampler, networks: &'a Guided<'a, N>, noise: &Tensor<4>) -> Self {
        // A GPU is asked for half the launches. On a CPU two passes need half the memory.
        let apart = sampler.guidance == 1.0
            || networks.guide.is_some()
            || kernels::in_host_memory(&noise.clone().flatten(0, 3));
        let label = networks.label.as_ref().filter(|_| !apart);
        let no_class = label.and_then(|label| no_class(networks.net, label));
        let Sampler { guidance, guidance_interval: interval, .. } = *sampler;
        Self { networks, guidance, interval, no_class }
    }

    /// The guided estimate of the images: `x [batch, channels, size, size]`, noisy, to the same
    /// shape.
    pub fn at(&self, x: Tensor<4>, sigma: f64) -> Tensor<4> {
        let Guided { net, guide, label } = self.networks;
        let ([batch, ..], pass) = (x.dims(), Pass::inference());
        let of = |net: &N, x, levels, label| net.objective().denoise(net, x, levels, label, &pass);
        let levels = Tensor::<1>::full([batch], sigma, &x.device());
        let is_inside = self.interval.is_none_or(|(from, to)| from < sigma && sigma <= to);
        let is_guided = self.guidance != 1.0 && is_inside;
        let (with, without) = match (guide, label.clone(), self.no_class.clone()) {
            (_, label, _) if !is_guided => return of(net, x, levels, label),
            (Some(guide), label, _) => {
                (of(net, x.clone(), levels.clone(), label.clone()), of(guide, x, levels, label))
            }
            (None, None, _) => return of(net, x, levels, None),
            (None, Some(label), Some(no_class)) => {
                let (x, levels) = (x.repeat_dim(0, 2), levels.repeat_dim(0, 2));
                let labels = Tensor::cat(vec![label, no_class], 0);
                let both = of(net, x, levels, Some(labels));
                (both.clone().narrow(0, 0, batch), both.narrow(0, batch, batch))
            }
            (None, label, None) => {
                (of(net, x.clone(), levels.clone(), label), of(net, x, levels, None))
            }
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
            let together = no_class(&net, &label);
            assert!(together.is_some());
            let networks = Guided { net: &net, guide: None, label: Some(label) };
            let estimate = |guidance, no_class| {
                let estimator =
                    Estimator { networks: &networks, guidance, interval: None, no_class };
                estimator.at(x.clone(), 0.7).into_data().try_into_vec::<f32>().unwrap()
            };
            for guidance in [0.0, 2.5] {
                let (one, two) = (estimate(guidance, together.clone()), estimate(guidance, None));
                let worst = one.iter().zip(&two).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst < 1e-5, "{images} images, guidance {guidance}: off by {worst}");
                assert_ne!(two, estimate(1.0, None), "the class makes a difference");
            }
        }
    }
}

//! EDM's deterministic sampler: Heun's second-order method along the probability flow, with
//! classifier-free guidance.
//!
//! Source: Karras et al. 2022, arXiv 2206.00364, algorithm 1 and equation 5 (S_churn = 0);
//! guidance: Ho and Salimans 2022, arXiv 2207.12598, in the form of a weight on the difference, so
//! that 1 means none.

use burn::tensor::{Int, Tensor};

use super::Edm;
use crate::architecture::Denoiser;
use crate::nn::Pass;

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
        edm: &Edm,
        net: &impl Denoiser,
        noise: Tensor<4>,
        label: Option<Tensor<1, Int>>,
        mut after: impl FnMut(usize) -> bool,
    ) -> Option<Tensor<4>> {
        let [batch, ..] = noise.dims();
        let device = noise.device();
        let slope = |x: Tensor<4>, sigma: f64| -> Tensor<4> {
            let levels = Tensor::<1>::full([batch], sigma, &device);
            let denoised = self.denoise(edm, net, x.clone(), levels, label.clone());
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

    fn denoise(
        &self,
        edm: &Edm,
        net: &impl Denoiser,
        x: Tensor<4>,
        sigma: Tensor<1>,
        label: Option<Tensor<1, Int>>,
    ) -> Tensor<4> {
        let pass = Pass::inference();
        if self.guidance == 1.0 || label.is_none() {
            return edm.denoise(net, x, sigma, label, &pass);
        }
        let with = edm.denoise(net, x.clone(), sigma.clone(), label, &pass);
        let without = edm.denoise(net, x, sigma, None, &pass);
        without.clone() + (with - without) * self.guidance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}

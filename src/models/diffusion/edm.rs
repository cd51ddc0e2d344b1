//! EDM's preconditioning, training noise levels and loss.
//!
//! Source: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models",
//! NeurIPS 2022, arXiv 2206.00364, table 1 (column "Ours") and equation 8. Draws nothing itself:
//! noise, noise levels and dropped labels come from outside, where the streams are.

use burn::tensor::{Int, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::architecture::Denoiser;
use crate::nn::{Pass, sum_all};

/// The constants of table 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Edm {
    /// Standard deviation of the images, σ_data.
    pub sigma_data: f64,
    /// Mean of ln σ in training.
    pub p_mean: f64,
    /// Standard deviation of ln σ in training.
    pub p_std: f64,
}

impl Default for Edm {
    fn default() -> Self {
        Self { sigma_data: 0.5, p_mean: -1.2, p_std: 1.2 }
    }
}

impl Edm {
    /// Training noise levels from standard normals `z`: σ = exp(P_mean + P_std z).
    pub fn sigma(&self, z: &[f32]) -> Vec<f32> {
        z.iter().map(|z| (self.p_mean + self.p_std * f64::from(*z)).exp() as f32).collect()
    }

    /// The preconditioned denoiser D(x; σ), equation 7: `x [batch, channels, size, size]` (image
    /// plus noise), `sigma [batch]`, `label [batch]` to the estimated image, shaped as `x`. `None`
    /// for `label`, or the number of classes in it, means "no class".
    pub fn denoise(
        &self,
        net: &impl Denoiser,
        x: Tensor<4>,
        sigma: Tensor<1>,
        label: Option<Tensor<1, Int>>,
        pass: &Pass,
    ) -> Tensor<4> {
        let [batch] = sigma.dims();
        let c_noise = sigma.clone().log() / 4.0;
        let s = sigma.reshape([batch, 1, 1, 1]);
        let total = s.clone().square() + self.sigma_data.powi(2); // σ² + σ_data²
        let root = total.clone().sqrt();
        let c_skip = total.recip() * self.sigma_data.powi(2);
        let c_out = s * self.sigma_data / root.clone();
        let estimate = net.forward(x.clone() / root, c_noise, label, pass);
        c_skip * x + c_out * estimate
    }

    /// The weighted denoising loss, equation 8: the mean over everything of λ(σ) (D(y + σ n; σ) -
    /// y)², with λ(σ) = (σ² + σ_data²) / (σ σ_data)².
    ///
    /// `image`, `noise` (standard normal) `[batch, channels, size, size]`, `sigma [batch]`, `label
    /// [batch]` to `[1]`.
    pub fn loss(
        &self,
        net: &impl Denoiser,
        image: Tensor<4>,
        sigma: Tensor<1>,
        noise: Tensor<4>,
        label: Option<Tensor<1, Int>>,
        pass: &Pass,
    ) -> Tensor<1> {
        let [batch] = sigma.dims();
        let s = sigma.clone().reshape([batch, 1, 1, 1]);
        let total = s.clone().square() + self.sigma_data.powi(2);
        let weight = total / (s.clone() * self.sigma_data).square();
        let denoised = self.denoise(net, image.clone() + s * noise, sigma, label, pass);
        let squares = weight * (denoised - image).square();
        let count = squares.shape().num_elements();
        sum_all(squares) / count as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_levels_are_log_normal() {
        let sigma = Edm::default().sigma(&[0.0, 1.0, -1.0]);
        let expected = [(-1.2f64).exp(), 1.0, (-2.4f64).exp()];
        for (found, expected) in sigma.iter().zip(expected) {
            assert!((f64::from(*found) / expected - 1.0).abs() < 1e-6);
        }
    }
}

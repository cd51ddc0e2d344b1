//! A network as a denoiser, and its loss, by its objective.
//!
//! Source: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models",
//! NeurIPS 2022, arXiv 2206.00364, equations 7 and 8. Draws nothing itself: noise, noise levels and
//! dropped labels come from outside, where the streams are.

use burn::tensor::{Int, Tensor};

use super::objective::Objective;
use crate::architecture::Denoiser;
use crate::nn::{Pass, sum_all};

impl Objective {
    /// The preconditioned denoiser D(x; σ), equation 7: `x [batch, channels, size, size]` (image
    /// plus noise), `sigma [batch]`, `label [batch]` to the estimated image, shaped as `x`. `None`
    /// for `label`, or the number of classes in it, means "no class". Whatever the objective, the
    /// network is told the level as ln σ / 4.
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
        let c = self.scaling(sigma.reshape([batch, 1, 1, 1]));
        let estimate = net.forward(x.clone() / c.divisor, c_noise, label, pass);
        c.skip * x + c.out * estimate
    }

    /// The weighted denoising loss, equation 8: the mean over everything of λ(σ) (D(y + σ n; σ) -
    /// y)², with the λ of [`Objective::weight`].
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
        let weight = self.weight(s.clone());
        let denoised = self.denoise(net, image.clone() + s * noise, sigma, label, pass);
        let squares = weight * (denoised - image).square();
        let count = squares.shape().num_elements();
        sum_all(squares) / count as f64
    }
}

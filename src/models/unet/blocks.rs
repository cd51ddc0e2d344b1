//! The U-Net's building blocks: the residual block that noise level and class scale and shift, and
//! self-attention over all pixels.
//!
//! Source: Dhariwal and Nichol, "Diffusion Models Beat GANs on Image Synthesis", NeurIPS 2021,
//! arXiv 2105.05233, section 3; Karras et al. 2022, arXiv 2206.00364, appendix F (DDPM++). Knows
//! nothing of how the blocks are arranged.

use std::f64::consts::FRAC_1_SQRT_2;

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::config::HEAD_WIDTH;
use crate::kernels;
use crate::nn::{Conv2d, Linear, Norm, Pass, Pointwise};

/// Channels that share one group of a norm over `channels`: 32 groups, or groups of 4 where that
/// would be fewer.
pub(super) fn group(channels: usize) -> usize {
    channels / (channels / 4).clamp(1, 32)
}

/// `(skip(x) + conv(silu(norm(conv(silu(norm(x)))) * (1 + scale) + shift))) / √2`, then attention
/// if asked; scale and shift are a projection of the embedding of noise level and class.
#[derive(Module, Debug)]
pub struct Residual {
    pub norm1: Norm,
    pub conv1: Conv2d,
    /// To scales and shifts, one after another.
    pub affine: Linear,
    pub norm2: Norm,
    pub conv2: Conv2d,
    /// Where the number of channels changes.
    pub skip: Option<Pointwise>,
    pub attention: Option<Attention>,
}

impl Residual {
    pub(super) fn new(
        inputs: usize,
        outputs: usize,
        time_dim: usize,
        attention: bool,
        device: &Device,
    ) -> Self {
        Self {
            norm1: Norm::new(inputs, device),
            conv1: Conv2d::new(inputs, outputs, 3, 1, device),
            affine: Linear::new(time_dim, 2 * outputs, device),
            norm2: Norm::new(outputs, device),
            conv2: Conv2d::new(outputs, outputs, 3, 1, device),
            skip: (inputs != outputs).then(|| Pointwise::new(inputs, outputs, device)),
            attention: attention.then(|| Attention::new(outputs, device)),
        }
    }

    /// `x [batch, h, w, in]`, `embedding [batch, time_dim]` to `[batch, h, w, out]`.
    pub fn forward(&self, x: Tensor<4>, embedding: Tensor<2>, pass: &Pass) -> Tensor<4> {
        let inputs = x.dims()[3];
        let h = self.conv1.forward(self.norm1.group_silu(x.clone(), group(inputs)), pass);
        let outputs = h.dims()[3];

        // The norm's own weight and bias go into the scale and shift of each image.
        let affine = self.affine.forward(embedding, pass); // [batch, 2 out]
        let scale = affine.clone().narrow(1, 0, outputs) + 1.0;
        let shift = affine.narrow(1, outputs, outputs);
        let weight = self.norm2.weight.val().reshape([1, outputs]) * scale.clone();
        let bias = self.norm2.bias.val().reshape([1, outputs]) * scale + shift;
        let h = kernels::group_norm_silu(h, weight, bias, group(outputs));
        let h = self.conv2.forward(pass.drop_features(h), pass);

        let x = match &self.skip {
            Some(skip) => skip.forward(x, pass),
            None => x,
        };
        let x = kernels::scaled_sum(x, h, FRAC_1_SQRT_2);
        match &self.attention {
            Some(attention) => attention.forward(x, pass),
            None => x,
        }
    }
}

/// Self-attention over all pixels, in heads of [`HEAD_WIDTH`] channels:
/// `(x + proj(attention(qkv(norm(x))))) / √2`.
#[derive(Module, Debug)]
pub struct Attention {
    pub norm: Norm,
    pub qkv: Pointwise,
    pub proj: Pointwise,
}

impl Attention {
    fn new(channels: usize, device: &Device) -> Self {
        Self {
            norm: Norm::new(channels, device),
            qkv: Pointwise::new(channels, 3 * channels, device),
            proj: Pointwise::new(channels, channels, device),
        }
    }

    /// `[batch, side, side, channels]` to the same shape.
    pub fn forward(&self, x: Tensor<4>, pass: &Pass) -> Tensor<4> {
        let channels = x.dims()[3];
        let normal = self.norm.group(x.clone(), group(channels));
        let (qkv, heads) = (self.qkv.forward(normal, pass), channels / HEAD_WIDTH);
        let mixed = kernels::attention(qkv, heads, pass.matmul_precision());
        kernels::scaled_sum(x, self.proj.forward(mixed, pass), FRAC_1_SQRT_2)
    }
}

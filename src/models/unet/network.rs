//! The whole network: a U-shape in which every block on the way up sees what one on the way down
//! has left.
//!
//! Source: Ho et al., "Denoising Diffusion Probabilistic Models", NeurIPS 2020, arXiv 2006.11239,
//! appendix B, with the blocks of arXiv 2105.05233. Knows nothing of noise levels or losses.

use burn::module::Module;
use burn::tensor::{DType, Device, Int, Tensor, activation};

use super::blocks::{Residual, group};
use super::config::UnetConfig;
use crate::architecture::ConfigError;
use crate::kernels;
use crate::nn::{Conv2d, Norm, Pass, TimeEmbedding};

/// The U-Net. Field names are the parameter names in checkpoints.
#[derive(Module, Debug)]
pub struct Unet {
    pub time: TimeEmbedding,
    pub stem: Conv2d,
    /// Finest resolution first.
    pub down: Vec<Vec<Residual>>,
    pub middle: Residual,
    /// Coarsest resolution first.
    pub up: Vec<Vec<Residual>>,
    pub head_norm: Norm,
    pub head: Conv2d,
}

impl UnetConfig {
    /// The network with every parameter at zero, for
    /// [`load_state_dict`](crate::nn::load_state_dict) or [`initialize`](crate::nn::initialize) to fill.
    /// Parameters take no memory before that.
    ///
    /// # Errors
    /// A shape that [`validate`](UnetConfig::validate) refuses.
    pub fn skeleton(&self, device: &Device) -> Result<Unet, ConfigError> {
        self.validate()?;
        let (dims, time_dim) = (self.dims(), self.time_dim());
        let last = dims.len() - 1;
        let block = |inputs, outputs, attention| {
            Residual::new(inputs, outputs, time_dim, attention, device)
        };
        let mut now = self.dim;
        let mut kept = vec![now]; // channels of what the way down leaves for the way up

        let mut down = Vec::with_capacity(dims.len());
        for (level, dim) in dims.iter().copied().enumerate() {
            let mut blocks = Vec::with_capacity(self.depth);
            for _ in 0..self.depth {
                blocks.push(block(now, dim, self.has_attention(level)));
                now = dim;
                kept.push(now);
            }
            down.push(blocks);
            if level < last {
                kept.push(now); // after the pooling
            }
        }

        let middle = block(now, now, true);

        let mut up = Vec::with_capacity(dims.len());
        for (level, dim) in dims.iter().copied().enumerate().rev() {
            let mut blocks = Vec::with_capacity(self.depth + 1);
            for _ in 0..=self.depth {
                let skip = kept.pop().unwrap_or_default();
                blocks.push(block(now + skip, dim, self.has_attention(level)));
                now = dim;
            }
            up.push(blocks);
        }

        Ok(Unet {
            time: TimeEmbedding::new(
                self.dim,
                time_dim,
                self.num_classes,
                self.augment_labels,
                device,
            ),
            stem: Conv2d::new(self.channels, self.dim, 3, 1, device),
            down,
            middle,
            up,
            head_norm: Norm::new(now, device),
            head: Conv2d::new(now, self.channels, 3, 1, device),
        })
    }
}

impl Unet {
    /// `x [batch, channels, size, size]`, `c_noise [batch]`, `label [batch]` (a class, or the
    /// number of classes for "no class", as `None` does) to `[batch, channels, size, size]`.
    /// Computes in the weights' number format; input and output are `f32`.
    pub fn forward(
        &self,
        x: Tensor<4>,
        c_noise: Tensor<1>,
        label: Option<Tensor<1, Int>>,
        pass: &Pass,
    ) -> Tensor<4> {
        let embedding = activation::silu(self.time.forward(c_noise, label, pass)); // [batch, time_dim]
        let x = x.cast(self.stem.weight.val().dtype());
        let mut x = self.stem.forward(x.permute([0, 2, 3, 1]), pass); // [batch, size, size, dim]

        let mut kept = vec![x.clone()];
        for (level, blocks) in self.down.iter().enumerate() {
            if level > 0 {
                x = kernels::average_pool(x);
                kept.push(x.clone());
            }
            for block in blocks {
                x = block.forward(x, embedding.clone(), pass);
                kept.push(x.clone());
            }
        }

        x = self.middle.forward(x, embedding.clone(), pass);

        for (level, blocks) in self.up.iter().enumerate() {
            if level > 0 {
                x = kernels::upsample(x);
            }
            for block in blocks {
                if let Some(skip) = kept.pop() {
                    x = kernels::concat(x, skip);
                }
                x = block.forward(x, embedding.clone(), pass);
            }
        }

        let group = group(x.dims()[3]);
        self.head
            .forward(self.head_norm.group_silu(x, group), pass)
            .permute([0, 3, 1, 2])
            .cast(DType::F32)
    }
}

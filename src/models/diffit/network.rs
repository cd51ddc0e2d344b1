//! The whole network: a U-shape of residual blocks around a time token.
//!
//! Source: DiffiT (arXiv 2312.02139), section 3.2 and figure 3. Knows nothing of noise levels or
//! losses.

use burn::module::Module;
use burn::tensor::{DType, Device, Int, Tensor};

use super::blocks::ResBlock;
use super::config::{CHANNELS_PER_GROUP, DiffitConfig};
use crate::architecture::ConfigError;
use crate::kernels;
use crate::nn::{Conv2d, Norm, Pass, TimeEmbedding};

/// U-shaped DiffiT in image space. Field names are the parameter names in checkpoints.
#[derive(Module, Debug)]
pub struct Diffit {
    pub time: TimeEmbedding,
    pub tokenizer: Conv2d,
    pub encoder: Vec<Vec<ResBlock>>,
    pub down: Vec<Conv2d>,
    pub middle: Vec<ResBlock>,
    pub up: Vec<Conv2d>,
    pub merge: Vec<Conv2d>,
    pub decoder: Vec<Vec<ResBlock>>,
    pub head_norm: Norm,
    pub head: Conv2d,
}

impl DiffitConfig {
    /// The network with every parameter at zero, for [`load_state_dict`](crate::nn::load_state_dict) or
    /// [`initialize`](crate::nn::initialize) to fill. Parameters take no memory before that.
    ///
    /// # Errors
    /// A shape that [`validate`](DiffitConfig::validate) refuses.
    pub fn skeleton(&self, device: &Device) -> Result<Diffit, ConfigError> {
        self.validate()?;
        let (dims, time_dim) = (self.dims(), self.time_dim());
        let last = dims.len() - 1;
        let blocks = |level: usize| -> Vec<ResBlock> {
            let (dim, window) = (dims[level], self.window_at(level));
            (0..self.depths[level])
                .map(|_| ResBlock::new(dim, time_dim, self.heads, window, device))
                .collect()
        };
        let conv =
            |inputs, outputs, kernel, stride| Conv2d::new(inputs, outputs, kernel, stride, device);
        Ok(Diffit {
            time: TimeEmbedding::new(
                self.dim,
                time_dim,
                self.num_classes,
                self.augment_labels,
                device,
            ),
            tokenizer: conv(self.channels, dims[0], 3, 1),
            encoder: (0..last).map(blocks).collect(),
            down: (0..last).map(|i| conv(dims[i], dims[i + 1], 3, 2)).collect(),
            middle: blocks(last),
            up: (0..last).map(|i| conv(dims[i + 1], dims[i], 3, 1)).collect(),
            merge: (0..last).map(|i| conv(2 * dims[i], dims[i], 1, 1)).collect(),
            decoder: (0..last).map(blocks).collect(),
            head_norm: Norm::new(dims[0], device),
            head: conv(dims[0], self.channels, 3, 1),
        })
    }
}

impl Diffit {
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
        let t = self.time.forward(c_noise, label, pass); // [batch, time_dim]
        let x = x.cast(self.tokenizer.weight.val().dtype());
        let mut x = self.tokenizer.forward(x.permute([0, 2, 3, 1]), pass); // [batch, size, size, dim]

        let mut skips = Vec::with_capacity(self.down.len());
        for (blocks, down) in self.encoder.iter().zip(&self.down) {
            x = run(blocks, x, &t, pass);
            skips.push(x.clone());
            x = down.forward(x, pass); // half the side
        }

        x = run(&self.middle, x, &t, pass);

        for (i, skip) in skips.into_iter().enumerate().rev() {
            x = self.up[i].forward_upsampled(x, pass);
            x = self.merge[i].forward(kernels::concat(x, skip), pass);
            x = run(&self.decoder[i], x, &t, pass);
        }

        self.head
            .forward(self.head_norm.group_silu(x, CHANNELS_PER_GROUP), pass)
            .permute([0, 3, 1, 2])
            .cast(DType::F32)
    }
}

fn run(blocks: &[ResBlock], x: Tensor<4>, t: &Tensor<2>, pass: &Pass) -> Tensor<4> {
    blocks.iter().fold(x, |x, block| block.forward(x, t.clone(), pass))
}

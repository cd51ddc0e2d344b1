//! DiffiT's building blocks: the time token, time-dependent self-attention in windows, the residual
//! block.
//!
//! Source: Hatamizadeh et al., "DiffiT: Diffusion Vision Transformers for Image Generation", ECCV
//! 2024, arXiv 2312.02139, section 3. Knows nothing of how the blocks are arranged.

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor, TensorData, activation};

use super::config::CHANNELS_PER_GROUP;
use super::layers::{Conv2d, Embedding, Linear, Norm, Projection, parameter};
use super::pass::Pass;
use crate::kernels;

/// Turns the noise level, and a class if there are any, into the time token.
#[derive(Module, Debug)]
pub struct TimeEmbedding {
    pub fc1: Linear,
    pub fc2: Linear,
    /// One row for each class, and a last one for "no class".
    pub label: Option<Embedding>,
    dim: usize,
    num_classes: usize,
}

impl TimeEmbedding {
    pub(crate) fn new(dim: usize, time_dim: usize, num_classes: usize, device: &Device) -> Self {
        Self {
            fc1: Linear::new(dim, time_dim, device),
            fc2: Linear::new(time_dim, time_dim, device),
            label: (num_classes > 0).then(|| Embedding::new(num_classes + 1, time_dim, device)),
            dim,
            num_classes,
        }
    }

    /// `c_noise [batch]`, `label [batch]` to the token `[batch, time_dim]`. Without a label every
    /// image is of no class; a network without classes ignores labels.
    pub fn forward(
        &self,
        c_noise: Tensor<1>,
        label: Option<Tensor<1, Int>>,
        pass: &Pass,
    ) -> Tensor<2> {
        let [batch] = c_noise.dims();
        let device = c_noise.device();
        let half = self.dim / 2;
        let ln_period = 10_000f64.ln() as f32;
        let freqs: Vec<f32> =
            (0..half).map(|i| (-ln_period * i as f32 / half as f32).exp()).collect();
        let freqs = Tensor::<2>::from_data(TensorData::new(freqs, [1, half]), &device);
        let angle = within_one_turn(c_noise.reshape([batch, 1]) * 1000.0 * freqs); // [batch, dim / 2]
        let waves = Tensor::cat(vec![angle.clone().cos(), angle.sin()], 1); // [batch, dim]
        let waves = waves.cast(self.fc1.weight.val().dtype());
        let token = self.fc2.forward(activation::silu(self.fc1.forward(waves, pass)), pass); // [batch, time_dim]
        match &self.label {
            None => token,
            Some(table) => {
                let none = || Tensor::full([batch], self.num_classes as i64, &device);
                token + table.forward(label.unwrap_or_else(none))
            }
        }
    }
}

/// The same angle within ±π: some GPUs' sine and cosine are not accurate for angles of many turns.
fn within_one_turn(angle: Tensor<2>) -> Tensor<2> {
    // 2π in two parts (Cody and Waite): the first has so few bits that `turns` times it is exact.
    const TURN_HIGH: f64 = 6.28125;
    const TURN_LOW: f64 = std::f64::consts::TAU - TURN_HIGH;
    let turns = (angle.clone() * (1.0 / std::f64::consts::TAU)).round();
    angle - turns.clone() * TURN_HIGH - turns * TURN_LOW
}

/// Time-dependent multi-head self-attention in windows (equations 3 to 6): queries, keys and values
/// are sums of a projection of the pixel and one of the time token; a learnt bias depends on the
/// relative position.
#[derive(Module, Debug)]
pub struct Tmsa {
    pub qkv_s: Projection,
    pub qkv_t: Projection,
    pub proj: Linear,
    /// `[(2 window - 1)², heads]`, indexed by the vertical, then the horizontal distance from key
    /// to query.
    pub bias_table: Param<Tensor<2>>,
    heads: usize,
    window: usize,
}

impl Tmsa {
    pub(super) fn new(
        dim: usize,
        time_dim: usize,
        heads: usize,
        window: usize,
        device: &Device,
    ) -> Self {
        Self {
            qkv_s: Projection::new(dim, 3 * dim, device),
            qkv_t: Projection::new(time_dim, 3 * dim, device),
            proj: Linear::new(dim, dim, device),
            bias_table: parameter([(2 * window - 1).pow(2), heads], device),
            heads,
            window,
        }
    }

    /// `x [batch, h, w, dim]`, `t [batch, time_dim]` to `[batch, h, w, dim]`.
    pub fn forward(&self, x: Tensor<4>, t: Tensor<2>, pass: &Pass) -> Tensor<4> {
        let qkv = self.qkv_s.forward(x, pass); // [batch, h, w, 3 dim]
        let qkv_t = self.qkv_t.forward(t, pass); // [batch, 3 dim]
        let mixed =
            kernels::window_attention(qkv, qkv_t, self.bias_table.val(), self.heads, self.window);
        self.proj.forward(mixed, pass)
    }
}

/// Transformer block: attention and a perceptron, each with a layer norm in front and a residual
/// around.
#[derive(Module, Debug)]
pub struct DiffitBlock {
    pub norm1: Norm,
    pub attn: Tmsa,
    pub norm2: Norm,
    pub fc1: Linear,
    pub fc2: Linear,
}

impl DiffitBlock {
    fn new(dim: usize, time_dim: usize, heads: usize, window: usize, device: &Device) -> Self {
        Self {
            norm1: Norm::new(dim, device),
            attn: Tmsa::new(dim, time_dim, heads, window, device),
            norm2: Norm::new(dim, device),
            fc1: Linear::new(dim, 4 * dim, device),
            fc2: Linear::new(4 * dim, dim, device),
        }
    }

    /// `x [batch, h, w, dim]`, `t [batch, time_dim]` to `[batch, h, w, dim]`.
    pub fn forward(&self, x: Tensor<4>, t: Tensor<2>, pass: &Pass) -> Tensor<4> {
        let x = x.clone() + self.attn.forward(self.norm1.layer(x), t, pass);
        let normal = self.norm2.layer(x.clone());
        let (fc1, fc2) = (&self.fc1, &self.fc2);
        if pass.drops() {
            return x + fc2.forward(kernels::gelu(fc1.forward(normal, pass)), pass);
        }
        x + kernels::mlp(
            normal,
            [fc1.weight.val(), fc2.weight.val()],
            [fc1.bias.val(), fc2.bias.val()],
        )
    }
}

/// DiffiT's residual block (section 3.2): `x + DiffitBlock(Conv3x3(Swish(GroupNorm(x))), t)`.
#[derive(Module, Debug)]
pub struct ResBlock {
    pub norm: Norm,
    pub conv: Conv2d,
    pub block: DiffitBlock,
}

impl ResBlock {
    pub(super) fn new(
        dim: usize,
        time_dim: usize,
        heads: usize,
        window: usize,
        device: &Device,
    ) -> Self {
        Self {
            norm: Norm::new(dim, device),
            conv: Conv2d::new(dim, dim, 3, 1, device),
            block: DiffitBlock::new(dim, time_dim, heads, window, device),
        }
    }

    /// `x [batch, h, w, dim]`, `t [batch, time_dim]` to `[batch, h, w, dim]`.
    pub fn forward(&self, x: Tensor<4>, t: Tensor<2>, pass: &Pass) -> Tensor<4> {
        let h = self.conv.forward(self.norm.group_silu(x.clone(), CHANNELS_PER_GROUP));
        x + self.block.forward(h, t, pass)
    }
}

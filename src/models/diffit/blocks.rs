//! DiffiT's building blocks: time-dependent self-attention in windows, the residual block.
//!
//! Source: Hatamizadeh et al., "DiffiT: Diffusion Vision Transformers for Image Generation", ECCV
//! 2024, arXiv 2312.02139, section 3. Knows nothing of how the blocks are arranged.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use super::config::CHANNELS_PER_GROUP;
use crate::kernels::{self, Skip};
use crate::nn::{Conv2d, Linear, Norm, Pass, Projection, parameter};

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

    /// `x [batch, h, w, dim]`, `t [batch, time_dim]` to `[batch, h, w, dim]`, and the sum of that
    /// and what `skip` brings.
    pub fn forward(&self, x: Tensor<4>, t: Tensor<2>, skip: Skip, pass: &Pass) -> Tensor<4> {
        let qkv = self.qkv_s.forward(x, pass); // [batch, h, w, 3 dim]
        let qkv_t = self.qkv_t.forward(t, pass); // [batch, 3 dim]
        let (table, precision) = (self.bias_table.val(), pass.matmul_precision());
        let mixed =
            kernels::window_attention(qkv, qkv_t, table, self.heads, self.window, precision);
        self.proj.forward_and_skip(mixed, skip, pass)
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

    /// `x [batch, h, w, dim]`, `t [batch, time_dim]` to `[batch, h, w, dim]`, and the sum of that
    /// and what `skip` brings.
    pub fn forward(&self, x: Tensor<4>, t: Tensor<2>, skip: Skip, pass: &Pass) -> Tensor<4> {
        let (normal, past) = self.norm1.layer_and_skip(x);
        let x = self.attn.forward(normal, t, past, pass);
        let (normal, past) = self.norm2.layer_and_skip(x);
        let (fc1, fc2) = (&self.fc1, &self.fc2);
        if pass.drops() || pass.drops_features() {
            let hidden = pass.drop_features(kernels::gelu(fc1.forward(normal, pass)));
            return skip.added_to(past.added_to(fc2.forward(hidden, pass)));
        }
        kernels::mlp_and_skips(
            normal,
            [fc1.weight.val(), fc2.weight.val()],
            [fc1.bias.val(), fc2.bias.val()],
            [past, skip],
            pass.matmul_precision(),
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
        let (normal, past) = self.norm.group_silu_and_skip(x, CHANNELS_PER_GROUP);
        let h = self.conv.forward(normal, pass);
        self.block.forward(h, t, past, pass)
    }
}

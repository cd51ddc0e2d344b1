//! The building blocks on burn's CPU backend, each as one pass over slices with a gradient written
//! by hand.
//!
//! Same results as [`generic`](super::generic) to rounding, in a fraction of its time and memory:
//! see `docs/performance.md`. Every function returns `None` for tensors that are not `f32` in host
//! memory.

mod attention;
mod autodiff_op;
#[cfg(target_arch = "x86_64")]
mod bf16;
mod conv;
mod fresh;
mod im2col;
mod linear;
mod math;
mod matmul;
mod mlp;
mod norm;
mod padded;
mod partition;
mod product;
mod resize;
mod simd;
mod taps;
mod update;
mod upsample_conv;

use burn::tensor::{Device, Tensor};

use super::dispatch::with_weights;
use autodiff_op::{applies, apply};
pub use matmul::MatmulPrecision;
pub use simd::{MatrixView, WriteMode, gemm, with_simd};
pub use update::AdamWStep;
pub(super) use update::{adamw, blend};

pub(super) fn in_host_memory(tensor: &Tensor<1>) -> bool {
    applies(tensor)
}

pub(super) fn is_cpu(device: &Device) -> bool {
    autodiff_op::on_cpu(device)
}

/// Whether burn's CPU backend computes with a tensor, in whatever number format.
pub(super) fn on_cpu<const D: usize>(tensor: &Tensor<D>) -> bool {
    autodiff_op::on_cpu(&tensor.device())
}

pub(super) fn linear<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<2>,
    bias: Option<&Tensor<1>>,
    precision: MatmulPrecision,
) -> Option<Tensor<D>> {
    applies(x).then(|| {
        let [outputs, inputs] = weight.dims();
        let mut shape = x.dims();
        shape[D - 1] = outputs;
        let kernel = linear::Linear { shape: shape.into(), inputs, outputs, precision };
        let (x, weight) = (x.clone().into_dispatch(), weight.clone().into_dispatch());
        match bias {
            Some(bias) => apply(kernel, [x, weight, bias.clone().into_dispatch()]),
            None => apply(kernel, [x, weight]),
        }
    })
}

pub(super) fn conv2d(
    x: &Tensor<4>,
    weight: &Tensor<4>,
    bias: &Tensor<1>,
    stride: usize,
    precision: MatmulPrecision,
) -> Option<Tensor<4>> {
    applies(x).then(|| {
        let [batch, height, width, inputs] = x.dims();
        let [outputs, _, kernel, _] = weight.dims();
        let patches = im2col::Patches::padded([height, width, inputs], kernel, stride);
        let kernel = conv::Conv { batch, outputs, patches, precision };
        apply(kernel, with_weights(x, weight, bias))
    })
}

pub(super) fn layer_norm(x: &Tensor<4>, weight: &Tensor<1>, bias: &Tensor<1>) -> Option<Tensor<4>> {
    applies(x).then(|| {
        let kernel = norm::LayerNorm { shape: x.shape(), channels: x.dims()[3] };
        apply(kernel, with_weights(x, weight, bias))
    })
}

pub(super) fn group_norm<const SILU: bool, const D: usize>(
    x: &Tensor<4>,
    weight: &Tensor<D>,
    bias: &Tensor<D>,
    group: usize,
) -> Option<Tensor<4>> {
    applies(x).then(|| {
        let [batch, _, _, channels] = x.dims();
        let kernel = norm::GroupNorm::<SILU> { shape: x.shape(), batch, channels, group };
        apply(kernel, with_weights(x, weight, bias))
    })
}

pub(super) fn mlp(
    x: &Tensor<4>,
    [w1, w2]: [&Tensor<2>; 2],
    [b1, b2]: [&Tensor<1>; 2],
    precision: MatmulPrecision,
) -> Option<Tensor<4>> {
    applies(x).then(|| {
        let [hidden, width] = w1.dims();
        let kernel = mlp::Mlp { shape: x.shape(), width, hidden, precision };
        let [w1, w2] = [w1, w2].map(|w| w.clone().into_dispatch());
        let [b1, b2] = [b1, b2].map(|b| b.clone().into_dispatch());
        apply(kernel, [x.clone().into_dispatch(), w1, b1, w2, b2])
    })
}

pub(super) fn window_attention(
    qkv: &Tensor<4>,
    qkv_t: &Tensor<2>,
    bias_table: &Tensor<2>,
    heads: usize,
    window: usize,
    precision: MatmulPrecision,
) -> Option<Tensor<4>> {
    applies(qkv).then(|| {
        let [batch, height, width, channels] = qkv.dims();
        let kernel = attention::Attention {
            batch,
            height,
            width,
            dim: channels / 3,
            heads,
            window,
            precision,
        };
        let inputs = [
            qkv.clone().into_dispatch(),
            qkv_t.clone().into_dispatch(),
            bias_table.clone().into_dispatch(),
        ];
        apply(kernel, inputs)
    })
}

/// One window, and nothing added to queries, keys and scores.
pub(super) fn attention(
    qkv: &Tensor<4>,
    heads: usize,
    precision: MatmulPrecision,
) -> Option<Tensor<4>> {
    let ([batch, side, _, channels], device) = (qkv.dims(), qkv.device());
    let token = || Tensor::zeros([batch, channels], &device);
    let table = || Tensor::zeros([(2 * side - 1).pow(2), heads], &device);
    applies(qkv)
        .then(|| window_attention(qkv, &token(), &table(), heads, side, precision))
        .flatten()
}

pub(super) fn upsample_conv2d(
    x: &Tensor<4>,
    weight: &Tensor<4>,
    bias: &Tensor<1>,
    precision: MatmulPrecision,
) -> Option<Tensor<4>> {
    applies(x).then(|| {
        let [batch, height, width, inputs] = x.dims();
        let kernel = upsample_conv::UpsampleConv {
            batch,
            height,
            width,
            inputs,
            outputs: weight.dims()[0],
            precision,
        };
        apply(kernel, with_weights(x, weight, bias))
    })
}

pub(super) fn average_pool(x: &Tensor<4>) -> Option<Tensor<4>> {
    let kernel = resize::AveragePool { input: x.dims() };
    applies(x).then(|| apply(kernel, [x.clone().into_dispatch()]))
}

pub(super) fn upsample(x: &Tensor<4>) -> Option<Tensor<4>> {
    let kernel = resize::Upsample { input: x.dims() };
    applies(x).then(|| apply(kernel, [x.clone().into_dispatch()]))
}

pub(super) fn concat(a: &Tensor<4>, b: &Tensor<4>) -> Option<Tensor<4>> {
    (applies(a) && applies(b)).then(|| {
        let ([batch, height, width, left], [.., right]) = (a.dims(), b.dims());
        let shape = [batch, height, width, left + right].into();
        let kernel = resize::Concat { shape, left, right };
        apply(kernel, [a.clone().into_dispatch(), b.clone().into_dispatch()])
    })
}

pub(super) fn scaled_sum(a: &Tensor<4>, b: &Tensor<4>, scale: f64) -> Option<Tensor<4>> {
    (applies(a) && applies(b)).then(|| {
        let kernel = resize::ScaledSum { shape: a.shape(), scale: scale as f32 };
        apply(kernel, [a.clone().into_dispatch(), b.clone().into_dispatch()])
    })
}

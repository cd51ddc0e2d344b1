//! The building blocks on a GPU, as kernels of their own.
//!
//! Same results as [`generic`](super::generic) to rounding, with few launches and little memory
//! traffic. Every function returns `None` for tensors that are not floats of a GPU. Kernels use
//! shared memory and barriers of a workgroup and nothing else, so that they run on every adapter,
//! and in one order, so that two processes get the same bits.

mod attention;
mod autodiff_op;
mod columns;
mod conv;
mod group_norm;
mod launch;
mod layer_norm;
mod linear;
mod long_array;
mod mlp;
mod product;
mod resize;
mod sum;
#[cfg(test)]
mod tests;

use burn::backend::DispatchTensor;
use burn::tensor::{DType, Tensor};

use super::dispatch::with_weights;
pub(super) use autodiff_op::Waiting;
use autodiff_op::{applies, apply};

/// Matrix products are ours in f32 only: the compute runtime has 16-bit ones on tensor cores.
fn is_f32<const D: usize>(tensor: &Tensor<D>) -> bool {
    applies(tensor) && tensor.dtype() == DType::F32
}

pub(super) fn linear<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<2>,
    bias: Option<&Tensor<1>>,
) -> Option<Tensor<D>> {
    is_f32(x).then(|| {
        let [outputs, inputs] = weight.dims();
        let mut shape = x.dims();
        shape[D - 1] = outputs;
        let kernel = linear::Linear { shape: shape.into(), inputs, outputs, skips: vec![] };
        let (x, weight) = (x.clone().into_dispatch(), weight.clone().into_dispatch());
        match bias {
            Some(bias) => apply(kernel, [x, weight, bias.clone().into_dispatch()]),
            None => apply(kernel, [x, weight]),
        }
    })
}

/// [`linear`] with an array of the result's shape added to it, whose gradient is left where it waits.
pub(super) fn linear_and_skip(
    x: &Tensor<4>,
    weight: &Tensor<2>,
    bias: &Tensor<1>,
    (plus, waiting): (DispatchTensor, Waiting),
) -> Option<Tensor<4>> {
    is_f32(x).then(|| {
        let ([batch, height, width, _], [outputs, inputs]) = (x.dims(), weight.dims());
        let (shape, skips) = ([batch, height, width, outputs].into(), vec![waiting]);
        let kernel = linear::Linear { shape, inputs, outputs, skips };
        let [x, weight, bias] = with_weights(x, weight, bias);
        apply(kernel, [x, weight, bias, plus])
    })
}

/// [`mlp`] with two arrays of its shape added to it, whose gradients are left where they wait.
pub(super) fn mlp_and_skips(
    x: &Tensor<4>,
    [w1, w2]: [&Tensor<2>; 2],
    [b1, b2]: [&Tensor<1>; 2],
    [(plus, first), (too, second)]: [(DispatchTensor, Waiting); 2],
) -> Option<Tensor<4>> {
    is_f32(x).then(|| {
        let kernel = mlp::Mlp { skips: vec![first, second], ..perceptron(x, w1) };
        let [w1, w2] = [w1, w2].map(|w| w.clone().into_dispatch());
        let [b1, b2] = [b1, b2].map(|b| b.clone().into_dispatch());
        apply(kernel, [x.clone().into_dispatch(), w1, b1, w2, b2, plus, too])
    })
}

fn perceptron(x: &Tensor<4>, w1: &Tensor<2>) -> mlp::Mlp {
    let [hidden, width] = w1.dims();
    mlp::Mlp { shape: x.shape(), width, hidden, dtype: x.dtype(), skips: vec![] }
}

pub(super) fn mlp(
    x: &Tensor<4>,
    [w1, w2]: [&Tensor<2>; 2],
    [b1, b2]: [&Tensor<1>; 2],
) -> Option<Tensor<4>> {
    is_f32(x).then(|| {
        let kernel = perceptron(x, w1);
        let [w1, w2] = [w1, w2].map(|w| w.clone().into_dispatch());
        let [b1, b2] = [b1, b2].map(|b| b.clone().into_dispatch());
        apply(kernel, [x.clone().into_dispatch(), w1, b1, w2, b2])
    })
}

pub(super) fn conv2d(
    x: &Tensor<4>,
    weight: &Tensor<4>,
    bias: &Tensor<1>,
    stride: usize,
) -> Option<Tensor<4>> {
    convolution(x, weight, bias, (stride, false))
}

pub(super) fn upsample_conv2d(
    x: &Tensor<4>,
    weight: &Tensor<4>,
    bias: &Tensor<1>,
) -> Option<Tensor<4>> {
    convolution(x, weight, bias, (1, true))
}

fn convolution(
    x: &Tensor<4>,
    weight: &Tensor<4>,
    bias: &Tensor<1>,
    (stride, doubled): (usize, bool),
) -> Option<Tensor<4>> {
    applies(x).then(|| {
        let [batch, height, width, inputs] = x.dims();
        let [outputs, _, kernel, _] = weight.dims();
        let dtype = x.dtype();
        let kernel =
            conv::Conv { batch, height, width, inputs, outputs, kernel, stride, doubled, dtype };
        apply(kernel, with_weights(x, weight, bias))
    })
}

pub(super) fn window_attention(
    qkv: &Tensor<4>,
    qkv_t: &Tensor<2>,
    bias_table: &Tensor<2>,
    heads: usize,
    window: usize,
) -> Option<Tensor<4>> {
    let kernel = attention_kernel(qkv, heads, window, true)?;
    let (qkv_t, bias_table) = (qkv_t.clone().into_dispatch(), bias_table.clone().into_dispatch());
    Some(apply(kernel, [qkv.clone().into_dispatch(), qkv_t, bias_table]))
}

pub(super) fn attention(qkv: &Tensor<4>, heads: usize) -> Option<Tensor<4>> {
    let kernel = attention_kernel(qkv, heads, qkv.dims()[1], false)?;
    Some(apply(kernel, [qkv.clone().into_dispatch()]))
}

fn attention_kernel(
    qkv: &Tensor<4>,
    heads: usize,
    window: usize,
    biased: bool,
) -> Option<attention::Attention> {
    let kernel = || attention::Attention::new(qkv.dims(), qkv.dtype(), heads, window, biased);
    applies(qkv).then(kernel)?
}

pub(super) fn layer_norm(
    x: &Tensor<4>,
    weight: &Tensor<1>,
    bias: &Tensor<1>,
    waiting: Option<&Waiting>,
) -> Option<Tensor<4>> {
    let (shape, channels, waiting) = (x.shape(), x.dims()[3], waiting.cloned());
    let kernel = layer_norm::LayerNorm { shape, channels, waiting };
    (applies(x) && kernel.channels <= layer_norm::LayerNorm::MOST_CHANNELS)
        .then(|| apply(kernel, with_weights(x, weight, bias)))
}

pub(super) fn group_norm<const SILU: bool, const D: usize>(
    x: &Tensor<4>,
    weight: &Tensor<D>,
    bias: &Tensor<D>,
    group: usize,
    waiting: Option<&Waiting>,
) -> Option<Tensor<4>> {
    let (shape, waiting) = (x.dims(), waiting.cloned());
    let own_rows = weight.shape().num_elements() > shape[3];
    let kernel = group_norm::GroupNorm { shape, group, own_rows, silu: SILU, waiting };
    (applies(x) && group <= group_norm::GroupNorm::MOST_GROUPED)
        .then(|| apply(kernel, with_weights(x, weight, bias)))
}

pub(super) fn average_pool(x: &Tensor<4>) -> Option<Tensor<4>> {
    let kernel = resize::Resize::Halved(x.dims());
    applies(x).then(|| apply(kernel, [x.clone().into_dispatch()]))
}

pub(super) fn upsample(x: &Tensor<4>) -> Option<Tensor<4>> {
    let kernel = resize::Resize::Doubled(x.dims());
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

pub(super) fn join(rows: &[Tensor<1>], starts: &[usize], length: usize) -> Option<Tensor<1>> {
    applies(rows.first()?).then(|| long_array::join(rows.to_vec(), starts, length))
}

pub(super) fn parts(long: &Tensor<1>, places: &[(usize, usize)]) -> Option<Vec<Tensor<1>>> {
    applies(long).then(|| long_array::parts(long, places))
}

pub(super) fn sum(x: &Tensor<1>) -> Option<Tensor<1>> {
    let kernel = sum::Sum { numbers: x.dims()[0], dtype: x.dtype() };
    applies(x).then(|| apply(kernel, [x.clone().into_dispatch()]))
}

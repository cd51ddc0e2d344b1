//! The numeric building blocks of the network, as plain functions on tensors.
//!
//! Images are `[batch, height, width, channels]`: a pixel's channels lie together, so that
//! convolution, norms, projections and attention all work on rows of channels, and nothing is
//! transposed between them. Each function takes the fused CPU kernel where the numbers are in host
//! memory, and burn's own operations elsewhere.
//!
//! Knows nothing of modules or parameter names.

#[cfg(test)]
mod bf16_tests;
mod definitions;
mod dispatch;
#[cfg(test)]
mod equivalence_tests;
mod fused;
mod generic;
#[cfg(feature = "wgpu")]
mod gpu;
#[cfg(test)]
mod gradcheck_tests;
mod skip;

use burn::tensor::{Device, Tensor};
pub use definitions::NORM_EPSILON;
pub use fused::{AdamWStep, MatmulPrecision, MatrixView, WriteMode, gemm, with_simd};
use pipe_core::threads::STACK_SIZE;
pub use skip::Skip;

/// The first form that applies: fused for the CPU, kernels of our own for a GPU, burn's operations.
macro_rules! first_of {
    ($fused:expr, $gpu:expr, $generic:expr $(,)?) => {{
        if let Some(made) = $fused {
            return made;
        }
        #[cfg(feature = "wgpu")]
        if let Some(made) = $gpu {
            return made;
        }
        $generic
    }};
}

/// `x Wᵀ + b`: `x [.., in]`, `weight [out, in]`, `bias [out]` to `[.., out]`.
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    precision: MatmulPrecision,
) -> Tensor<D> {
    first_of!(
        fused::linear(&x, &weight, bias.as_ref(), precision),
        gpu::linear(&x, &weight, bias.as_ref()),
        generic::linear(x, weight, bias),
    )
}

/// [`linear`] with a bias, and the sum of that and what `skip` brings.
pub fn linear_and_skip(
    x: Tensor<4>,
    weight: Tensor<2>,
    bias: Tensor<1>,
    skip: Skip,
    precision: MatmulPrecision,
) -> Tensor<4> {
    #[cfg(feature = "wgpu")]
    if let Some(past) = skip.past_autodiff()
        && let Some(made) = gpu::linear_and_skip(&x, &weight, &bias, past)
    {
        return made;
    }
    skip.added_to(linear(x, weight, Some(bias), precision))
}

/// Convolution with zero padding of half the kernel: `x [batch, h, w, in]`, `weight [out, in,
/// kernel, kernel]`, `bias [out]` to `[batch, h / stride, w / stride, out]`.
pub fn conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Tensor<1>,
    stride: usize,
    precision: MatmulPrecision,
) -> Tensor<4> {
    let [outputs, inputs, kernel, _] = weight.dims();
    if kernel == 1 && stride == 1 {
        return linear(x, weight.reshape([outputs, inputs]), Some(bias), precision);
    }
    first_of!(
        fused::conv2d(&x, &weight, &bias, stride, precision),
        gpu::conv2d(&x, &weight, &bias, stride),
        generic::conv2d(x, weight, bias, stride),
    )
}

/// Layer norm over the last axis: `x [.., channels]`, `weight [channels]`, `bias [channels]`.
pub fn layer_norm(x: Tensor<4>, weight: Tensor<1>, bias: Tensor<1>) -> Tensor<4> {
    first_of!(
        fused::layer_norm(&x, &weight, &bias),
        gpu::layer_norm(&x, &weight, &bias, None),
        generic::layer_norm(x, weight, bias),
    )
}

/// [`layer_norm`], and `x` to be added to what is made of it.
pub fn layer_norm_and_skip(x: Tensor<4>, weight: Tensor<1>, bias: Tensor<1>) -> (Tensor<4>, Skip) {
    #[cfg(feature = "wgpu")]
    if let Some(made) =
        Skip::beside(&x, |waiting| gpu::layer_norm(&x, &weight, &bias, Some(waiting)))
    {
        return made;
    }
    (layer_norm(x.clone(), weight, bias), Skip::new(x))
}

/// Group norm (Wu and He 2018, arXiv 1803.08494) with `group` channels a group: `x [batch, h, w,
/// channels]`, `weight` and `bias` `[channels]`, or `[batch, channels]` for each image its own.
pub fn group_norm<const D: usize>(
    x: Tensor<4>,
    weight: Tensor<D>,
    bias: Tensor<D>,
    group: usize,
) -> Tensor<4> {
    first_of!(
        fused::group_norm::<false, D>(&x, &weight, &bias, group),
        gpu::group_norm::<false, D>(&x, &weight, &bias, group, None),
        generic::group_norm(x, weight, bias, group),
    )
}

/// Swish (x sigmoid x) of [`group_norm`].
pub fn group_norm_silu<const D: usize>(
    x: Tensor<4>,
    weight: Tensor<D>,
    bias: Tensor<D>,
    group: usize,
) -> Tensor<4> {
    first_of!(
        fused::group_norm::<true, D>(&x, &weight, &bias, group),
        gpu::group_norm::<true, D>(&x, &weight, &bias, group, None),
        generic::group_norm_silu(x, weight, bias, group),
    )
}

/// [`group_norm_silu`], and `x` to be added to what is made of it.
pub fn group_norm_silu_and_skip(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    group: usize,
) -> (Tensor<4>, Skip) {
    #[cfg(feature = "wgpu")]
    if let Some(made) = Skip::beside(&x, |waiting| {
        gpu::group_norm::<true, 1>(&x, &weight, &bias, group, Some(waiting))
    }) {
        return made;
    }
    (group_norm_silu(x.clone(), weight, bias, group), Skip::new(x))
}

/// A perceptron with one hidden layer and the exact GELU, x Φ(x): `x [.., width]`, weights
/// `[hidden, width]` and `[width, hidden]`, biases `[hidden]` and `[width]`, to `[.., width]`.
pub fn mlp(
    x: Tensor<4>,
    [w1, w2]: [Tensor<2>; 2],
    [b1, b2]: [Tensor<1>; 2],
    precision: MatmulPrecision,
) -> Tensor<4> {
    first_of!(
        fused::mlp(&x, [&w1, &w2], [&b1, &b2], precision),
        gpu::mlp(&x, [&w1, &w2], [&b1, &b2]),
        generic::mlp(x, [w1, w2], [b1, b2]),
    )
}

/// [`mlp`], and the sum of that and what both `skips` bring, the first one first.
pub fn mlp_and_skips(
    x: Tensor<4>,
    weights: [Tensor<2>; 2],
    biases: [Tensor<1>; 2],
    skips: [Skip; 2],
    precision: MatmulPrecision,
) -> Tensor<4> {
    #[cfg(feature = "wgpu")]
    if let [Some(first), Some(second)] = skips.each_ref().map(Skip::past_autodiff)
        && let Some(made) =
            gpu::mlp_and_skips(&x, weights.each_ref(), biases.each_ref(), [first, second])
    {
        return made;
    }
    let [first, second] = skips;
    second.added_to(first.added_to(mlp(x, weights, biases, precision)))
}

/// The exact GELU, x Φ(x), with its exact gradient.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    generic::gelu(x)
}

/// Self-attention within windows of `window`² pixels, with the time token's share added to queries,
/// keys and values, and a bias by relative position.
///
/// `qkv [batch, h, w, 3 dim]` (queries, keys, values, each split into heads), `qkv_t [batch, 3
/// dim]`, `bias_table [(2 window - 1)², heads]` to `[batch, h, w, dim]`.
pub fn window_attention(
    qkv: Tensor<4>,
    qkv_t: Tensor<2>,
    bias_table: Tensor<2>,
    heads: usize,
    window: usize,
    precision: MatmulPrecision,
) -> Tensor<4> {
    first_of!(
        fused::window_attention(&qkv, &qkv_t, &bias_table, heads, window, precision),
        gpu::window_attention(&qkv, &qkv_t, &bias_table, heads, window),
        generic::window_attention(qkv, qkv_t, bias_table, heads, window),
    )
}

/// Self-attention over all pixels of a square image: `qkv [batch, side, side, 3 dim]` (queries,
/// keys, values, each split into heads) to `[batch, side, side, dim]`.
pub fn attention(qkv: Tensor<4>, heads: usize, precision: MatmulPrecision) -> Tensor<4> {
    first_of!(
        fused::attention(&qkv, heads, precision),
        gpu::attention(&qkv, heads),
        generic::attention(qkv, heads),
    )
}

/// Every pixel as a square of four (nearest neighbour): `[batch, h, w, channels]` to `[batch, 2 h,
/// 2 w, channels]`.
pub fn upsample(x: Tensor<4>) -> Tensor<4> {
    first_of!(fused::upsample(&x), gpu::upsample(&x), generic::upsample(x))
}

/// Every square of four pixels as its mean: `[batch, h, w, channels]`, both sides even, to `[batch,
/// h / 2, w / 2, channels]`.
pub fn average_pool(x: Tensor<4>) -> Tensor<4> {
    first_of!(fused::average_pool(&x), gpu::average_pool(&x), generic::average_pool(x))
}

/// Two images side by side in their channels: `a [batch, h, w, left]`, `b [batch, h, w, right]` to
/// `[batch, h, w, left + right]`.
pub fn concat(a: Tensor<4>, b: Tensor<4>) -> Tensor<4> {
    first_of!(fused::concat(&a, &b), gpu::concat(&a, &b), generic::concat(a, b))
}

/// `(a + b) * scale` of two images of one shape: what joins a residual block to its input.
pub fn scaled_sum(a: Tensor<4>, b: Tensor<4>, scale: f64) -> Tensor<4> {
    fused::scaled_sum(&a, &b, scale).unwrap_or_else(|| generic::scaled_sum(a, b, scale))
}

/// The sum of all numbers of an array `[n]`, `[1]`, with the same bits every time, where the
/// device has a kernel for it.
pub fn sum(x: &Tensor<1>) -> Option<Tensor<1>> {
    #[cfg(feature = "wgpu")]
    return gpu::sum(x);
    #[cfg(not(feature = "wgpu"))]
    return None;
}

/// A row of numbers `[length]` made of `rows`, each from its place in `starts` on, in ascending
/// order, and zeros between them. All are without gradients of their own.
pub fn join(rows: Vec<Tensor<1>>, starts: &[usize], length: usize) -> Tensor<1> {
    #[cfg(feature = "wgpu")]
    if let Some(long) = gpu::join(&rows, starts, length) {
        return long;
    }
    generic::join(rows, starts, length)
}

/// Parts of a row of numbers without gradients of its own, each from a place on and so many. On a
/// GPU they are views of its memory where a buffer can begin there.
pub fn parts(long: &Tensor<1>, places: &[(usize, usize)]) -> Vec<Tensor<1>> {
    #[cfg(feature = "wgpu")]
    if let Some(parts) = gpu::parts(long, places) {
        return parts;
    }
    generic::parts(long, places)
}

/// [`conv2d`] with a 3x3 kernel of the image upsampled to twice its size (nearest neighbour):
/// `x [batch, h, w, in]`, `weight [out, in, 3, 3]`, `bias [out]` to `[batch, 2 h, 2 w, out]`.
pub fn upsample_conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Tensor<1>,
    precision: MatmulPrecision,
) -> Tensor<4> {
    first_of!(
        fused::upsample_conv2d(&x, &weight, &bias, precision),
        gpu::upsample_conv2d(&x, &weight, &bias),
        generic::upsample_conv2d(x, weight, bias),
    )
}

/// Whether a tensor's numbers are `f32` in host memory: [`adamw`] and [`blend`] work on those only.
pub fn in_host_memory(tensor: &Tensor<1>) -> bool {
    fused::in_host_memory(tensor)
}

/// Whether a device is the processor, with or without autodiff.
pub fn is_cpu(device: &Device) -> bool {
    fused::is_cpu(device)
}

/// One step of AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101, algorithm 2) on a parameter and
/// its two moments: four arrays `[n]` in host memory, without gradients of their own.
pub fn adamw(step: AdamWStep, arrays: [Tensor<1>; 3], gradient: &Tensor<1>) -> [Tensor<1>; 3] {
    fused::adamw(step, arrays, gradient)
}

/// `mean * decay + value * (1 - decay)`: two arrays `[n]` in host memory, without gradients of
/// their own.
pub fn blend(mean: Tensor<1>, value: &Tensor<1>, decay: f64) -> Tensor<1> {
    fused::blend(mean, value, decay)
}

/// Runs `work` on one of as many new threads as there are cores. The kernels that it calls share
/// out their tasks among these: nobody outside has to be woken up for each, and trainings side by
/// side never wait for each other's. On such a thread already, it stays there.
pub fn in_own_pool<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    if rayon::current_thread_index().is_some() {
        return work();
    }
    in_own_pool_of(None, work)
}

/// [`in_own_pool`] of so many threads, as many as there are cores if unset.
pub fn in_own_pool_of<R: Send>(threads: Option<usize>, work: impl FnOnce() -> R + Send) -> R {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads.unwrap_or(0))
        .thread_name(|i| format!("compute-{i}"))
        .stack_size(STACK_SIZE)
        .build();
    match pool {
        Ok(pool) => pool.install(work),
        Err(_) => work(), // no more threads to be had: in the pool that all share
    }
}

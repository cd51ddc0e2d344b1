//! Every building block in burn's own operations: what runs on a GPU, and the yardstick for the
//! CPU's fused ones.

use std::f64::consts::SQRT_2;

use burn::tensor::ops::ConvOptions;
use burn::tensor::{Int, Tensor, TensorData, activation, module};

use super::definitions::{self, NORM_EPSILON};
use super::fused;

pub(super) fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    let [outputs, inputs] = weight.dims();
    let mut shape = x.dims();
    // The weight's gradient is a product for each part, and a sum over the parts: few, so that
    // little is added up, and more than one, so that there is work for many threads.
    let positions = shape.iter().product::<usize>() / inputs;
    let parts = divisor_below(positions, positions.isqrt() / 8);
    let y = module::linear(x.reshape([parts, positions / parts, inputs]), weight.transpose(), None);
    shape[D - 1] = outputs;
    match bias {
        Some(bias) => with_row(y, bias, |y, bias| y + bias),
        None => y,
    }
    .reshape(shape)
}

/// `apply` of `x [.., channels]` and `row [channels]` at each position.
///
/// The positions are seen as some √n blocks of √n each, and the row is broadcast to the blocks
/// first. So its gradient is a sum over the positions of a block, and one over the blocks. On a GPU
/// one thread adds up each number of a sum, and would loop over all n.
fn with_row<const D: usize>(
    x: Tensor<D>,
    row: Tensor<1>,
    apply: impl FnOnce(Tensor<3>, Tensor<3>) -> Tensor<3>,
) -> Tensor<D> {
    let (shape, [channels]) = (x.shape(), row.dims());
    let positions = shape.num_elements() / channels;
    let inner = divisor_below(positions, positions.isqrt());
    let x = x.reshape([positions / inner, inner, channels]);
    let row = row.reshape([1, 1, channels]).expand([positions / inner, 1, channels]);
    apply(x, row).reshape(shape)
}

/// The largest divisor of a number that is not above a limit, or 1.
fn divisor_below(number: usize, limit: usize) -> usize {
    (1..=limit).rev().find(|divisor| number.is_multiple_of(*divisor)).unwrap_or(1)
}

pub(super) fn conv2d(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>, stride: usize) -> Tensor<4> {
    let kernel = weight.dims()[2];
    let options = ConvOptions::new([stride; 2], [kernel / 2; 2], [1; 2], 1);
    let y = module::conv2d(x.permute([0, 3, 1, 2]), weight, None, options).permute([0, 2, 3, 1]);
    with_row(y, bias, |y, bias| y + bias)
}

pub(super) fn layer_norm(x: Tensor<4>, weight: Tensor<1>, bias: Tensor<1>) -> Tensor<4> {
    let centred = x.clone() - x.mean_dim(3);
    let variance = (centred.clone() * centred.clone()).mean_dim(3);
    let x = centred / (variance + NORM_EPSILON).sqrt();
    with_row(with_row(x, weight, |x, weight| x * weight), bias, |x, bias| x + bias)
}

pub(super) fn group_norm_silu<const D: usize>(
    x: Tensor<4>,
    weight: Tensor<D>,
    bias: Tensor<D>,
    group: usize,
) -> Tensor<4> {
    activation::silu(group_norm(x, weight, bias, group))
}

pub(super) fn group_norm<const D: usize>(
    x: Tensor<4>,
    weight: Tensor<D>,
    bias: Tensor<D>,
    group: usize,
) -> Tensor<4> {
    let [batch, h, w, channels] = x.dims();
    let groups = channels / group;
    let x = x.reshape([batch, h * w, groups, group]).swap_dims(1, 2); // [batch, groups, pixels, group]
    // Each mean is one over the means of the pixels' rows, and goes back to the rows before it goes
    // to their numbers: so no thread adds up a whole group, in the gradient neither.
    let x = x.reshape([batch, groups, h, w * group]);
    let mean = |x: Tensor<4>| x.mean_dim(3).mean_dim(2); // [batch, groups, 1, 1]
    let to_rows = |x: Tensor<4>| x.expand([batch, groups, h, 1]);
    let centred = x.clone() - to_rows(mean(x));
    let deviation = (mean(centred.clone() * centred.clone()) + NORM_EPSILON).sqrt();
    let x = centred / to_rows(deviation);
    let x = x.reshape([batch, groups, h * w, group]).swap_dims(1, 2);
    let x = x.reshape([batch, h, w, channels]);
    let rows = weight.shape().num_elements() / channels; // 1 or batch
    if rows == 1 {
        let (weight, bias) = (weight.reshape([channels]), bias.reshape([channels]));
        return with_row(with_row(x, weight, |x, weight| x * weight), bias, |x, bias| x + bias);
    }
    x * weight.reshape([rows, 1, 1, channels]) + bias.reshape([rows, 1, 1, channels])
}

pub(super) fn mlp(x: Tensor<4>, [w1, w2]: [Tensor<2>; 2], [b1, b2]: [Tensor<1>; 2]) -> Tensor<4> {
    linear(gelu(linear(x, w1, Some(b1))), w2, Some(b2))
}

/// burn's own gradient is the exact one on the CPU. On a GPU it is the one of the tanh
/// approximation, which is off by up to 9e-4 at |x| = 2: there the slope is written out beside the
/// value.
pub(super) fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    const DENSITY_AT_ZERO: f64 = 0.398_942_280_401_432_7; // 1 / √(2π)
    if fused::on_cpu(&x) {
        return activation::gelu(x);
    }
    let below = |x: Tensor<D>| ((x / SQRT_2).erf() + 1.0) / 2.0; // Φ(x)
    if !x.device().is_autodiff() {
        return x.clone() * below(x);
    }
    let still = x.clone().detach();
    let share = below(still.clone());
    let density = (still.clone() * still.clone() * -0.5).exp() * DENSITY_AT_ZERO;
    let slope = share.clone() + still.clone() * density;
    // The second part is zero. Its gradient is `slope`, the one array that is kept for it.
    still.clone() * share + slope * (x - still)
}

pub(super) fn window_attention(
    qkv: Tensor<4>,
    qkv_t: Tensor<2>,
    bias_table: Tensor<2>,
    heads: usize,
    window: usize,
) -> Tensor<4> {
    let [batch, h, w, channels] = qkv.dims();
    let (dim, n) = (channels / 3, window * window);
    let (rows, columns) = (h / window, w / window);
    let width = dim / heads;

    let index = Tensor::<1, Int>::from_data(
        TensorData::new(relative_position(window), [n * n]),
        &bias_table.device(),
    );
    // As a product: the gradient of a selection would be added up by `heads` threads, one pair
    // after the other.
    let [table, _] = bias_table.dims();
    let row = Tensor::<1, Int>::arange(0..table as i64, &bias_table.device()).reshape([1, table]);
    let chosen = index.reshape([n * n, 1]).equal(row).float().cast(bias_table.dtype());
    let bias = chosen.matmul(bias_table).reshape([n, n, heads]).permute([2, 0, 1]);
    let bias = bias.reshape([1, heads, n, n]);

    let qkv = qkv + qkv_t.reshape([batch, 1, 1, channels]);
    let windows = qkv.reshape([batch, rows, window, columns, window * channels]).swap_dims(2, 3);
    let parts = windows.reshape([batch * rows * columns, n, 3 * heads, width]).swap_dims(1, 2);
    let head = |part: usize| parts.clone().narrow(1, part * heads, heads); // [windows, heads, n, width]
    let (q, k, v) = (head(0), head(1), head(2));

    let scores = q.matmul(k.transpose()) * (1.0 / (width as f64).sqrt()) + bias; // [windows, heads, n, n]
    let mixed = activation::softmax(scores, 3).matmul(v).swap_dims(1, 2); // [windows, n, heads, width]
    let mixed = mixed.reshape([batch, rows, columns, window, window * dim]).swap_dims(2, 3);
    mixed.reshape([batch, h, w, dim])
}

pub(super) fn attention(qkv: Tensor<4>, heads: usize) -> Tensor<4> {
    let [batch, h, w, channels] = qkv.dims();
    let (dim, width) = (channels / 3, channels / 3 / heads);
    let parts = qkv.reshape([batch, h * w, 3 * heads, width]).swap_dims(1, 2);
    let head = |part: usize| parts.clone().narrow(1, part * heads, heads); // [batch, heads, n, width]
    let (q, k, v) = (head(0), head(1), head(2));
    let scores = q.matmul(k.transpose()) * (1.0 / (width as f64).sqrt()); // [batch, heads, n, n]
    let mixed = activation::softmax(scores, 3).matmul(v).swap_dims(1, 2); // [batch, n, heads, width]
    mixed.reshape([batch, h, w, dim])
}

/// For each pair (query, key) of a window's pixels, row by row: the row of the bias table.
fn relative_position(window: usize) -> Vec<i64> {
    definitions::relative_position(window).into_iter().map(|row| row as i64).collect()
}

pub(super) fn upsample_conv2d(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>) -> Tensor<4> {
    conv2d(upsample(x), weight, bias, 1)
}

pub(super) fn upsample(x: Tensor<4>) -> Tensor<4> {
    let [batch, h, w, channels] = x.dims();
    let x = x.reshape([batch, h, 1, w, 1, channels]).repeat_dim(2, 2).repeat_dim(4, 2);
    x.reshape([batch, 2 * h, 2 * w, channels])
}

pub(super) fn average_pool(x: Tensor<4>) -> Tensor<4> {
    let [batch, h, w, channels] = x.dims();
    // Rows first: each sum then reads whole rows of the image.
    let x = x.reshape([batch * h / 2, 2, w * channels]).sum_dim(1);
    let x = x.reshape([batch * h / 2 * (w / 2), 2, channels]).sum_dim(1);
    x.reshape([batch, h / 2, w / 2, channels]) * 0.25
}

pub(super) fn concat(a: Tensor<4>, b: Tensor<4>) -> Tensor<4> {
    Tensor::cat(vec![a, b], 3)
}

pub(super) fn scaled_sum(a: Tensor<4>, b: Tensor<4>, scale: f64) -> Tensor<4> {
    (a + b) * scale
}

pub(super) fn join(rows: Vec<Tensor<1>>, starts: &[usize], length: usize) -> Tensor<1> {
    let (device, dtype) = (rows[0].device(), rows[0].dtype());
    let (mut all, mut end) = (Vec::new(), 0);
    let zeros = |count| Tensor::zeros([count], (&device, dtype));
    for (row, start) in rows.into_iter().zip(starts) {
        all.extend((*start > end).then(|| zeros(start - end)));
        end = start + row.dims()[0];
        all.push(row);
    }
    all.extend((length > end).then(|| zeros(length - end)));
    Tensor::cat(all, 0)
}

pub(super) fn parts(long: &Tensor<1>, places: &[(usize, usize)]) -> Vec<Tensor<1>> {
    places.iter().map(|(start, count)| long.clone().narrow(0, *start, *count)).collect()
}

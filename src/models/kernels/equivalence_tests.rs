//! Fused and generic building blocks compute the same, forwards and backwards, at awkward sizes
//! too; and the fused ones give the same bits on any number of threads. That both are right is for
//! [`gradcheck_tests`](super::gradcheck_tests) to say.

use burn::optim::{AdamWConfig, Optimizer};
use burn::tensor::{Device, Gradients, Shape, Tensor, TensorData};

use super::MatmulPrecision::F32;
use super::{AdamWStep, MatmulPrecision, fused, generic};
use Path::{Fused, Generic};

/// How a block that multiplies matrices is computed.
#[derive(Clone, Copy)]
pub(super) enum Path {
    Fused(MatmulPrecision),
    Generic,
}

/// A leaf tensor of fixed numbers in [-1, 1).
pub(super) fn leaf<const D: usize>(shape: [usize; D], stream: u64, device: &Device) -> Tensor<D> {
    numbers(shape, stream, device).require_grad()
}

pub(super) fn numbers<const D: usize>(shape: [usize; D], stream: u64, d: &Device) -> Tensor<D> {
    let hash = |i: u64| (i * 747_796_405 + stream * 2_891_336_453 + 1) as u32 as u64 * 0x45D_9F3B;
    let values: Vec<f32> = (0..shape.iter().product::<usize>() as u64)
        .map(|i| (hash(i) >> 7 & 0xFFFF) as f32 / 32_768.0 - 1.0)
        .collect();
    Tensor::from_data(TensorData::new(values, shape), d)
}

/// The result, and then the gradient of every input, for a loss that weighs each number
/// differently.
pub(super) fn run<const D: usize>(
    output: Tensor<D>,
    grads: impl Fn(&Gradients) -> Vec<Vec<f32>>,
) -> Vec<Vec<f32>> {
    let weight = leaf(output.dims(), 99, &output.device());
    let gradients = (output.clone() * weight).sum().backward();
    let mut all = vec![values(output)];
    all.extend(grads(&gradients));
    all
}

pub(super) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

pub(super) fn grad<const D: usize>(tensor: &Tensor<D>, gradients: &Gradients) -> Vec<f32> {
    values(tensor.grad(gradients).expect("every input takes part"))
}

#[track_caller]
pub(super) fn assert_close(fused: &[Vec<f32>], generic: &[Vec<f32>]) {
    assert_eq!(fused.len(), generic.len());
    for (index, (a, b)) in fused.iter().zip(generic).enumerate() {
        assert_eq!(a.len(), b.len());
        let size = b.iter().fold(0f32, |max, v| max.max(v.abs()));
        for (a, b) in a.iter().zip(b) {
            assert!(
                (a - b).abs() <= 1e-4 * size.max(1e-3),
                "array {index}: {a} and {b}, largest {size}"
            );
        }
    }
}

fn device() -> Device {
    Device::flex().autodiff()
}

pub(super) fn convolve(
    [batch, h, w, i, o]: [usize; 5],
    kernel: usize,
    stride: usize,
    path: Path,
) -> Vec<Vec<f32>> {
    let d = device();
    let (x, weight, bias) =
        (leaf([batch, h, w, i], 1, &d), leaf([o, i, kernel, kernel], 2, &d), leaf([o], 3, &d));
    let y = if let Fused(precision) = path {
        fused::conv2d(&x, &weight, &bias, stride, precision)
            .expect("the numbers are in host memory")
    } else {
        generic::conv2d(x.clone(), weight.clone(), bias.clone(), stride)
    };
    run(y, |g| vec![grad(&x, g), grad(&weight, g), grad(&bias, g)])
}

#[test]
fn convolutions_agree() {
    for (sizes, kernel, stride) in [
        ([3, 8, 8, 3, 5], 3, 1),
        ([1, 7, 5, 2, 3], 3, 1),
        ([2, 8, 6, 4, 7], 3, 2),
        ([2, 9, 9, 2, 2], 5, 1),
        ([9, 1, 1, 3, 2], 3, 1),
        ([2, 40, 40, 32, 4], 3, 1), // several bands
        ([7, 3, 4, 150, 20], 3, 1), // a band that ends inside an image, channels in two blocks
        ([40, 4, 4, 96, 8], 3, 2),
        ([3, 6, 7, 70, 150], 3, 1), // a weight's gradient in several pieces
        ([40, 5, 1, 40, 20], 3, 1),
        ([6, 5, 5, 33, 17], 1, 1),
    ] {
        assert_close(
            &convolve(sizes, kernel, stride, Fused(F32)),
            &convolve(sizes, kernel, stride, Generic),
        );
    }
}

pub(super) fn convolve_upsampled([batch, h, w, i, o]: [usize; 5], path: Path) -> Vec<Vec<f32>> {
    let d = device();
    let (x, weight, bias) =
        (leaf([batch, h, w, i], 1, &d), leaf([o, i, 3, 3], 2, &d), leaf([o], 3, &d));
    let y = if let Fused(precision) = path {
        fused::upsample_conv2d(&x, &weight, &bias, precision)
            .expect("the numbers are in host memory")
    } else {
        generic::upsample_conv2d(x.clone(), weight.clone(), bias.clone())
    };
    run(y, |g| vec![grad(&x, g), grad(&weight, g), grad(&bias, g)])
}

#[test]
fn convolutions_of_an_upsampled_image_agree() {
    for sizes in
        [[3, 4, 4, 3, 5], [1, 3, 5, 2, 3], [9, 1, 1, 2, 2], [2, 24, 24, 96, 4], [40, 3, 2, 150, 5]]
    {
        assert_close(&convolve_upsampled(sizes, Fused(F32)), &convolve_upsampled(sizes, Generic));
    }
}

fn resize(shape: [usize; 4], half: bool, fast: bool) -> Vec<Vec<f32>> {
    let x = leaf(shape, 1, &device());
    let y = match (half, fast) {
        (true, true) => fused::average_pool(&x).expect("the numbers are in host memory"),
        (true, false) => generic::average_pool(x.clone()),
        (false, true) => fused::upsample(&x).expect("the numbers are in host memory"),
        (false, false) => generic::upsample(x.clone()),
    };
    run(y, |g| vec![grad(&x, g)])
}

#[test]
fn halved_and_doubled_images_agree() {
    for shape in [[2, 2, 4, 3], [3, 6, 2, 17], [1, 40, 64, 48], [2, 4, 4, 1]] {
        for half in [true, false] {
            assert_close(&resize(shape, half, true), &resize(shape, half, false));
        }
    }
}

/// Two images of so many channels side by side, or added if their channels are as many.
fn join([left, right]: [usize; 2], sum: bool, fast: bool) -> Vec<Vec<f32>> {
    let d = device();
    let (a, b) = (leaf([3, 24, 25, left], 1, &d), leaf([3, 24, 25, right], 2, &d));
    let y = match (sum, fast) {
        (true, true) => fused::scaled_sum(&a, &b, 0.7).expect("the numbers are in host memory"),
        (true, false) => generic::scaled_sum(a.clone(), b.clone(), 0.7),
        (false, true) => fused::concat(&a, &b).expect("the numbers are in host memory"),
        (false, false) => generic::concat(a.clone(), b.clone()),
    };
    run(y, |g| vec![grad(&a, g), grad(&b, g)])
}

#[test]
fn joined_images_agree() {
    for channels in [[1, 1], [5, 3], [64, 32], [7, 64]] {
        assert_close(&join(channels, false, true), &join(channels, false, false));
    }
    for channels in [1, 5, 64] {
        assert_close(&join([channels; 2], true, true), &join([channels; 2], true, false));
    }
}

pub(super) fn project(
    shape: [usize; 4],
    outputs: usize,
    with_bias: bool,
    path: Path,
) -> Vec<Vec<f32>> {
    let d = device();
    let (x, weight, bias) =
        (leaf(shape, 1, &d), leaf([outputs, shape[3]], 2, &d), leaf([outputs], 3, &d));
    let given = with_bias.then(|| bias.clone());
    let y = if let Fused(precision) = path {
        fused::linear(&x, &weight, given.as_ref(), precision)
            .expect("the numbers are in host memory")
    } else {
        generic::linear(x.clone(), weight.clone(), given)
    };
    let grad_bias = |g: &Gradients| if with_bias { grad(&bias, g) } else { Vec::new() };
    run(y, |g| vec![grad(&x, g), grad(&weight, g), grad_bias(g)])
}

#[test]
fn projections_agree() {
    for (shape, outputs, bias) in [
        ([2, 3, 3, 5], 7, true),
        ([1, 1, 1, 4], 3, false),
        ([3, 16, 16, 24], 40, true),
        ([3, 16, 16, 24], 8, false),
        ([3, 16, 16, 130], 200, true),
        ([5, 2, 2, 70], 100, true), // a weight that is large beside the rows
    ] {
        assert_close(
            &project(shape, outputs, bias, Fused(F32)),
            &project(shape, outputs, bias, Generic),
        );
    }
}

pub(super) fn perceive(shape: [usize; 4], hidden: usize, path: Path) -> Vec<Vec<f32>> {
    let d = device();
    let width = shape[3];
    let (x, w1, w2) =
        (leaf(shape, 1, &d), leaf([hidden, width], 2, &d), leaf([width, hidden], 3, &d));
    let (b1, b2) = (leaf([hidden], 4, &d), leaf([width], 5, &d));
    let y = if let Fused(precision) = path {
        fused::mlp(&x, [&w1, &w2], [&b1, &b2], precision).expect("the numbers are in host memory")
    } else {
        generic::mlp(x.clone(), [w1.clone(), w2.clone()], [b1.clone(), b2.clone()])
    };
    run(y, |g| vec![grad(&x, g), grad(&w1, g), grad(&b1, g), grad(&w2, g), grad(&b2, g)])
}

#[test]
fn perceptrons_agree() {
    for (shape, hidden) in
        [([2, 3, 3, 5], 7), ([1, 1, 1, 4], 3), ([2, 24, 24, 16], 64), ([5, 2, 2, 70], 100)]
    {
        assert_close(&perceive(shape, hidden, Fused(F32)), &perceive(shape, hidden, Generic));
    }
}

fn layer_normalise(shape: [usize; 4], fast: bool) -> Vec<Vec<f32>> {
    let d = device();
    let (x, weight, bias) = (leaf(shape, 1, &d), leaf([shape[3]], 2, &d), leaf([shape[3]], 3, &d));
    let y = if fast {
        fused::layer_norm(&x, &weight, &bias).expect("the numbers are in host memory")
    } else {
        generic::layer_norm(x.clone(), weight.clone(), bias.clone())
    };
    run(y, |g| vec![grad(&x, g), grad(&weight, g), grad(&bias, g)])
}

#[test]
fn layer_norms_agree() {
    for shape in [[2, 3, 5, 20], [3, 9, 9, 64]] {
        assert_close(&layer_normalise(shape, true), &layer_normalise(shape, false));
    }
}

/// With `rows` weights and biases: one for all images, or one for each.
fn group_normalise<const SILU: bool>(
    shape: [usize; 4],
    group: usize,
    rows: usize,
    fast: bool,
) -> Vec<Vec<f32>> {
    let d = device();
    let channels = [rows, shape[3]];
    let (x, weight, bias) = (leaf(shape, 1, &d), leaf(channels, 2, &d), leaf(channels, 3, &d));
    let y = if fast {
        fused::group_norm::<SILU, 2>(&x, &weight, &bias, group)
            .expect("the numbers are in host memory")
    } else if SILU {
        generic::group_norm_silu(x.clone(), weight.clone(), bias.clone(), group)
    } else {
        generic::group_norm(x.clone(), weight.clone(), bias.clone(), group)
    };
    run(y, |g| vec![grad(&x, g), grad(&weight, g), grad(&bias, g)])
}

#[test]
fn group_norms_agree() {
    for (shape, group) in [([2, 3, 5, 32], 16), ([3, 12, 12, 48], 16), ([4, 6, 6, 54], 9)] {
        for rows in [1, shape[0]] {
            let silu = |fast| group_normalise::<true>(shape, group, rows, fast);
            assert_close(&silu(true), &silu(false));
            let plain = |fast| group_normalise::<false>(shape, group, rows, fast);
            assert_close(&plain(true), &plain(false));
        }
    }
}

pub(super) fn attend(
    [batch, h, w, dim]: [usize; 4],
    heads: usize,
    window: usize,
    path: Path,
) -> Vec<Vec<f32>> {
    let d = device();
    let (qkv, qkv_t) = (leaf([batch, h, w, 3 * dim], 1, &d), leaf([batch, 3 * dim], 2, &d));
    let table = leaf([(2 * window - 1).pow(2), heads], 3, &d);
    let y = if let Fused(precision) = path {
        fused::window_attention(&qkv, &qkv_t, &table, heads, window, precision)
            .expect("numbers in host memory")
    } else {
        generic::window_attention(qkv.clone(), qkv_t.clone(), table.clone(), heads, window)
    };
    run(y, |g| vec![grad(&qkv, g), grad(&qkv_t, g), grad(&table, g)])
}

#[test]
fn attentions_agree() {
    for (shape, heads, window) in
        [([2, 4, 6, 8], 2, 2), ([1, 3, 3, 5], 1, 3), ([9, 8, 16, 12], 3, 4), ([2, 1, 2, 4], 2, 1)]
    {
        assert_close(
            &attend(shape, heads, window, Fused(F32)),
            &attend(shape, heads, window, Generic),
        );
    }
}

#[test]
fn the_bits_do_not_depend_on_the_number_of_threads() {
    let all = || {
        [
            convolve([10, 8, 8, 16, 24], 3, 1, Fused(F32)),
            convolve_upsampled([10, 8, 8, 16, 24], Fused(F32)),
            project([10, 16, 16, 24], 40, true, Fused(F32)),
            perceive([10, 16, 16, 16], 64, Fused(F32)),
            group_normalise::<true>([10, 16, 16, 48], 16, 1, true),
            group_normalise::<false>([10, 16, 16, 48], 6, 10, true),
            layer_normalise([10, 16, 16, 48], true),
            attend([10, 8, 8, 12], 3, 4, Fused(F32)),
            resize([10, 16, 64, 48], true, true),
            resize([10, 16, 64, 48], false, true),
            join([48, 64], false, true),
            join([64, 64], true, true),
        ]
        .concat()
        .concat()
        .into_iter()
        .map(f32::to_bits)
        .collect::<Vec<_>>()
    };
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .expect("threads can be started");
        pool.install(all)
    };
    let one = on(1);
    assert!(one == on(3) && one == on(7));
}

#[test]
fn only_wanted_gradients_are_made() {
    let d = device();
    let x = leaf([2, 4, 4, 3], 1, &d).set_require_grad(false);
    let (weight, bias) = (leaf([5, 3, 3, 3], 2, &d).set_require_grad(false), leaf([5], 3, &d));
    let y = fused::conv2d(&x, &weight, &bias, 1, F32).expect("the numbers are in host memory");
    assert_eq!(y.shape(), Shape::from([2, 4, 4, 5]));
    let gradients = y.sum().backward();
    assert!(x.grad(&gradients).is_none() && weight.grad(&gradients).is_none());
    assert_eq!(grad(&bias, &gradients), [32.0; 5]);
}

#[test]
fn adamw_has_the_bits_of_burns() {
    let device = Device::flex();
    let count = 70_001;
    let numbers = |stream| numbers([count], stream, &device);
    let rule = AdamWConfig::new().with_weight_decay(0.01).with_epsilon(1e-8).build();
    let step = AdamWStep {
        beta_1: 0.9,
        beta_2: 0.999,
        epsilon: 1e-8,
        learning_rate: 3e-3,
        weight_decay: 0.01,
        time: 0,
    };
    let (mut expected, mut state) = (numbers(1), None);
    let zeros = || Tensor::<1>::zeros([count], &device);
    let mut found = [numbers(1), zeros(), zeros()];
    for time in 1..=4 {
        let gradient = numbers(10 + time);
        (expected, state) = rule.step(step.learning_rate, expected, gradient.clone(), state);
        found = super::adamw(AdamWStep { time: time as i32, ..step }, found, &gradient);
    }
    let moments = state.expect("it has moments").momentum;
    let bits = |tensor: Tensor<1>| values(tensor).into_iter().map(f32::to_bits).collect::<Vec<_>>();
    for (expected, found) in [expected, moments.moment_1, moments.moment_2].into_iter().zip(found) {
        assert!(bits(expected) == bits(found));
    }
}

#[test]
fn a_blend_is_the_weighted_mean() {
    let device = Device::flex();
    let numbers = |stream| numbers([70_001], stream, &device);
    let expected = numbers(1).mul_scalar(0.9) + numbers(2).mul_scalar(1.0 - 0.9);
    assert_eq!(values(super::blend(numbers(1), &numbers(2), 0.9)), values(expected));
}

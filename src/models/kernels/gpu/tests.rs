//! Kernels for a GPU and generic building blocks compute the same, forwards and backwards, at
//! awkward sizes too, on the software Vulkan driver that tests are given.

use burn::tensor::{Device, FloatDType, Tensor};

use super::super::equivalence_tests::{assert_close, grad, leaf, numbers, run, values};
use super::super::fused::on_cpu;
use super::super::{generic, gpu};
use crate::kernels::{self, MatmulPrecision};
use crate::testing::has_driver;

/// The software driver's device, and the CPU on which the generic form is computed.
pub(super) fn devices(test: &str) -> Option<[Device; 2]> {
    has_driver(test).then(|| {
        [Device::wgpu(burn::tensor::DeviceKind::Cpu).autodiff(), Device::flex().autodiff()]
    })
}

/// What a kernel gave on the GPU; on the CPU, where it gives nothing, the generic form.
pub(super) fn from<const D: usize>(
    own: Option<Tensor<D>>,
    device: &Device,
    generic: impl FnOnce() -> Tensor<D>,
) -> Tensor<D> {
    assert_eq!(own.is_none(), on_cpu(&leaf([1], 0, device)));
    own.unwrap_or_else(generic)
}

#[test]
fn convolutions_agree() {
    let Some([gpu, cpu]) = devices("kernels::gpu::tests::convolutions_agree") else { return };
    for ([batch, h, w, i, o], kernel, stride) in [
        ([3, 8, 8, 3, 5], 3, 1),
        ([1, 7, 5, 2, 3], 3, 1),
        ([2, 8, 6, 4, 7], 3, 2),
        ([2, 9, 9, 2, 2], 5, 1),
        ([9, 1, 1, 3, 2], 3, 1),
        ([2, 20, 20, 32, 4], 3, 1),
        ([7, 3, 4, 150, 70], 3, 1),
        ([40, 4, 4, 96, 8], 3, 2),
    ] {
        let both = [&gpu, &cpu].map(|d| {
            let (x, weight, bias) =
                (leaf([batch, h, w, i], 1, d), leaf([o, i, kernel, kernel], 2, d), leaf([o], 3, d));
            let own = gpu::conv2d(&x, &weight, &bias, stride);
            let y =
                from(own, d, || generic::conv2d(x.clone(), weight.clone(), bias.clone(), stride));
            run(y, |g| vec![grad(&x, g), grad(&weight, g), grad(&bias, g)])
        });
        assert_close(&both[0], &both[1]);
    }
}

#[test]
fn projections_agree() {
    let Some([gpu, cpu]) = devices("kernels::gpu::tests::projections_agree") else { return };
    for (positions, inputs, outputs, with_bias) in [
        ([1, 1, 1], 3, 5, true),
        ([2, 7, 9], 12, 70, false),
        ([3, 8, 8], 65, 16, true),
        ([5, 40, 41], 33, 129, true), // long sums, in parts
    ] {
        let both = [&gpu, &cpu].map(|d| {
            let [a, b, c] = positions;
            let (x, weight) = (leaf([a, b, c, inputs], 1, d), leaf([outputs, inputs], 2, d));
            let bias = leaf([outputs], 3, d);
            let given = with_bias.then_some(&bias);
            let own = gpu::linear(&x, &weight, given);
            let y = from(own, d, || generic::linear(x.clone(), weight.clone(), given.cloned()));
            run(y, |g| {
                let mut all = vec![grad(&x, g), grad(&weight, g)];
                all.extend(given.map(|bias| grad(bias, g)));
                all
            })
        });
        assert_close(&both[0], &both[1]);
    }
}

#[test]
fn perceptrons_agree() {
    let Some([gpu, cpu]) = devices("kernels::gpu::tests::perceptrons_agree") else { return };
    for ([batch, h, w, width], hidden) in
        [([1, 1, 1, 3], 5), ([2, 3, 5, 16], 64), ([3, 17, 16, 20], 81)]
    {
        let both = [&gpu, &cpu].map(|d| {
            let x = leaf([batch, h, w, width], 1, d);
            let (w1, w2) = (leaf([hidden, width], 2, d), leaf([width, hidden], 3, d));
            let (b1, b2) = (leaf([hidden], 4, d), leaf([width], 5, d));
            let own = gpu::mlp(&x, [&w1, &w2], [&b1, &b2]);
            let y = from(own, d, || {
                generic::mlp(x.clone(), [w1.clone(), w2.clone()], [b1.clone(), b2.clone()])
            });
            run(y, |g| vec![grad(&x, g), grad(&w1, g), grad(&b1, g), grad(&w2, g), grad(&b2, g)])
        });
        assert_close(&both[0], &both[1]);
    }
}

#[test]
fn layer_norms_agree() {
    let Some([gpu, cpu]) = devices("kernels::gpu::tests::layer_norms_agree") else { return };
    for shape in [[1, 1, 1, 3], [2, 3, 5, 16], [1, 7, 9, 33], [3, 30, 31, 64], [2, 2, 2, 600]] {
        let both = [&gpu, &cpu].map(|d| {
            let (x, channels) = (leaf(shape, 1, d), shape[3]);
            let (weight, bias) = (leaf([channels], 2, d), leaf([channels], 3, d));
            let y = from(gpu::layer_norm(&x, &weight, &bias, None), d, || {
                generic::layer_norm(x.clone(), weight.clone(), bias.clone())
            });
            run(y, |g| vec![grad(&x, g), grad(&weight, g), grad(&bias, g)])
        });
        assert_close(&both[0], &both[1]);
    }
}

/// A block of residual connections over `x`, and the gradients of what takes part.
fn residual_block(d: &Device, shape: [usize; 4], is_trained: bool) -> Vec<Vec<f32>> {
    let (channels, hidden) = (shape[3], 2 * shape[3]);
    let x = leaf(shape, 1, d).set_require_grad(is_trained);
    let norms: Vec<_> =
        (0..3).map(|i| [leaf([channels], 2 + i, d), leaf([channels], 5 + i, d)]).collect();
    let (weight, bias) = (leaf([channels, channels], 8, d), leaf([channels], 9, d));
    let (w1, w2) = (leaf([hidden, channels], 10, d), leaf([channels, hidden], 11, d));
    let (b1, b2) = (leaf([hidden], 12, d), leaf([channels], 13, d));
    let norm = |i: usize| norms[i].clone();

    let [scale, shift] = norm(0);
    let (normal, past_all) = kernels::group_norm_silu_and_skip(x.clone(), scale, shift, 4);
    let [scale, shift] = norm(1);
    let (normal, past) = kernels::layer_norm_and_skip(normal, scale, shift);
    let y =
        kernels::linear_and_skip(normal, weight.clone(), bias.clone(), past, MatmulPrecision::F32);
    let [scale, shift] = norm(2);
    let (normal, past) = kernels::layer_norm_and_skip(y, scale, shift);
    let y = kernels::mlp_and_skips(
        normal,
        [w1.clone(), w2.clone()],
        [b1.clone(), b2.clone()],
        [past, past_all],
        MatmulPrecision::F32,
    );
    // A way of x that no norm knows of.
    let y = y + x.clone() * 0.5;
    run(y, |g| {
        let mut all: Vec<_> = norms.iter().flatten().map(|number| grad(number, g)).collect();
        all.extend([grad(&weight, g), grad(&bias, g), grad(&w1, g), grad(&b1, g)]);
        all.extend([grad(&w2, g), grad(&b2, g)]);
        all.extend(is_trained.then(|| grad(&x, g)));
        all
    })
}

#[test]
fn residual_connections_agree() {
    let Some([gpu, cpu]) = devices("kernels::gpu::tests::residual_connections_agree") else {
        return;
    };
    for shape in [[1, 1, 1, 4], [2, 3, 5, 12], [3, 17, 16, 64]] {
        for is_trained in [true, false] {
            let both = [&gpu, &cpu].map(|d| residual_block(d, shape, is_trained));
            assert_close(&both[0], &both[1]);
        }
    }
}

fn group_norm_on<const SILU: bool>(
    d: &Device,
    shape: [usize; 4],
    group: usize,
    rows: usize,
) -> Vec<Vec<f32>> {
    let (x, channels) = (leaf(shape, 1, d), shape[3]);
    let (weight, bias) = (leaf([rows, channels], 2, d), leaf([rows, channels], 3, d));
    let y = from(gpu::group_norm::<SILU, 2>(&x, &weight, &bias, group, None), d, || {
        let generic = if SILU { generic::group_norm_silu } else { generic::group_norm };
        generic(x.clone(), weight.clone(), bias.clone(), group)
    });
    run(y, |g| vec![grad(&x, g), grad(&weight, g), grad(&bias, g)])
}

#[test]
fn group_norms_agree() {
    let Some([gpu, cpu]) = devices("kernels::gpu::tests::group_norms_agree") else { return };
    for (shape, group) in [
        ([1, 2, 2, 2], 1),
        ([2, 3, 5, 12], 3),
        ([3, 8, 8, 32], 16),
        ([2, 20, 20, 64], 16),
        ([1, 4, 4, 260], 130),
        ([70, 2, 2, 8], 4),
    ] {
        for rows in [1, shape[0]] {
            let both = [&gpu, &cpu].map(|d| group_norm_on::<true>(d, shape, group, rows));
            assert_close(&both[0], &both[1]);
            let both = [&gpu, &cpu].map(|d| group_norm_on::<false>(d, shape, group, rows));
            assert_close(&both[0], &both[1]);
        }
    }
}

#[test]
fn halved_and_doubled_images_agree() {
    let name = "kernels::gpu::tests::halved_and_doubled_images_agree";
    let Some([gpu, cpu]) = devices(name) else { return };
    for shape in [[2, 2, 4, 3], [3, 6, 2, 17], [1, 40, 64, 8], [2, 4, 4, 1]] {
        let halved = [&gpu, &cpu].map(|d| {
            let x = leaf(shape, 1, d);
            let y = from(gpu::average_pool(&x), d, || generic::average_pool(x.clone()));
            run(y, |g| vec![grad(&x, g)])
        });
        assert_close(&halved[0], &halved[1]);
        let doubled = [&gpu, &cpu].map(|d| {
            let x = leaf(shape, 1, d);
            let y = from(gpu::upsample(&x), d, || generic::upsample(x.clone()));
            run(y, |g| vec![grad(&x, g)])
        });
        assert_close(&doubled[0], &doubled[1]);
    }
}

#[test]
fn images_side_by_side_agree() {
    let Some([gpu, cpu]) = devices("kernels::gpu::tests::images_side_by_side_agree") else {
        return;
    };
    for [left, right] in [[1, 1], [3, 8], [33, 2]] {
        let both = [&gpu, &cpu].map(|d| {
            let (a, b) = (leaf([3, 4, 5, left], 1, d), leaf([3, 4, 5, right], 2, d));
            let y = from(gpu::concat(&a, &b), d, || generic::concat(a.clone(), b.clone()));
            run(y, |g| vec![grad(&a, g), grad(&b, g)])
        });
        assert_close(&both[0], &both[1]);
    }
}

#[test]
fn convolutions_of_an_upsampled_image_agree() {
    let name = "kernels::gpu::tests::convolutions_of_an_upsampled_image_agree";
    let Some([gpu, cpu]) = devices(name) else { return };
    for [batch, h, w, i, o] in
        [[3, 4, 4, 3, 5], [1, 3, 5, 2, 3], [9, 1, 1, 2, 2], [2, 9, 8, 33, 4], [20, 3, 2, 70, 5]]
    {
        let both = [&gpu, &cpu].map(|d| {
            let (x, weight, bias) =
                (leaf([batch, h, w, i], 1, d), leaf([o, i, 3, 3], 2, d), leaf([o], 3, d));
            let y = from(gpu::upsample_conv2d(&x, &weight, &bias), d, || {
                generic::upsample_conv2d(x.clone(), weight.clone(), bias.clone())
            });
            run(y, |g| vec![grad(&x, g), grad(&weight, g), grad(&bias, g)])
        });
        assert_close(&both[0], &both[1]);
    }
}

#[test]
fn sums_agree() {
    let Some([gpu, _]) = devices("kernels::gpu::tests::sums_agree") else { return };
    for numbers in [1, 255, 4_097, 300_007, 5_000_000] {
        let x = leaf([numbers], 1, &gpu);
        let exact: f64 = values(x.clone()).iter().map(|x| f64::from(*x)).sum();
        let sum = gpu::sum(&x).expect("the numbers are of a GPU");
        let gradients = (sum.clone() * 3.0).backward();
        assert!((f64::from(values(sum)[0]) - exact).abs() < 1e-6 * numbers as f64);
        assert_eq!(grad(&x, &gradients), vec![3.0; numbers]);
    }
}

/// In half precision numbers are off by 5e-4 of themselves, and sums of them by more.
#[test]
fn half_precision_is_close_where_a_device_has_it() {
    let name = "kernels::gpu::tests::half_precision_is_close_where_a_device_has_it";
    let Some([gpu, cpu]) = devices(name) else { return };
    if !gpu.supports_dtype(FloatDType::F16) {
        eprintln!("skipped: the device has no f16");
        return;
    }
    let both = [(&gpu, FloatDType::F16), (&cpu, FloatDType::F32)].map(|(d, dtype)| {
        let (x, weight, bias) =
            (leaf([2, 8, 8, 16], 1, d), leaf([16, 16, 3, 3], 2, d), leaf([16], 3, d));
        let (scale, shift) = (leaf([16], 4, d), leaf([16], 5, d));
        let [scaled, shifted, low_bias] =
            [&scale, &shift, &bias].map(|tensor| tensor.clone().cast(dtype));
        let (low, precision) = (weight.clone().cast(dtype), MatmulPrecision::F32);
        let y = kernels::conv2d(x.clone().cast(dtype), low, low_bias, 1, precision);
        let y = kernels::group_norm_silu(y, scaled.clone(), shifted.clone(), 4);
        let y = kernels::layer_norm(kernels::upsample(y), scaled, shifted);
        let y = kernels::concat(y.clone(), kernels::upsample(kernels::average_pool(y)));
        assert_eq!(y.dtype(), dtype.into());
        let y = y.cast(FloatDType::F32);
        let inputs = (x, weight, bias, scale, shift);
        run(y, |g| {
            let (x, weight, bias, scale, shift) = &inputs;
            vec![grad(x, g), grad(weight, g), grad(bias, g), grad(scale, g), grad(shift, g)]
        })
    });
    for (index, (a, b)) in both[0].iter().zip(&both[1]).enumerate() {
        let size = b.iter().fold(0f32, |max, v| max.max(v.abs()));
        let worst = a.iter().zip(b).fold(0f32, |max, (a, b)| max.max((a - b).abs()));
        assert!(worst < 0.02 * size, "array {index}: off by {worst}, largest {size}");
    }
}

#[test]
fn long_arrays_agree() {
    let Some(devices) = devices("kernels::gpu::tests::long_arrays_agree") else { return };
    // Together, with gaps, and more than one launch joins.
    let counts = [3, 128, 900, 1, 64, 64, 200, 7].repeat(5);
    let both = devices.map(|d| {
        let d = d.inner();
        let (mut end, mut starts) = (0usize, Vec::new());
        for count in &counts {
            starts.push(end.next_multiple_of(64));
            end = starts[starts.len() - 1] + count;
        }
        let row = |(i, count): (usize, &usize)| numbers([*count], i as u64, &d);
        let mut rows: Vec<_> = counts.iter().enumerate().map(row).collect();
        // Two that lie in one array, as in the long one.
        let pair = numbers([128], 77, &d);
        (rows[4], rows[5]) = (pair.clone().narrow(0, 0, 64), pair.narrow(0, 64, 64));
        let long = kernels::join(rows, &starts, end + 100);
        let places: Vec<_> = starts.iter().copied().zip(counts.clone()).collect();
        let parts = kernels::parts(&long, &places);
        // Beside a place where a buffer can begin, a part is a copy.
        let odd = kernels::parts(&long, &[(5, 130)]);
        parts.into_iter().chain(odd).chain([long]).map(values).collect::<Vec<_>>()
    });
    assert_eq!(both[0], both[1]);
}

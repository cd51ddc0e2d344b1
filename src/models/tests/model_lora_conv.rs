//! LoRA beside convolutions: PEFT's shapes, what names mean them, merging, gradients.

use std::collections::HashMap;

use burn::module::{LoraAdapter, Module, Param, Reparameterizer};
use burn::tensor::{Device, Tensor, TensorData};
use pipe_models::architecture::{Architecture, Denoiser, ModelConfig, Network};
use pipe_models::diffit::DiffitConfig;
use pipe_models::lora::{LoraConfig, LoraPlan};
use pipe_models::nn::{Conv2d, Dropout, Pass, fill, param_paths, parameter};
use pipe_models::probe::fixed_inputs;
use pipe_models::unet::UnetConfig;

fn diffit() -> Network {
    let config = DiffitConfig {
        dim: 16,
        mults: vec![1, 2],
        depths: vec![1, 1],
        heads: 2,
        window: 4,
        image_size: 8,
        channels: 3,
        num_classes: 0,
        augment_labels: 0,
    };
    ModelConfig::from(config).init(3, &Device::flex()).expect("valid")
}

fn unet() -> Network {
    ModelConfig::from(UnetConfig::smallest()).init(3, &Device::flex()).expect("valid")
}

fn plan(net: &Network, targets: &[&str]) -> LoraPlan {
    let target_modules = targets.iter().map(|name| name.to_string()).collect();
    LoraPlan::new(&LoraConfig { r: 2, target_modules, ..LoraConfig::default() }, net)
        .expect("there")
}

/// Fixed numbers, another row for each tensor.
fn wave(count: usize, of: usize) -> Vec<f32> {
    (0..count).map(|i| 0.2 * (0.37 * i as f32 + of as f32).sin()).collect()
}

/// The network with numbers in every parameter, so that everything counts.
fn filled(net: Network) -> Network {
    let values = |(of, (_, name, shape)): (usize, (_, String, Vec<usize>))| {
        (name, wave(shape.iter().product(), of))
    };
    let all: HashMap<String, Vec<f32>> =
        param_paths(&net).into_iter().enumerate().map(values).collect();
    fill(net, all)
}

fn outputs(net: &Network, pass: &Pass) -> Vec<f32> {
    let (x, noise) = fixed_inputs([3, 8], 2);
    let x = Tensor::<4>::from_data(TensorData::new(x, [2, 3, 8, 8]), &Device::flex());
    let noise = Tensor::<1>::from_data(TensorData::new(noise, [2]), &Device::flex());
    net.forward(x, noise, None, pass).into_data().try_into_vec().expect("f32")
}

#[track_caller]
fn assert_near(a: &[f32], b: &[f32]) {
    let size = a.iter().fold(0f32, |most, x| most.max(x.abs()));
    let off = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    assert!(size > 0.0 && off <= 2e-5 * size, "off by {off} of {size}");
}

#[test]
fn factors_are_a_kernel_as_large_and_a_1x1_one() {
    let net = diffit();
    let adapted = plan(&net, &["tokenizer", "conv", "down.0", "up.0", "merge.0"]).inject(net, 5);
    let shapes: HashMap<String, Vec<usize>> =
        param_paths(&adapted.model).into_iter().map(|(_, name, shape)| (name, shape)).collect();
    let shape = |name: &str| shapes[name].as_slice();
    assert_eq!(shape("tokenizer.lora_A.weight"), [2, 3, 3, 3]);
    assert_eq!(shape("tokenizer.lora_B.weight"), [16, 2, 1, 1]);
    assert_eq!(shape("down.0.lora_A.weight"), [2, 16, 3, 3]);
    assert_eq!(shape("merge.0.lora_A.weight"), [2, 32, 1, 1]);
    assert_eq!(shape("middle.0.conv.lora_B.weight"), [32, 2, 1, 1]);
    assert_eq!(shape("down.0.weight"), [32, 16, 3, 3]);
}

#[test]
fn a_convolution_is_meant_by_its_own_name_alone() {
    let net = unet();
    let meant =
        |targets: &[&str]| -> Vec<String> { plan(&net, targets).ranks.into_keys().collect() };
    let is_convolution = |name: &String| {
        ["conv1", "conv2", "stem", "head"].contains(&name.rsplit('.').next().unwrap_or_default())
    };
    for covering in ["all-linear", "middle.*", "*"] {
        let found = meant(&[covering]);
        assert!(!found.is_empty() && !found.iter().any(is_convolution), "{covering}: {found:?}");
    }
    let all = meant(&["conv1"]);
    assert!(all.len() > 2 && all.iter().all(|name| name.ends_with(".conv1")), "{all:?}");
    assert_eq!(meant(&["middle.conv1"]), ["middle.conv1"]);
    assert_eq!(meant(&["m*.conv2", "stem"]), ["middle.conv2", "stem"]);
    assert!(
        LoraConfig::default()
            .target_modules
            .iter()
            .all(|t| !meant(&[t]).iter().any(is_convolution))
    );
}

#[test]
fn factors_merge_into_the_kernels_and_compute_the_same_beside_them() {
    let cases: [(Network, &[&str]); 2] = [
        (diffit(), &["tokenizer", "conv", "down.0", "up.0", "merge.0", "head"]),
        (unet(), &["stem", "conv1", "conv2", "head"]),
    ];
    for (net, targets) in cases {
        let base = outputs(&filled(net.clone()), &Pass::inference());
        let adapted = filled(plan(&net, targets).inject(net, 5).model);
        let found = outputs(&adapted, &Pass::inference());
        assert_ne!(found, base);
        let merged = outputs(&adapted.clone().materialize(), &Pass::inference());
        assert_eq!(found, merged, "to the bit");
        // So little is dropped that nothing is: factors beside their kernels.
        assert_near(
            &found,
            &outputs(&adapted, &Pass::training(Dropout { lora: 1e-12, features: 0.0 }, 1, 2, 3, 0)),
        );
        let dropped =
            outputs(&adapted, &Pass::training(Dropout { lora: 0.5, features: 0.0 }, 1, 2, 3, 0));
        assert_ne!(dropped, found);
        assert_eq!(
            dropped,
            outputs(&adapted, &Pass::training(Dropout { lora: 0.5, features: 0.0 }, 1, 2, 3, 0))
        );
    }
}

/// Puts factors of rank 2 beside a kernel.
struct Attach;

impl Reparameterizer for Attach {
    type Reparam = LoraAdapter;

    fn reparameterize<const D: usize>(
        &mut self,
        _: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<LoraAdapter>) {
        let shape = param.lazy_shape();
        if D != 4 {
            return (param, None);
        }
        let (outputs, inputs) = (shape[0], shape[1..].iter().product());
        let device = param.lazy_device();
        let (a, b) = (parameter([outputs, 2], &device), parameter([2, inputs], &device));
        (param, Some(LoraAdapter { a, b, scale: SCALE }))
    }
}

const SCALE: f64 = 1.5;
const IMAGE: [usize; 4] = [2, 4, 4, 3];
const OUTPUTS: usize = 5;

/// The convolution with factors in f64, as PEFT defines it: `conv(x, W) + s B conv(x, A)`, without
/// bias. `x [batch, h, w, in]`.
fn exactly(x: &[f64], arrays: [&[f64]; 3], kernel: usize, stride: usize) -> Vec<f64> {
    let [weight, a, b] = arrays;
    let convolved = |weight: &[f64], outputs: usize| -> Vec<f64> {
        let [batch, h, w, inputs] = IMAGE;
        let half = (kernel / 2) as isize;
        let mut result = Vec::new();
        for (image, y, x_at) in (0..batch).flat_map(|image| {
            (0..h)
                .step_by(stride)
                .flat_map(move |y| (0..w).step_by(stride).map(move |x| (image, y, x)))
        }) {
            for o in 0..outputs {
                let mut sum = 0.0;
                for (i, ky, kx) in (0..inputs).flat_map(|i| {
                    (0..kernel).flat_map(move |ky| (0..kernel).map(move |kx| (i, ky, kx)))
                }) {
                    let (y, x_at) = ((y + ky) as isize - half, (x_at + kx) as isize - half);
                    if (0..h as isize).contains(&y) && (0..w as isize).contains(&x_at) {
                        let at = ((image * h + y as usize) * w + x_at as usize) * inputs + i;
                        sum += weight[((o * inputs + i) * kernel + ky) * kernel + kx] * x[at];
                    }
                }
                result.push(sum);
            }
        }
        result
    };
    let low = convolved(a, 2);
    let mut result = convolved(weight, OUTPUTS);
    for (pixel, low) in result.chunks_mut(OUTPUTS).zip(low.chunks(2)) {
        for (o, y) in pixel.iter_mut().enumerate() {
            *y += SCALE * (b[2 * o] * low[0] + b[2 * o + 1] * low[1]);
        }
    }
    result
}

#[test]
fn gradients_of_the_factors_are_differences_of_values() {
    let device = Device::flex().autodiff();
    for (kernel, stride) in [(3, 1), (3, 2), (1, 1)] {
        let inputs = IMAGE[3];
        let counts = [
            IMAGE.iter().product(),
            OUTPUTS * inputs * kernel * kernel,
            2 * inputs * kernel * kernel,
            2 * OUTPUTS,
        ];
        let [x, weight, a, b] = std::array::from_fn(|of| wave(counts[of], of));
        let conv = Conv2d::new(inputs, OUTPUTS, kernel, stride, &device);
        let conv = conv.apply_reparameterization(Attach);
        let values = [("weight", &weight), (".lora_A.weight", &a), (".lora_B.weight", &b)];
        let values = values.map(|(name, values)| (name.to_owned(), values.clone())).into();
        let conv = fill(conv, values);
        let exact_inputs: Vec<Vec<f64>> =
            [&x, &weight, &a, &b].map(|v| v.iter().map(|x| f64::from(*x)).collect()).into();
        let result = |v: &[Vec<f64>]| exactly(&v[0], [&v[1], &v[2], &v[3]], kernel, stride);
        let weighing = wave(result(&exact_inputs).len(), 9);
        let loss = |v: &[Vec<f64>]| -> f64 {
            result(v).iter().zip(&weighing).map(|(y, w)| y * f64::from(*w)).sum()
        };
        let difference = |array: usize| -> Vec<f32> {
            let at = |index: usize, step: f64| {
                let mut inputs = exact_inputs.clone();
                inputs[array][index] += step;
                loss(&inputs)
            };
            let gradient = |index| ((at(index, 1e-4) - at(index, -1e-4)) / 2e-4) as f32;
            (0..exact_inputs[array].len()).map(gradient).collect()
        };
        for pass in
            [Pass::inference(), Pass::training(Dropout { lora: 1e-12, features: 0.0 }, 1, 2, 3, 0)]
        {
            let x =
                Tensor::<4>::from_data(TensorData::new(x.clone(), IMAGE), &device).require_grad();
            let y = conv.forward(x.clone(), &pass);
            let flat = y.clone().reshape([weighing.len()]);
            let exact: Vec<f32> = result(&exact_inputs).iter().map(|y| *y as f32).collect();
            assert_near(&exact, &flat.clone().into_data().try_into_vec::<f32>().expect("f32"));
            let weights = TensorData::new(weighing.clone(), [weighing.len()]);
            let gradients = (flat * Tensor::from_data(weights, &device)).sum().backward();
            let vec = |data: TensorData| data.try_into_vec::<f32>().expect("f32");
            let lora = conv.weight.adapter().expect("it was attached");
            let of_a = lora.b.val().grad(&gradients).expect("A is trained").into_data();
            let of_b = lora.a.val().grad(&gradients).expect("B is trained").into_data();
            assert_near(&difference(2), &vec(of_a));
            assert_near(&difference(3), &vec(of_b));
            assert_near(&difference(0), &vec(x.grad(&gradients).expect("x").into_data()));
        }
    }
}

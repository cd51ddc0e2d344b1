//! Every building block, forwards and backwards, beside the same in f64, where gradients are
//! differences of values: nothing of burn's or of the kernels' can hide there. On each path: fused,
//! generic on the CPU, generic on a GPU.

use burn::tensor::{Device, Tensor, TensorData};

mod exact;
mod resize;

use exact::{Windows, conv2d, gelu, group_norm, linear, normal, scaled, silu, upsampled};

use super::MatmulPrecision::F32;
use super::generic;
#[cfg(feature = "wgpu")]
use crate::testing::has_driver;

/// Arrays differ by so much of their largest number at most. f32 keeps seven digits, and sums here
/// have up to 300 terms.
const TOLERANCE: f64 = 1e-5;

/// Half the distance of the values whose difference is a gradient: what it leaves out is some 1e-8
/// of the gradient.
const STEP: f64 = 1e-4;

type Exact = Box<dyn Fn(&[Vec<f64>]) -> Vec<f64>>;
type OnDevice = Box<dyn Fn(Path, &[Tensor<1>]) -> Tensor<1>>;

/// A function of several arrays, given flat.
struct Case {
    name: &'static str,
    counts: Vec<usize>,
    /// The inputs are within ± this.
    range: f64,
    exact: Exact,
    on_device: OnDevice,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Path {
    /// What trainings take: fused on the CPU, generic elsewhere.
    Chosen,
    Generic,
}

/// Fixed numbers in [-range, range).
fn numbers(count: usize, stream: u64, range: f64) -> Vec<f32> {
    let hash = |i: u64| (i * 747_796_405 + stream * 2_891_336_453 + 1) as u32 as u64 * 0x45D_9F3B;
    let unit = |i: u64| (hash(i) >> 7 & 0xFFFF) as f64 / 32_768.0 - 1.0;
    (0..count as u64).map(|i| (range * unit(i)) as f32).collect()
}

fn flat<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    let count = tensor.shape().num_elements();
    tensor.reshape([count])
}

fn values(tensor: Tensor<1>) -> Vec<f64> {
    tensor.into_data().iter::<f32>().map(f64::from).collect()
}

impl Case {
    fn inputs(&self) -> Vec<Vec<f32>> {
        self.counts
            .iter()
            .zip(1..)
            .map(|(count, stream)| numbers(*count, stream, self.range))
            .collect()
    }

    /// The result, and then the gradient of every input, for a loss that weighs each number of the
    /// result differently.
    fn exactly(&self) -> Vec<Vec<f64>> {
        let mut inputs: Vec<Vec<f64>> = self
            .inputs()
            .iter()
            .map(|input| input.iter().map(|x| f64::from(*x)).collect())
            .collect();
        let result = (self.exact)(&inputs);
        let weights = numbers(result.len(), 99, 1.0);
        let loss = |inputs: &[Vec<f64>]| -> f64 {
            (self.exact)(inputs).iter().zip(&weights).map(|(y, w)| y * f64::from(*w)).sum()
        };
        let mut all = vec![result];
        for array in 0..inputs.len() {
            let gradient = (0..inputs[array].len()).map(|index| {
                let here = inputs[array][index];
                inputs[array][index] = here + STEP;
                let above = loss(&inputs);
                inputs[array][index] = here - STEP;
                let below = loss(&inputs);
                inputs[array][index] = here;
                (above - below) / (2.0 * STEP)
            });
            all.push(gradient.collect());
        }
        all
    }

    fn on(&self, device: &Device, path: Path) -> Vec<Vec<f64>> {
        let leaf = |values: Vec<f32>| {
            let count = values.len();
            Tensor::<1>::from_data(TensorData::new(values, [count]), device)
        };
        let inputs: Vec<Tensor<1>> =
            self.inputs().into_iter().map(|x| leaf(x).require_grad()).collect();
        let result = (self.on_device)(path, &inputs);
        let weights = leaf(numbers(result.dims()[0], 99, 1.0));
        let gradients = (result.clone() * weights).sum().backward();
        let mut all = vec![values(result)];
        all.extend(inputs.iter().map(|input| values(input.grad(&gradients).unwrap())));
        all
    }

    #[track_caller]
    fn assert_exact(&self, device: &Device, path: Path) {
        for (array, (exact, found)) in self.exactly().iter().zip(self.on(device, path)).enumerate()
        {
            assert_eq!(exact.len(), found.len(), "{}", self.name);
            let size = exact.iter().fold(0f64, |most, x| most.max(x.abs()));
            let off = exact.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0f64, f64::max);
            let what =
                if array == 0 { "result".into() } else { format!("gradient of input {array}") };
            assert!(
                off <= TOLERANCE * size,
                "{} ({path:?}): the {what} is off by {off}, of {size}",
                self.name
            );
        }
    }
}

fn projection() -> Case {
    Case {
        name: "linear",
        counts: vec![18 * 5, 7 * 5, 7],
        range: 1.0,
        exact: Box::new(|a| linear(&a[0], &a[1], &a[2])),
        on_device: Box::new(|path, a| {
            let (x, weight, bias) =
                (a[0].clone().reshape([2, 3, 3, 5]), a[1].clone().reshape([7, 5]), a[2].clone());
            flat(match path {
                Path::Chosen => super::linear(x, weight, Some(bias), F32),
                Path::Generic => generic::linear(x, weight, Some(bias)),
            })
        }),
    }
}

fn convolution(name: &'static str, [kernel, stride]: [usize; 2]) -> Case {
    const SIZES: [usize; 4] = [2, 6, 4, 4];
    Case {
        name,
        counts: vec![SIZES.iter().product(), 5 * 4 * kernel * kernel, 5],
        range: 1.0,
        exact: Box::new(move |a| conv2d(&a[0], SIZES, &a[1], &a[2], [kernel, stride])),
        on_device: Box::new(move |path, a| {
            let weight = a[1].clone().reshape([5, 4, kernel, kernel]);
            let (x, bias) = (a[0].clone().reshape(SIZES), a[2].clone());
            flat(match path {
                Path::Chosen => super::conv2d(x, weight, bias, stride, F32),
                Path::Generic => generic::conv2d(x, weight, bias, stride),
            })
        }),
    }
}

fn upsampled_convolution() -> Case {
    const SIZES: [usize; 4] = [2, 2, 3, 4];
    let exact = |a: &[Vec<f64>]| {
        let [batch, h, w, channels] = SIZES;
        conv2d(&upsampled(&a[0], SIZES), [batch, 2 * h, 2 * w, channels], &a[1], &a[2], [3, 1])
    };
    Case {
        name: "upsample_conv2d",
        counts: vec![SIZES.iter().product(), 5 * 4 * 9, 5],
        range: 1.0,
        exact: Box::new(exact),
        on_device: Box::new(|path, a| {
            let weight = a[1].clone().reshape([5, 4, 3, 3]);
            let (x, bias) = (a[0].clone().reshape(SIZES), a[2].clone());
            flat(match path {
                Path::Chosen => super::upsample_conv2d(x, weight, bias, F32),
                Path::Generic => generic::upsample_conv2d(x, weight, bias),
            })
        }),
    }
}

fn layer_norm() -> Case {
    let exact = |a: &[Vec<f64>]| {
        let rows: Vec<f64> = a[0].chunks(20).flat_map(normal).collect();
        scaled(&rows, &a[1], &a[2])
    };
    Case {
        name: "layer_norm",
        counts: vec![2 * 3 * 2 * 20, 20, 20],
        range: 1.0,
        exact: Box::new(exact),
        on_device: Box::new(|path, a| {
            let (x, weight, bias) =
                (a[0].clone().reshape([2, 3, 2, 20]), a[1].clone(), a[2].clone());
            flat(match path {
                Path::Chosen => super::layer_norm(x, weight, bias),
                Path::Generic => generic::layer_norm(x, weight, bias),
            })
        }),
    }
}

fn group_normalised_silu() -> Case {
    Case {
        name: "group_norm_silu",
        counts: vec![2 * 6 * 32, 32, 32],
        range: 3.0,
        exact: Box::new(|a| silu(group_norm(&a[0], [6, 32, 16], &a[1].repeat(2), &a[2].repeat(2)))),
        on_device: Box::new(|path, a| {
            let (x, weight, bias) =
                (a[0].clone().reshape([2, 3, 2, 32]), a[1].clone(), a[2].clone());
            flat(match path {
                Path::Chosen => super::group_norm_silu(x, weight, bias, 16),
                Path::Generic => generic::group_norm_silu(x, weight, bias, 16),
            })
        }),
    }
}

fn group_normalised() -> Case {
    Case {
        name: "group_norm, weights of each image",
        counts: vec![2 * 6 * 18, 2 * 18, 2 * 18],
        range: 3.0,
        exact: Box::new(|a| group_norm(&a[0], [6, 18, 9], &a[1], &a[2])),
        on_device: Box::new(|path, a| {
            let x = a[0].clone().reshape([2, 3, 2, 18]);
            let [weight, bias] = [&a[1], &a[2]].map(|values| values.clone().reshape([2, 18]));
            flat(match path {
                Path::Chosen => super::group_norm(x, weight, bias, 9),
                Path::Generic => generic::group_norm(x, weight, bias, 9),
            })
        }),
    }
}

fn perceptron() -> Case {
    let exact = |a: &[Vec<f64>]| {
        let hidden: Vec<f64> = linear(&a[0], &a[1], &a[2]).into_iter().map(gelu).collect();
        linear(&hidden, &a[3], &a[4])
    };
    Case {
        name: "mlp",
        counts: vec![2 * 2 * 3 * 5, 12 * 5, 12, 5 * 12, 5],
        range: 0.8,
        exact: Box::new(exact),
        on_device: Box::new(|path, a| {
            let x = a[0].clone().reshape([2, 2, 3, 5]);
            let weights = [a[1].clone().reshape([12, 5]), a[3].clone().reshape([5, 12])];
            let biases = [a[2].clone(), a[4].clone()];
            flat(match path {
                Path::Chosen => super::mlp(x, weights, biases, F32),
                Path::Generic => generic::mlp(x, weights, biases),
            })
        }),
    }
}

fn activation() -> Case {
    Case {
        name: "gelu",
        counts: vec![400],
        range: 4.0,
        exact: Box::new(|a| a[0].iter().copied().map(gelu).collect()),
        on_device: Box::new(|_, a| super::gelu(a[0].clone())),
    }
}

fn attention() -> Case {
    const HEADS: usize = 2;
    let windows = Windows { sizes: [2, 4, 2, 6], heads: HEADS, window: 2 };
    Case {
        name: "window_attention",
        counts: vec![2 * 4 * 2 * 18, 2 * 18, 9 * HEADS],
        range: 2.0,
        exact: Box::new(move |a| windows.attention(&a[0], &a[1], &a[2])),
        on_device: Box::new(|path, a| {
            let qkv = a[0].clone().reshape([2, 4, 2, 18]);
            let (qkv_t, table) = (a[1].clone().reshape([2, 18]), a[2].clone().reshape([9, HEADS]));
            flat(match path {
                Path::Chosen => super::window_attention(qkv, qkv_t, table, HEADS, 2, F32),
                Path::Generic => generic::window_attention(qkv, qkv_t, table, HEADS, 2),
            })
        }),
    }
}

fn whole_attention() -> Case {
    let windows = Windows { sizes: [2, 3, 3, 6], heads: 2, window: 3 };
    Case {
        name: "attention",
        counts: vec![2 * 3 * 3 * 18],
        range: 2.0,
        exact: Box::new(move |a| windows.attention(&a[0], &[0.0; 2 * 18], &[0.0; 25 * 2])),
        on_device: Box::new(|path, a| {
            let qkv = a[0].clone().reshape([2, 3, 3, 18]);
            flat(match path {
                Path::Chosen => super::attention(qkv, 2, F32),
                Path::Generic => generic::attention(qkv, 2),
            })
        }),
    }
}

fn cases() -> Vec<Case> {
    vec![
        projection(),
        convolution("conv2d 3x3", [3, 1]),
        convolution("conv2d 3x3, stride 2", [3, 2]),
        convolution("conv2d 1x1", [1, 1]),
        upsampled_convolution(),
        layer_norm(),
        group_normalised_silu(),
        group_normalised(),
        resize::halved(),
        resize::upsampling(),
        resize::joined(),
        resize::residual(),
        activation(),
        perceptron(),
        attention(),
        whole_attention(),
    ]
}

#[test]
fn every_value_and_gradient_on_the_cpu_is_the_true_one() {
    let device = Device::flex().autodiff();
    for path in [Path::Chosen, Path::Generic] {
        cases().iter().for_each(|case| case.assert_exact(&device, path));
    }
}

#[cfg(feature = "wgpu")]
#[test]
fn every_value_and_gradient_on_a_gpu_is_the_true_one() {
    let name = "kernels::gradcheck_tests::every_value_and_gradient_on_a_gpu_is_the_true_one";
    if !has_driver(name) {
        return;
    }
    let device = Device::wgpu(burn::tensor::DeviceKind::Cpu).autodiff();
    cases().iter().for_each(|case| case.assert_exact(&device, Path::Chosen));
}

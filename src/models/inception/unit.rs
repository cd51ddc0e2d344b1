//! A convolution with what follows each in this network: batch norm and ReLU.

use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor, TensorData, activation};

/// What batch norm adds to a variance, so that it divides by no zero.
const EPSILON: f64 = 0.001;

/// `relu(W * x + b)`, with batch norm inside `W` and `b`.
#[derive(Debug)]
pub(super) struct Unit {
    /// `[outputs, inputs, height, width]`.
    weight: Tensor<4>,
    /// `[outputs]`.
    bias: Tensor<1>,
    stride: usize,
    /// Above and below, left and right.
    padding: [usize; 2],
}

/// The tensors of a unit as a file has them: a weight, and four numbers for each output.
pub(super) struct Parts {
    pub weight: Vec<f32>,
    pub gain: Vec<f32>,
    pub shift: Vec<f32>,
    pub mean: Vec<f32>,
    pub variance: Vec<f32>,
}

impl Unit {
    /// `shape`: of the weight. `padded`: so that stride 1 keeps the picture's size.
    pub fn new(
        parts: &Parts,
        shape: [usize; 4],
        stride: usize,
        padded: bool,
        device: &Device,
    ) -> Self {
        let inner: usize = shape[1..].iter().product();
        let mut weight = Vec::with_capacity(parts.weight.len());
        let mut bias = Vec::with_capacity(shape[0]);
        for (output, row) in parts.weight.chunks_exact(inner).enumerate() {
            let variance = f64::from(parts.variance[output]);
            let scale = f64::from(parts.gain[output]) / (variance + EPSILON).sqrt();
            weight.extend(row.iter().map(|w| (f64::from(*w) * scale) as f32));
            let mean = f64::from(parts.mean[output]);
            bias.push((f64::from(parts.shift[output]) - mean * scale) as f32);
        }
        let padding = if padded { [shape[2] / 2, shape[3] / 2] } else { [0, 0] };
        Self {
            weight: Tensor::from_data(TensorData::new(weight, shape), device),
            bias: Tensor::from_data(TensorData::new(bias, [shape[0]]), device),
            stride,
            padding,
        }
    }

    /// `[batch, inputs, height, width]` to `[batch, outputs, …]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [y_pad, x_pad] = self.padding;
        let options = ConvOptions {
            stride: [self.stride; 2],
            padding: [(y_pad, y_pad), (x_pad, x_pad)],
            dilation: [1, 1],
            groups: 1,
        };
        activation::relu(conv2d(x, self.weight.clone(), Some(self.bias.clone()), options))
    }
}

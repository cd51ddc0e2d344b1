//! The parameters of each layer type, named and laid out as PyTorch has them.
//!
//! A layer holds numbers and says how to compute with them in one call; it knows nothing of the
//! network's shape. Images inside the network are `[batch, height, width, channels]`.

use burn::module::{LoraAdapter, Module, Param, ParamId};
use burn::tensor::{Device, Int, Tensor};

use super::pass::Pass;
use crate::kernels::{self, MatmulPrecision, Skip};

/// A parameter of zeros that takes no memory before its first use: initialisation and loading put
/// the numbers in.
pub fn parameter<const D: usize>(shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
    let zeros = move |device: &Device, grad| Tensor::zeros(shape, device).set_require_grad(grad);
    Param::uninitialized(ParamId::new(), zeros, device.clone(), true, shape.into())
}

/// `y = x Wᵀ + b`.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Param<Tensor<2>>,
    /// `[out]`.
    pub bias: Param<Tensor<1>>,
}

impl Linear {
    pub fn new(inputs: usize, outputs: usize, device: &Device) -> Self {
        Self { weight: parameter([outputs, inputs], device), bias: parameter([outputs], device) }
    }

    /// `[.., in]` to `[.., out]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>, pass: &Pass) -> Tensor<D> {
        adapted(x, &self.weight, Some(self.bias.val()), pass)
    }

    /// [`forward`](Self::forward), and the sum of that and what `skip` brings.
    pub fn forward_and_skip(&self, x: Tensor<4>, skip: Skip, pass: &Pass) -> Tensor<4> {
        if factors_beside(&self.weight, pass).is_some() {
            return skip.added_to(self.forward(x, pass));
        }
        let (weight, bias) = (self.weight.val(), self.bias.val());
        kernels::linear_and_skip(x, weight, bias, skip, pass.matmul_precision())
    }
}

/// `y = x Wᵀ`.
#[derive(Module, Debug)]
pub struct Projection {
    /// `[out, in]`.
    pub weight: Param<Tensor<2>>,
}

impl Projection {
    pub fn new(inputs: usize, outputs: usize, device: &Device) -> Self {
        Self { weight: parameter([outputs, inputs], device) }
    }

    /// `[.., in]` to `[.., out]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>, pass: &Pass) -> Tensor<D> {
        adapted(x, &self.weight, None, pass)
    }
}

/// A projection, and the low-rank one beside it where LoRA has put one: `x Wᵀ + b + s (drop(x) Aᵀ)
/// Bᵀ` (Hu et al. 2021, arXiv 2106.09685, equation 3). Without dropout `W + s B A` is one matrix
/// that gives the same; its gradient is as large as a full one, which for small projections costs
/// less than two further products.
fn adapted<const D: usize>(
    x: Tensor<D>,
    weight: &Param<Tensor<2>>,
    bias: Option<Tensor<1>>,
    pass: &Pass,
) -> Tensor<D> {
    let precision = pass.matmul_precision();
    let Some(lora) = factors_beside(weight, pass) else {
        return kernels::linear(x, weight.val(), bias, precision);
    };
    // burn's `a [out, r]` is LoRA's B and its `b [r, in]` is A: its weights are the other way
    // round.
    let low = kernels::linear(pass.drop(x.clone()), lora.b.val(), None, precision); // [.., r]
    kernels::linear(x, weight.base(), bias, precision)
        + kernels::linear(low * lora.scale, lora.a.val(), None, precision)
}

/// The factors, where they are computed beside the weight and not as part of it.
fn factors_beside<'a>(weight: &'a Param<Tensor<2>>, pass: &Pass) -> Option<&'a LoraAdapter> {
    weight.adapter().filter(|lora| pass.drops() || is_cheaper_beside(lora))
}

/// Whether training the factors beside a projection takes clearly fewer multiplications than
/// training them as part of its weight: per row `3 r (in + out)` against `in out`, and narrow
/// products run at a fraction of the speed.
fn is_cheaper_beside(lora: &LoraAdapter) -> bool {
    let ([outputs, rank], [_, inputs]) = (lora.a.dims(), lora.b.dims());
    lora.a.is_require_grad() && 8 * rank * (inputs + outputs) < inputs * outputs
}

/// A convolution with a 1x1 kernel: `y = x Wᵀ + b` at each pixel. PyTorch has its weight, and PEFT
/// the factors beside it, with two axes more, each of length 1.
#[derive(Module, Debug)]
pub struct Pointwise {
    /// `[out, in]`; `[out, in, 1, 1]` in a state dictionary.
    pub weight: Param<Tensor<2>>,
    /// `[out]`.
    pub bias: Param<Tensor<1>>,
}

impl Pointwise {
    pub fn new(inputs: usize, outputs: usize, device: &Device) -> Self {
        Self { weight: parameter([outputs, inputs], device), bias: parameter([outputs], device) }
    }

    /// `[batch, h, w, in]` to `[batch, h, w, out]`.
    pub fn forward(&self, x: Tensor<4>, pass: &Pass) -> Tensor<4> {
        adapted(x, &self.weight, Some(self.bias.val()), pass)
    }
}

/// A convolution with a square kernel, padded so that stride 1 keeps the image's size.
#[derive(Module, Debug)]
pub struct Conv2d {
    /// `[out, in, kernel, kernel]`.
    pub weight: Param<Tensor<4>>,
    /// `[out]`.
    pub bias: Param<Tensor<1>>,
    /// Step between output pixels.
    pub stride: usize,
}

impl Conv2d {
    pub fn new(
        inputs: usize,
        outputs: usize,
        kernel: usize,
        stride: usize,
        device: &Device,
    ) -> Self {
        Self {
            weight: parameter([outputs, inputs, kernel, kernel], device),
            bias: parameter([outputs], device),
            stride,
        }
    }

    /// `[batch, h, w, in]` to `[batch, h / stride, w / stride, out]`.
    pub fn forward(&self, x: Tensor<4>, pass: &Pass) -> Tensor<4> {
        let (bias, precision) = (self.bias.val(), pass.matmul_precision());
        match self.lora(pass) {
            Some(lora) => {
                let y =
                    kernels::conv2d(x.clone(), self.weight.base(), bias, self.stride, precision);
                y + self.beside(lora, pass.drop(x), precision)
            }
            None => kernels::conv2d(x, self.weight.val(), bias, self.stride, precision),
        }
    }

    /// The same of the image upsampled to twice its size (nearest neighbour), for a 3x3 kernel of
    /// stride 1: `[batch, h, w, in]` to `[batch, 2 h, 2 w, out]`.
    pub fn forward_upsampled(&self, x: Tensor<4>, pass: &Pass) -> Tensor<4> {
        let (bias, precision) = (self.bias.val(), pass.matmul_precision());
        match self.lora(pass) {
            Some(lora) => {
                let y = kernels::upsample_conv2d(x.clone(), self.weight.base(), bias, precision);
                y + self.beside(lora, pass.drop(kernels::upsample(x)), precision)
            }
            None => kernels::upsample_conv2d(x, self.weight.val(), bias, precision),
        }
    }

    /// The factors, where they must be computed beside the kernel: their input is another one than
    /// the kernel's. Else kernel and factors are one kernel.
    fn lora(&self, pass: &Pass) -> Option<&LoraAdapter> {
        self.weight.adapter().filter(|_| pass.drops())
    }

    /// What the factors add, as PEFT has it for a convolution: one with `r` outputs and a kernel of
    /// the same size, stride and padding, then a 1x1 one.
    fn beside(&self, lora: &LoraAdapter, x: Tensor<4>, precision: MatmulPrecision) -> Tensor<4> {
        let [rank, _] = lora.b.dims();
        let [_, inputs, height, width] = self.weight.dims();
        let kernel = lora.b.val().reshape([rank, inputs, height, width]);
        let none = Tensor::zeros([rank], (&x.device(), x.dtype()));
        let low = kernels::conv2d(x, kernel, none, self.stride, precision); // [batch, h, w, r]
        kernels::linear(low * lora.scale, lora.a.val(), None, precision)
    }
}

/// Scale and shift of a layer norm or a group norm.
#[derive(Module, Debug)]
pub struct Norm {
    /// `[channels]`.
    pub weight: Param<Tensor<1>>,
    /// `[channels]`.
    pub bias: Param<Tensor<1>>,
}

impl Norm {
    pub fn new(channels: usize, device: &Device) -> Self {
        Self { weight: parameter([channels], device), bias: parameter([channels], device) }
    }

    /// Layer norm over the last axis.
    pub fn layer(&self, x: Tensor<4>) -> Tensor<4> {
        kernels::layer_norm(x, self.weight.val(), self.bias.val())
    }

    /// Layer norm, and `x` to be added to what is made of it.
    pub fn layer_and_skip(&self, x: Tensor<4>) -> (Tensor<4>, Skip) {
        kernels::layer_norm_and_skip(x, self.weight.val(), self.bias.val())
    }

    /// Group norm, with `group` channels a group.
    pub fn group(&self, x: Tensor<4>, group: usize) -> Tensor<4> {
        kernels::group_norm(x, self.weight.val(), self.bias.val(), group)
    }

    /// Swish of a group norm, with `group` channels a group.
    pub fn group_silu(&self, x: Tensor<4>, group: usize) -> Tensor<4> {
        kernels::group_norm_silu(x, self.weight.val(), self.bias.val(), group)
    }

    /// [`group_silu`](Self::group_silu), and `x` to be added to what is made of it.
    pub fn group_silu_and_skip(&self, x: Tensor<4>, group: usize) -> (Tensor<4>, Skip) {
        kernels::group_norm_silu_and_skip(x, self.weight.val(), self.bias.val(), group)
    }
}

/// A table of rows.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[rows, width]`.
    pub weight: Param<Tensor<2>>,
}

impl Embedding {
    pub fn new(rows: usize, width: usize, device: &Device) -> Self {
        Self { weight: parameter([rows, width], device) }
    }

    /// The rows at `index`: `[batch]` to `[batch, width]`.
    pub fn forward(&self, index: Tensor<1, Int>) -> Tensor<2> {
        self.weight.val().select(0, index)
    }
}

//! Convolution with zero padding of half the kernel, over `[batch, height, width, channels]`.

use burn::tensor::Shape;
use burn_cubecl::tensor::CubeTensor;

use super::autodiff_op::{Cost, Kernel};
use super::product::{Extras, Patches, Product, View};

/// Inputs: the image `[batch, height, width, inputs]`, the weight `[outputs, inputs, kernel,
/// kernel]` and the bias `[outputs]`.
#[derive(Debug, Clone)]
pub(super) struct Conv {
    pub batch: usize,
    pub height: usize,
    pub width: usize,
    pub inputs: usize,
    pub outputs: usize,
    pub kernel: usize,
    pub stride: usize,
}

impl Conv {
    fn grid(&self) -> [usize; 2] {
        [self.height, self.width].map(|side| side.div_ceil(self.stride))
    }

    fn taps(&self) -> usize {
        self.kernel * self.kernel
    }

    fn positions(&self) -> usize {
        self.batch * self.grid()[0] * self.grid()[1]
    }

    fn patches(&self) -> Patches {
        Patches {
            grid: self.grid(),
            image: [self.height, self.width],
            channels: self.inputs,
            kernel: self.kernel,
            stride: self.stride,
            backwards: false,
        }
    }

    fn weight_gradient(&self) -> Product {
        Product {
            rows: self.outputs,
            columns: self.taps() * self.inputs,
            depth: self.positions(),
            left: View::columns_of(self.outputs),
            right: View::Patches(self.patches()),
            extras: Extras::default(),
        }
    }
}

impl Kernel<3> for Conv {
    const NAME: &'static str = "conv2d";

    fn shape(&self) -> Shape {
        let [height, width] = self.grid();
        [self.batch, height, width, self.outputs].into()
    }

    fn forward(&self, [x, weight, bias]: [CubeTensor; 3]) -> Vec<CubeTensor> {
        let product = Product {
            rows: self.positions(),
            columns: self.outputs,
            depth: self.taps() * self.inputs,
            left: View::Patches(self.patches()),
            right: View::Taps {
                inner: self.inputs,
                step: self.taps(),
                columns: self.taps() * self.inputs,
            },
            extras: Extras::default(),
        };
        vec![product.launch([&x, &weight], Some(&bias), None, self.shape())]
    }

    fn backward(
        &self,
        [x, weight, _]: [CubeTensor; 3],
        _: &[CubeTensor],
        grad: CubeTensor,
        [wants_x, wants_weight, wants_bias]: [bool; 3],
    ) -> [Option<CubeTensor>; 3] {
        let of_x = wants_x.then(|| {
            let product = Product {
                rows: self.batch * self.height * self.width,
                columns: self.inputs,
                depth: self.taps() * self.outputs,
                left: View::Patches(Patches {
                    grid: [self.height, self.width],
                    image: self.grid(),
                    channels: self.outputs,
                    backwards: true,
                    ..self.patches()
                }),
                right: View::Taps {
                    inner: self.outputs,
                    step: self.taps() * self.inputs,
                    columns: self.taps(),
                },
                extras: Extras::default(),
            };
            let shape = [self.batch, self.height, self.width, self.inputs];
            product.launch([&grad, &weight], None, None, shape.into())
        });
        if !(wants_weight || wants_bias) {
            return [of_x, None, None];
        }
        let shape = [self.outputs, self.inputs, self.kernel, self.kernel];
        let [of_weight, of_bias] =
            self.weight_gradient().launch_in_parts([&grad, &x], self.taps(), shape.into());
        [of_x, wants_weight.then_some(of_weight), wants_bias.then_some(of_bias)]
    }

    fn cost(&self, gradient: bool) -> Cost {
        if gradient { Cost::of_parts(&self.weight_gradient()) } else { Cost::default() }
    }
}

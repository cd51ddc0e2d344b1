//! Convolution with zero padding of half the kernel, over `[batch, height, width, channels]`.

use burn::tensor::Shape;
use burn_cubecl::tensor::CubeTensor;

use super::autodiff_op::{Cost, Kernel};
use super::product::{Extras, Patches, Product, View};
use super::resize::add_squares;

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
    /// Of the image upsampled to twice its size (nearest neighbour).
    pub doubled: bool,
    /// Of a number.
    pub bytes: usize,
}

impl Conv {
    /// Height and width of the image that the kernel moves over.
    fn sides(&self) -> [usize; 2] {
        [self.height, self.width].map(|side| if self.doubled { 2 * side } else { side })
    }

    /// Height and width of the result.
    fn grid(&self) -> [usize; 2] {
        self.sides().map(|side| side.div_ceil(self.stride))
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
            doubled: self.doubled,
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
            let [height, width] = self.sides();
            let product = Product {
                rows: self.batch * height * width,
                columns: self.inputs,
                depth: self.taps() * self.outputs,
                left: View::Patches(Patches {
                    grid: [height, width],
                    image: self.grid(),
                    channels: self.outputs,
                    doubled: false,
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
            let shape = [self.batch, height, width, self.inputs];
            let of_image = product.launch([&grad, &weight], None, None, shape.into());
            if self.doubled { add_squares(of_image, shape, 1.0) } else { of_image }
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
        if !gradient {
            return Cost::default();
        }
        let [height, width] = self.sides();
        let of_image = 2 * (self.batch * height * width * self.inputs * self.bytes) as u64;
        let inner_bytes = if self.doubled { of_image } else { 0 };
        Cost::of_parts(&self.weight_gradient()) + Cost { inner_bytes, ..Cost::default() }
    }
}

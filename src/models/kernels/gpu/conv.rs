//! Convolution with zero padding of half the kernel, over `[batch, height, width, channels]`.

use burn::tensor::{DType, Shape};
use burn_cubecl::tensor::CubeTensor;

use super::autodiff_op::{Cost, Kernel};
use super::product::gradients::{Gradients, OfWeight, add_up};
use super::product::{Epilogue, Extras, Patches, Product, View};
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
    pub dtype: DType,
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

    /// The image that the kernel moves over.
    fn moved_over(&self) -> [usize; 4] {
        let [height, width] = self.sides();
        [self.batch, height, width, self.inputs]
    }

    /// The gradient of the image that the kernel moves over.
    fn of_image(&self) -> Product {
        let [height, width] = self.sides();
        Product {
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
        }
    }

    fn of_weight(&self) -> OfWeight {
        let product = Product {
            rows: self.outputs,
            columns: self.taps() * self.inputs,
            depth: self.positions(),
            left: View::columns_of(self.outputs),
            right: View::Patches(self.patches()),
            extras: Extras::default(),
        };
        OfWeight {
            product,
            taps: self.taps(),
            shape: [self.outputs, self.inputs, self.kernel, self.kernel].into(),
            bias: true,
            dtype: self.dtype,
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
        let epilogue = Epilogue { bias: Some(&bias), ..Epilogue::default() };
        vec![product.launch([&x, &weight], epilogue, self.shape())]
    }

    fn backward(
        &self,
        [x, weight, _]: [CubeTensor; 3],
        _: &[CubeTensor],
        grad: CubeTensor,
        [wants_x, wants_weight, wants_bias]: [bool; 3],
    ) -> [Option<CubeTensor>; 3] {
        let gradients = Gradients {
            of_input: wants_x.then(|| (self.of_image(), self.moved_over().into())),
            of_weight: (wants_weight || wants_bias).then(|| self.of_weight()),
        };
        let (of_image, parts) = gradients.launch(&grad, &weight, &x);
        let of_x = of_image.map(|of_image| {
            if self.doubled { add_squares(of_image, self.moved_over(), 1.0) } else { of_image }
        });
        let [of_weight, of_bias] = add_up(parts);
        [of_x, of_weight.filter(|_| wants_weight), of_bias.filter(|_| wants_bias)]
    }

    fn cost(&self, gradient: bool) -> Cost {
        if !gradient {
            return Cost::default();
        }
        let numbers: usize = self.moved_over().iter().product();
        let of_image = 2 * (numbers * self.dtype.size()) as u64;
        let inner_bytes = if self.doubled { of_image } else { 0 };
        Cost::of_parts(&self.of_weight()) + Cost { inner_bytes, ..Cost::default() }
    }
}

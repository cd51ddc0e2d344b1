//! `x Wᵀ + b` over the last axis.

use burn::tensor::{DType, Shape};
use burn_cubecl::tensor::CubeTensor;

use super::autodiff_op::{Cost, Kernel, Waiting};
use super::product::gradients::{Gradients, OfWeight, add_up};
use super::product::{Epilogue, Extras, Product, View};

/// Inputs: `x [.., inputs]`, the weight `[outputs, inputs]`, the bias `[outputs]` if there are
/// three, and what is added to the result if there are four.
#[derive(Debug, Clone)]
pub(super) struct Linear {
    /// Of the result.
    pub shape: Shape,
    pub inputs: usize,
    pub outputs: usize,
    pub skips: Vec<Waiting>,
}

/// `x Wᵀ` with `x [positions, inputs]`, `W [outputs, inputs]`.
pub(super) fn forward(positions: usize, inputs: usize, outputs: usize) -> Product {
    Product {
        rows: positions,
        columns: outputs,
        depth: inputs,
        left: View::rows_of(inputs),
        right: View::columns_of(inputs),
        extras: Extras::default(),
    }
}

/// The gradient of `x`: that of the result, `[positions, outputs]`, times `W`.
pub(super) fn backward(positions: usize, inputs: usize, outputs: usize) -> Product {
    Product {
        rows: positions,
        columns: inputs,
        depth: outputs,
        left: View::rows_of(outputs),
        right: View::rows_of(inputs),
        extras: Extras::default(),
    }
}

/// The gradient of `W`: that of the result, transposed, times `x`.
pub(super) fn of_weight(positions: usize, inputs: usize, outputs: usize, bias: bool) -> OfWeight {
    let product = Product {
        rows: outputs,
        columns: inputs,
        depth: positions,
        left: View::columns_of(outputs),
        right: View::rows_of(inputs),
        extras: Extras::default(),
    };
    OfWeight { product, taps: 1, shape: [outputs, inputs].into(), bias, dtype: DType::F32 }
}

impl Linear {
    fn positions(&self) -> usize {
        self.shape.num_elements() / self.outputs
    }

    fn launch_forward(
        &self,
        [x, weight]: [&CubeTensor; 2],
        bias: Option<&CubeTensor>,
        plus: Option<&CubeTensor>,
    ) -> Vec<CubeTensor> {
        let product = forward(self.positions(), self.inputs, self.outputs);
        let epilogue = Epilogue { bias, plus: [plus, None], ..Epilogue::default() };
        vec![product.launch([x, weight], epilogue, self.shape.clone())]
    }

    fn of_weight(&self, bias: bool) -> OfWeight {
        of_weight(self.positions(), self.inputs, self.outputs, bias)
    }

    fn launch_backward(
        &self,
        [x, weight]: [&CubeTensor; 2],
        grad: &CubeTensor,
        [wants_x, wants_weight, wants_bias]: [bool; 3],
    ) -> [Option<CubeTensor>; 3] {
        let of_input = || {
            let product = backward(self.positions(), self.inputs, self.outputs);
            (product, x.meta.shape().clone())
        };
        let gradients = Gradients {
            of_input: wants_x.then(of_input),
            of_weight: (wants_weight || wants_bias).then(|| self.of_weight(wants_bias)),
        };
        let (of_x, parts) = gradients.launch(grad, weight, x);
        let [of_weight, of_bias] = add_up(parts);
        [of_x, of_weight.filter(|_| wants_weight), of_bias.filter(|_| wants_bias)]
    }

    fn costs(&self, gradient: bool, bias: bool) -> Cost {
        if gradient { Cost::of_parts(&self.of_weight(bias)) } else { Cost::default() }
    }
}

impl Kernel<4> for Linear {
    const NAME: &'static str = "linear";

    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn forward(&self, [x, weight, bias, plus]: [CubeTensor; 4]) -> Vec<CubeTensor> {
        self.launch_forward([&x, &weight], Some(&bias), Some(&plus))
    }

    fn backward(
        &self,
        [x, weight, ..]: [CubeTensor; 4],
        _: &[CubeTensor],
        grad: CubeTensor,
        [wants_x, wants_weight, wants_bias, _]: [bool; 4],
    ) -> [Option<CubeTensor>; 4] {
        let wanted = [wants_x, wants_weight, wants_bias];
        let [of_x, of_weight, of_bias] = self.launch_backward([&x, &weight], &grad, wanted);
        [of_x, of_weight, of_bias, None]
    }

    fn skips(&self) -> &[Waiting] {
        &self.skips
    }

    fn cost(&self, gradient: bool) -> Cost {
        let added_bytes = (self.shape.num_elements() * DType::F32.size()) as u64;
        Cost { added_bytes, ..self.costs(gradient, true) }
    }
}

impl Kernel<3> for Linear {
    const NAME: &'static str = "linear";

    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn forward(&self, [x, weight, bias]: [CubeTensor; 3]) -> Vec<CubeTensor> {
        self.launch_forward([&x, &weight], Some(&bias), None)
    }

    fn backward(
        &self,
        [x, weight, _]: [CubeTensor; 3],
        _: &[CubeTensor],
        grad: CubeTensor,
        wanted: [bool; 3],
    ) -> [Option<CubeTensor>; 3] {
        self.launch_backward([&x, &weight], &grad, wanted)
    }

    fn cost(&self, gradient: bool) -> Cost {
        self.costs(gradient, true)
    }
}

impl Kernel<2> for Linear {
    const NAME: &'static str = "linear";

    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn forward(&self, [x, weight]: [CubeTensor; 2]) -> Vec<CubeTensor> {
        self.launch_forward([&x, &weight], None, None)
    }

    fn backward(
        &self,
        [x, weight]: [CubeTensor; 2],
        _: &[CubeTensor],
        grad: CubeTensor,
        [wants_x, wants_weight]: [bool; 2],
    ) -> [Option<CubeTensor>; 2] {
        let [of_x, of_weight, _] =
            self.launch_backward([&x, &weight], &grad, [wants_x, wants_weight, false]);
        [of_x, of_weight]
    }

    fn cost(&self, gradient: bool) -> Cost {
        self.costs(gradient, false)
    }
}

//! `x Wᵀ + b` over the last axis.

use burn::tensor::Shape;
use burn_cubecl::tensor::CubeTensor;

use super::autodiff_op::{Cost, Kernel};
use super::product::{Extras, Product, View};

/// Inputs: `x [.., inputs]`, the weight `[outputs, inputs]`, and the bias `[outputs]` if there are
/// three.
#[derive(Debug, Clone)]
pub(super) struct Linear {
    /// Of the result.
    pub shape: Shape,
    pub inputs: usize,
    pub outputs: usize,
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
pub(super) fn of_weight(positions: usize, inputs: usize, outputs: usize) -> Product {
    Product {
        rows: outputs,
        columns: inputs,
        depth: positions,
        left: View::columns_of(outputs),
        right: View::rows_of(inputs),
        extras: Extras::default(),
    }
}

impl Linear {
    fn positions(&self) -> usize {
        self.shape.num_elements() / self.outputs
    }

    fn product(&self, of: fn(usize, usize, usize) -> Product) -> Product {
        of(self.positions(), self.inputs, self.outputs)
    }

    fn gradients(
        &self,
        [x, weight]: [&CubeTensor; 2],
        grad: &CubeTensor,
        [wants_x, wants_weight, wants_bias]: [bool; 3],
    ) -> [Option<CubeTensor>; 3] {
        let of_x = wants_x.then(|| {
            let shape = x.meta.shape().clone();
            self.product(backward).launch([grad, weight], None, None, shape)
        });
        if !(wants_weight || wants_bias) {
            return [of_x, None, None];
        }
        let shape = [self.outputs, self.inputs].into();
        if !wants_bias {
            let of_weight = self.product(of_weight).launch_plain([grad, x], shape);
            return [of_x, Some(of_weight), None];
        }
        let [of_weight, of_bias] = self.product(of_weight).launch_in_parts([grad, x], 1, shape);
        [of_x, wants_weight.then_some(of_weight), wants_bias.then_some(of_bias)]
    }

    fn costs(&self, gradient: bool) -> Cost {
        if gradient { Cost::of_parts(&self.product(of_weight)) } else { Cost::default() }
    }
}

impl Kernel<3> for Linear {
    const NAME: &'static str = "linear";

    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn forward(&self, [x, weight, bias]: [CubeTensor; 3]) -> Vec<CubeTensor> {
        let shape = self.shape.clone();
        vec![self.product(forward).launch([&x, &weight], Some(&bias), None, shape)]
    }

    fn backward(
        &self,
        [x, weight, _]: [CubeTensor; 3],
        _: &[CubeTensor],
        grad: CubeTensor,
        wanted: [bool; 3],
    ) -> [Option<CubeTensor>; 3] {
        self.gradients([&x, &weight], &grad, wanted)
    }

    fn cost(&self, gradient: bool) -> Cost {
        self.costs(gradient)
    }
}

impl Kernel<2> for Linear {
    const NAME: &'static str = "linear";

    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn forward(&self, [x, weight]: [CubeTensor; 2]) -> Vec<CubeTensor> {
        let shape = self.shape.clone();
        vec![self.product(forward).launch([&x, &weight], None, None, shape)]
    }

    fn backward(
        &self,
        [x, weight]: [CubeTensor; 2],
        _: &[CubeTensor],
        grad: CubeTensor,
        [wants_x, wants_weight]: [bool; 2],
    ) -> [Option<CubeTensor>; 2] {
        let [of_x, of_weight, _] =
            self.gradients([&x, &weight], &grad, [wants_x, wants_weight, false]);
        [of_x, of_weight]
    }

    fn cost(&self, gradient: bool) -> Cost {
        self.costs(gradient)
    }
}

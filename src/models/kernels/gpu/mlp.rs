//! A perceptron with one hidden layer and the exact GELU.

use burn::tensor::{DType, Shape};
use burn_cubecl::tensor::CubeTensor;

use super::autodiff_op::{Cost, Kernel};
use super::linear;
use super::product::{Extras, Product};

/// Inputs: `x [.., width]`, the weight `[hidden, width]` and bias `[hidden]` of the hidden layer,
/// and those of the last one, `[width, hidden]` and `[width]`.
///
/// What is kept is the hidden layer before its GELU: each product that needs it behind the GELU
/// computes that where it reads it.
#[derive(Debug, Clone)]
pub(super) struct Mlp {
    pub shape: Shape,
    pub width: usize,
    pub hidden: usize,
    pub dtype: DType,
}

impl Mlp {
    fn positions(&self) -> usize {
        self.shape.num_elements() / self.width
    }

    fn hidden_shape(&self) -> Shape {
        [self.positions(), self.hidden].into()
    }

    /// The gradients of both weights.
    fn of_weights(&self) -> [Product; 2] {
        let extras = Extras { gelu_right: true, ..Extras::default() };
        let second = linear::of_weight(self.positions(), self.hidden, self.width);
        [linear::of_weight(self.positions(), self.width, self.hidden), Product { extras, ..second }]
    }
}

impl Kernel<5> for Mlp {
    const NAME: &'static str = "mlp";

    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn kept(&self) -> Vec<(Shape, DType)> {
        vec![(self.hidden_shape(), self.dtype)]
    }

    fn forward(&self, [x, w1, b1, w2, b2]: [CubeTensor; 5]) -> Vec<CubeTensor> {
        let (positions, shape) = (self.positions(), self.shape.clone());
        let hidden = linear::forward(positions, self.width, self.hidden).launch(
            [&x, &w1],
            Some(&b1),
            None,
            self.hidden_shape(),
        );
        let extras = Extras { gelu_left: true, ..Extras::default() };
        let last = Product { extras, ..linear::forward(positions, self.hidden, self.width) };
        vec![last.launch([&hidden, &w2], Some(&b2), None, shape), hidden]
    }

    fn backward(
        &self,
        [x, w1, _, w2, _]: [CubeTensor; 5],
        kept: &[CubeTensor],
        grad: CubeTensor,
        wanted: [bool; 5],
    ) -> [Option<CubeTensor>; 5] {
        let (positions, hidden) = (self.positions(), &kept[0]);
        let [first, second] = self.of_weights();
        let extras = Extras { gelu_slope: true, ..Extras::default() };
        let of_hidden = Product { extras, ..linear::backward(positions, self.hidden, self.width) }
            .launch([&grad, &w2], None, Some(hidden), self.hidden_shape());
        let mut found = [None, None, None, None, None];
        if wanted[0] {
            let product = linear::backward(positions, self.width, self.hidden);
            found[0] = Some(product.launch([&of_hidden, &w1], None, None, self.shape.clone()));
        }
        if wanted[1] || wanted[2] {
            let shape = [self.hidden, self.width].into();
            let [weight, bias] = first.launch_in_parts([&of_hidden, &x], 1, shape);
            found[1] = wanted[1].then_some(weight);
            found[2] = wanted[2].then_some(bias);
        }
        if wanted[3] || wanted[4] {
            let shape = [self.width, self.hidden].into();
            let [weight, bias] = second.launch_in_parts([&grad, hidden], 1, shape);
            found[3] = wanted[3].then_some(weight);
            found[4] = wanted[4].then_some(bias);
        }
        found
    }

    fn cost(&self, gradient: bool) -> Cost {
        if !gradient {
            // The hidden layer is read again.
            return Cost { inner_bytes: self.hidden_bytes(), ..Cost::default() };
        }
        let [first, second] = self.of_weights().map(|product| Cost::of_parts(&product));
        // Its gradient is written, and read for the weight and for x; and it is itself read twice.
        let of_hidden = Cost { inner_bytes: 4 * self.hidden_bytes(), ..Cost::default() };
        first + second + of_hidden
    }
}

impl Mlp {
    fn hidden_bytes(&self) -> u64 {
        (self.positions() * self.hidden * self.dtype.size()) as u64
    }
}

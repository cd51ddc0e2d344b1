//! A perceptron with one hidden layer and the exact GELU.

use burn::tensor::{DType, Shape};
use burn_cubecl::tensor::CubeTensor;

use super::autodiff_op::{Cost, Kernel, Waiting};
use super::linear;
use super::product::gradients::{Gradients, OfWeight, add_up_both};
use super::product::{Epilogue, Extras, Product};

/// Inputs: `x [.., width]`, the weight `[hidden, width]` and bias `[hidden]` of the hidden layer,
/// those of the last one, `[width, hidden]` and `[width]`, and if there are seven, two arrays that
/// are added to the result.
///
/// What is kept is the hidden layer before its GELU: each product that needs it behind the GELU
/// computes that where it reads it.
#[derive(Debug, Clone)]
pub(super) struct Mlp {
    pub shape: Shape,
    pub width: usize,
    pub hidden: usize,
    pub dtype: DType,
    pub skips: Vec<Waiting>,
}

impl Mlp {
    fn positions(&self) -> usize {
        self.shape.num_elements() / self.width
    }

    fn hidden_shape(&self) -> Shape {
        [self.positions(), self.hidden].into()
    }

    /// The gradients of both weights.
    fn of_weights(&self) -> [OfWeight; 2] {
        let first = linear::of_weight(self.positions(), self.width, self.hidden, true);
        let mut second = linear::of_weight(self.positions(), self.hidden, self.width, true);
        second.product.extras.gelu_right = true;
        [first, second]
    }

    fn launch_forward(
        &self,
        [x, w1, b1, w2, b2]: [&CubeTensor; 5],
        plus: [Option<&CubeTensor>; 2],
    ) -> Vec<CubeTensor> {
        let epilogue = |bias| Epilogue { bias: Some(bias), ..Epilogue::default() };
        let first = linear::forward(self.positions(), self.width, self.hidden);
        let hidden = first.launch([x, w1], epilogue(b1), self.hidden_shape());
        let extras = Extras { gelu_left: true, ..Extras::default() };
        let last = Product { extras, ..linear::forward(self.positions(), self.hidden, self.width) };
        let epilogue = Epilogue { plus, ..epilogue(b2) };
        vec![last.launch([&hidden, w2], epilogue, self.shape.clone()), hidden]
    }

    /// The gradients of the first five inputs.
    fn launch_backward(
        &self,
        [x, w1, w2]: [&CubeTensor; 3],
        hidden: &CubeTensor,
        grad: &CubeTensor,
        [wants_x, wants_first, wants_second]: [bool; 3],
    ) -> [Option<CubeTensor>; 5] {
        let [first, second] = self.of_weights();
        let extras = Extras { gelu_slope: true, ..Extras::default() };
        let of_hidden =
            Product { extras, ..linear::backward(self.positions(), self.hidden, self.width) };
        let last = Gradients {
            of_input: (wants_x || wants_first).then(|| (of_hidden, self.hidden_shape())),
            of_weight: wants_second.then_some(second),
        };
        let (of_hidden, second) = last.launch(grad, w2, hidden);
        let of_x = linear::backward(self.positions(), self.width, self.hidden);
        let hidden_layer = Gradients {
            of_input: wants_x.then(|| (of_x, self.shape.clone())),
            of_weight: wants_first.then_some(first),
        };
        let (of_x, first) = match of_hidden {
            Some(of_hidden) => hidden_layer.launch(&of_hidden, w1, x),
            None => (None, None),
        };
        let [[of_w1, of_b1], [of_w2, of_b2]] = add_up_both([first, second]);
        [of_x, of_w1, of_b1, of_w2, of_b2]
    }

    fn costs(&self, gradient: bool) -> Cost {
        if !gradient {
            // The hidden layer is read again.
            return Cost { inner_bytes: self.hidden_bytes(), ..Cost::default() };
        }
        let [first, second] = self.of_weights().map(|of| Cost::of_parts(&of));
        // Its gradient is written, and read by the one launch that makes those of weight and x.
        let of_hidden = Cost { inner_bytes: 2 * self.hidden_bytes(), ..Cost::default() };
        first + second + of_hidden
    }

    fn hidden_bytes(&self) -> u64 {
        (self.positions() * self.hidden * self.dtype.size()) as u64
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

    fn forward(&self, inputs: [CubeTensor; 5]) -> Vec<CubeTensor> {
        self.launch_forward(inputs.each_ref(), [None; 2])
    }

    fn backward(
        &self,
        [x, w1, _, w2, _]: [CubeTensor; 5],
        kept: &[CubeTensor],
        grad: CubeTensor,
        wanted: [bool; 5],
    ) -> [Option<CubeTensor>; 5] {
        let [wants_x, wants_w1, wants_b1, wants_w2, wants_b2] = wanted;
        let layers = [wants_x, wants_w1 || wants_b1, wants_w2 || wants_b2];
        let mut found = self.launch_backward([&x, &w1, &w2], &kept[0], &grad, layers);
        found.iter_mut().zip(wanted).filter(|(_, wanted)| !wanted).for_each(|(f, _)| *f = None);
        found
    }

    fn cost(&self, gradient: bool) -> Cost {
        self.costs(gradient)
    }
}

impl Kernel<7> for Mlp {
    const NAME: &'static str = "mlp";

    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn kept(&self) -> Vec<(Shape, DType)> {
        <Self as Kernel<5>>::kept(self)
    }

    fn forward(&self, [x, w1, b1, w2, b2, plus, too]: [CubeTensor; 7]) -> Vec<CubeTensor> {
        self.launch_forward([&x, &w1, &b1, &w2, &b2], [Some(&plus), Some(&too)])
    }

    fn backward(
        &self,
        [x, w1, b1, w2, b2, ..]: [CubeTensor; 7],
        kept: &[CubeTensor],
        grad: CubeTensor,
        [wants_x, wants_w1, wants_b1, wants_w2, wants_b2, ..]: [bool; 7],
    ) -> [Option<CubeTensor>; 7] {
        let wanted = [wants_x, wants_w1, wants_b1, wants_w2, wants_b2];
        let [of_x, of_w1, of_b1, of_w2, of_b2] =
            Kernel::<5>::backward(self, [x, w1, b1, w2, b2], kept, grad, wanted);
        [of_x, of_w1, of_b1, of_w2, of_b2, None, None]
    }

    fn skips(&self) -> &[Waiting] {
        &self.skips
    }

    fn cost(&self, gradient: bool) -> Cost {
        let added_bytes = 2 * (self.shape.num_elements() * self.dtype.size()) as u64;
        Cost { added_bytes, ..self.costs(gradient) }
    }
}

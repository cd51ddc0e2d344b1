//! The gradients of what a layer multiplies, its input and its weight, from that of its result.
//!
//! Both are products with the same array on the left, and one launch makes both. That of a weight
//! is a few long sums: it is made in parts, which a second launch adds up.

use burn::backend::cubecl::dtype_to_elem_type;
use burn::tensor::{DType, Shape};
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::super::launch::{UNITS, cube_count, empty, part};
use super::kernels::gradients;
use super::{Epilogue, Product, SIDE};

/// The gradient of a weight: a product whose rows are the weight's outputs.
#[derive(Debug, Clone)]
pub struct OfWeight {
    pub product: Product,
    /// Places of the kernel: columns of the product go through all inputs of one before the next,
    /// and the weight has all taps of an input together.
    pub taps: usize,
    /// Of the weight.
    pub shape: Shape,
    /// Whether the layer has a bias, whose gradient is the sums of the left matrix's rows.
    pub bias: bool,
    /// Of the gradients.
    pub dtype: DType,
}

/// Which gradients are wanted, and how they are made.
#[derive(Debug, Clone)]
pub struct Gradients {
    /// The product that is the input's gradient, and its shape.
    pub of_input: Option<(Product, Shape)>,
    pub of_weight: Option<OfWeight>,
}

/// A weight's gradient, made and not yet added up.
pub struct Parts {
    of: OfWeight,
    all: CubeTensor,
}

impl OfWeight {
    /// Whether there is nothing to add up: the product is the gradient.
    fn is_whole(&self) -> bool {
        self.taps == 1 && self.product.parts() == 1
    }

    fn product(&self) -> Product {
        let mut product = self.product;
        product.extras.row_sums = self.bias;
        product
    }

    /// Memory for all parts: of each the product, and behind it the sums of the left rows.
    fn memory(&self, beside: &CubeTensor) -> CubeTensor {
        let dtype = if self.is_whole() { self.dtype } else { DType::F32 };
        empty(beside, [self.part_numbers()].into(), dtype)
    }

    /// Numbers of all parts.
    pub fn part_numbers(&self) -> usize {
        self.product.parts() * self.numbers()
    }

    /// Numbers of a part: those of weight and bias.
    fn numbers(&self) -> usize {
        self.product.rows * self.product.columns + if self.bias { self.product.rows } else { 0 }
    }

    /// The gradients of weight and bias in one array.
    fn split(&self, both: CubeTensor) -> [Option<CubeTensor>; 2] {
        let weights = self.product.rows * self.product.columns;
        let bias = self.bias.then(|| part(&both, weights, [self.product.rows].into()));
        [Some(part(&both, 0, self.shape.clone())), bias]
    }
}

impl Gradients {
    /// What is wanted, from the gradient of the result and what each product has on the right.
    pub fn launch(
        &self,
        left: &CubeTensor,
        right: &CubeTensor,
        other_right: &CubeTensor,
    ) -> (Option<CubeTensor>, Option<Parts>) {
        match (&self.of_input, &self.of_weight) {
            (Some((product, shape)), Some(of)) => {
                let made = empty(left, shape.clone(), left.dtype);
                let all = of.memory(left);
                both(product, of, [left, right, other_right], [&made, &all]);
                (Some(made), Some(Parts { of: of.clone(), all }))
            }
            (Some((product, shape)), None) => {
                let slope_at = product.extras.gelu_slope.then_some(other_right);
                let epilogue = Epilogue { slope_at, ..Epilogue::default() };
                (Some(product.launch([left, right], epilogue, shape.clone())), None)
            }
            (None, Some(of)) => {
                let (product, all) = (of.product(), of.memory(left));
                product.start([left, other_right], Epilogue::default(), &all, product.parts());
                (None, Some(Parts { of: of.clone(), all }))
            }
            (None, None) => (None, None),
        }
    }
}

fn both(
    first: &Product,
    of: &OfWeight,
    [left, right, other_right]: [&CubeTensor; 3],
    [of_input, of_weight]: [&CubeTensor; 2],
) {
    let (second, parts) = (of.product(), of.product.parts());
    let weight_cubes = second.tiles() * parts;
    let cubes = weight_cubes + first.tiles();
    gradients::launch(
        &left.client,
        cube_count(cubes),
        CubeDim::new_2d(SIDE as u32, SIDE as u32),
        left.clone().into_buffer_arg(),
        right.clone().into_buffer_arg(),
        other_right.clone().into_buffer_arg(),
        of_input.clone().into_buffer_arg(),
        of_weight.clone().into_buffer_arg(),
        first.rows,
        first.columns,
        first.depth,
        second.rows,
        second.columns,
        second.depth,
        second.part_depth(parts),
        weight_cubes,
        cubes,
        [first.plan(), second.plan()],
        [dtype_to_elem_type(left.dtype), dtype_to_elem_type(of_weight.dtype)],
    );
}

/// The gradients of weight and bias from their parts.
pub fn add_up(parts: Option<Parts>) -> [Option<CubeTensor>; 2] {
    let Some(Parts { of, all }) = parts else { return [None, None] };
    if of.is_whole() {
        return of.split(all);
    }
    let made = empty(&all, [of.numbers()].into(), of.dtype);
    add_parts::launch(
        &all.client.clone(),
        cube_count(of.numbers().div_ceil(UNITS)),
        CubeDim::new_1d(UNITS as u32),
        all.into_buffer_arg(),
        made.clone().into_buffer_arg(),
        of.product.parts(),
        of.numbers(),
        of.product.rows,
        of.product.columns,
        of.taps,
        dtype_to_elem_type(of.dtype),
    );
    of.split(made)
}

/// [`add_up`] for two layers, in one launch.
pub fn add_up_both(parts: [Option<Parts>; 2]) -> [[Option<CubeTensor>; 2]; 2] {
    let [first, second] = match parts {
        [Some(first), Some(second)] if !first.of.is_whole() && !second.of.is_whole() => {
            [first, second]
        }
        parts => return parts.map(add_up),
    };
    let memory = |parts: &Parts| empty(&parts.all, [parts.of.numbers()].into(), parts.of.dtype);
    let made = [memory(&first), memory(&second)];
    add_parts_of_two::launch(
        &first.all.client.clone(),
        cube_count((first.of.numbers() + second.of.numbers()).div_ceil(UNITS)),
        CubeDim::new_1d(UNITS as u32),
        first.all.into_buffer_arg(),
        second.all.into_buffer_arg(),
        made[0].clone().into_buffer_arg(),
        made[1].clone().into_buffer_arg(),
        first.of.product.parts(),
        first.of.numbers(),
        first.of.product.rows,
        first.of.product.columns,
        second.of.product.parts(),
        second.of.numbers(),
        second.of.product.rows,
        second.of.product.columns,
        [first.of.taps, second.of.taps],
        dtype_to_elem_type(first.of.dtype),
    );
    let [made, other] = made;
    [first.of.split(made), second.of.split(other)]
}

#[cube(launch)]
fn add_parts<F: Float>(
    all: &[f32],
    made: &mut [F],
    parts: usize,
    numbers: usize,
    rows: usize,
    columns: usize,
    #[comptime] taps: usize,
    #[define(F)] _type: ElemType,
) {
    if ABSOLUTE_POS < numbers {
        add_number::<F>(all, made, ABSOLUTE_POS, parts, numbers, rows, columns, taps);
    }
}

#[cube(launch)]
fn add_parts_of_two<F: Float>(
    all: &[f32],
    other_all: &[f32],
    made: &mut [F],
    other: &mut [F],
    parts: usize,
    numbers: usize,
    rows: usize,
    columns: usize,
    other_parts: usize,
    other_numbers: usize,
    other_rows: usize,
    other_columns: usize,
    #[comptime] taps: [usize; 2],
    #[define(F)] _type: ElemType,
) {
    if ABSOLUTE_POS < numbers {
        let taps = comptime!(taps[0]);
        add_number::<F>(all, made, ABSOLUTE_POS, parts, numbers, rows, columns, taps);
    } else if ABSOLUTE_POS < numbers + other_numbers {
        add_number::<F>(
            other_all,
            other,
            ABSOLUTE_POS - numbers,
            other_parts,
            other_numbers,
            other_rows,
            other_columns,
            comptime!(taps[1]),
        );
    }
}

/// One number of a weight's gradient, or of its bias's behind it, from those of the parts.
#[cube]
fn add_number<F: Float>(
    all: &[f32],
    made: &mut [F],
    number: usize,
    parts: usize,
    numbers: usize,
    rows: usize,
    columns: usize,
    #[comptime] taps: usize,
) {
    let mut sum = 0.0f32;
    for part in 0..parts {
        sum += all[part * numbers + number];
    }
    let mut at = number;
    if comptime!(taps > 1) {
        let row = number / columns;
        if row < rows {
            // Tap by tap in the product, and all taps of an input together in the weight.
            let column = number % columns;
            let inputs = columns / taps;
            at = row * columns + (column % inputs) * taps + column / inputs;
        }
    }
    made[at] = F::cast_from(sum);
}

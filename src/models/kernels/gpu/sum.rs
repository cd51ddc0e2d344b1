//! The sum of all numbers of an array.

use burn::backend::cubecl::dtype_to_elem_type;
use burn::tensor::{DType, Shape};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::autodiff_op::{Cost, Kernel};
use super::launch::{UNITS, cube_count, cube_sum, empty};

/// Numbers that one thread adds up where there are few.
const EACH: usize = 16;
/// The most workgroups: the last one adds up what they found.
const MOST_CUBES: usize = 1024;

/// Input `[numbers]` to `[1]`.
#[derive(Debug, Clone)]
pub(super) struct Sum {
    pub numbers: usize,
    pub dtype: DType,
}

impl Sum {
    fn cubes(&self) -> usize {
        (self.numbers / (UNITS * EACH)).clamp(1, MOST_CUBES)
    }
}

impl Kernel<1> for Sum {
    const NAME: &'static str = "sum";

    fn shape(&self) -> Shape {
        [1].into()
    }

    fn forward(&self, [x]: [CubeTensor; 1]) -> Vec<CubeTensor> {
        let cubes = self.cubes();
        let parts = empty(&x, [cubes].into(), DType::F32);
        let result = empty(&x, [1].into(), self.dtype);
        let client = x.client.clone();
        let add = |from: CubeTensor, to: CubeTensor, numbers, cubes, types| {
            let dim = CubeDim::new_1d(UNITS as u32);
            let (from, to) = (from.into_buffer_arg(), to.into_buffer_arg());
            sums::launch(&client, cube_count(cubes), dim, from, to, numbers, cubes, types);
        };
        let (own, f32) = (dtype_to_elem_type(self.dtype), dtype_to_elem_type(DType::F32));
        add(x, parts.clone(), self.numbers, cubes, [own, f32]);
        add(parts, result.clone(), cubes, 1, [f32, own]);
        vec![result]
    }

    fn backward(
        &self,
        [x]: [CubeTensor; 1],
        _: &[CubeTensor],
        grad: CubeTensor,
        _: [bool; 1],
    ) -> [Option<CubeTensor>; 1] {
        let result = empty(&x, [self.numbers].into(), self.dtype);
        repeat::launch(
            &x.client.clone(),
            cube_count(self.numbers.div_ceil(UNITS)),
            CubeDim::new_1d(UNITS as u32),
            grad.into_buffer_arg(),
            result.clone().into_buffer_arg(),
            self.numbers,
            dtype_to_elem_type(self.dtype),
        );
        [Some(result)]
    }

    fn cost(&self, gradient: bool) -> Cost {
        if gradient {
            return Cost::default();
        }
        let each = self.numbers.div_ceil(self.cubes() * UNITS) as u64;
        let last = self.cubes().div_ceil(UNITS) as u64;
        let parts = 2 * 4 * self.cubes() as u64;
        Cost {
            iterations: each + last,
            longest: each.max(last),
            inner_bytes: parts,
            ..Cost::default()
        }
    }
}

/// The sum of every `cubes * UNITS`-th number by each thread, and of its threads' by each workgroup.
#[cube(launch)]
fn sums<F: Float, R: Float>(
    x: &[F],
    result: &mut [R],
    numbers: usize,
    cubes: usize,
    #[define(F, R)] _types: [ElemType; 2],
) {
    if CUBE_POS >= cubes {
        terminate!();
    }
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let mut sum = 0.0f32;
    for at in range_stepped(ABSOLUTE_POS, numbers, cubes * UNITS) {
        sum += f32::cast_from(x[at]);
    }
    let total = cube_sum(sum, &mut shared);
    if UNIT_POS == 0 {
        result[CUBE_POS] = R::cast_from(total);
    }
}

#[cube(launch)]
fn repeat<F: Float>(x: &[F], result: &mut [F], numbers: usize, #[define(F)] _type: ElemType) {
    if ABSOLUTE_POS < numbers {
        result[ABSOLUTE_POS] = x[0];
    }
}

//! The matrix product that convolutions and projections are made of, in tiles of shared memory.
//!
//! The left and the right matrix are read through a [`View`]: a convolution is the product of an
//! image's patches and the weights, and nothing is copied to make patches of it (implicit GEMM,
//! Chetlur et al. 2014, arXiv 1410.0759, section 3.3).

mod gelu;
mod kernels;
mod view;

use burn::backend::TensorMetadata;
use burn::backend::cubecl::dtype_to_elem_type;
use burn::tensor::{DType, Shape};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use self::kernels::{add_parts, product};
pub(super) use self::view::{Patches, View};
use super::launch::{UNITS, cube_count, empty};

/// Rows and columns of the result that one workgroup computes.
const TILE: usize = 64;
/// Rows of both tiles in shared memory: one more keeps writes of neighbours in different banks.
const PITCH: usize = TILE + 1;
/// Numbers of a row, or column, that are added up between two barriers.
const DEPTH: usize = 16;
/// The threads of a workgroup stand on a square of this side. Each computes `EACH`² numbers.
const SIDE: usize = UNITS.isqrt();
const EACH: usize = TILE / SIDE;
/// As many workgroups keep a large GPU busy: below, long sums are cut into parts.
const ENOUGH_CUBES: usize = 512;
/// The most parts, which one thread adds up for each number.
const MOST_PARTS: usize = 64;

/// What is done to numbers on their way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Extras {
    /// GELU of the numbers of the left matrix.
    pub gelu_left: bool,
    /// GELU of the numbers of the right matrix.
    pub gelu_right: bool,
    /// The result times the slope of GELU at the numbers of another array.
    pub gelu_slope: bool,
    /// A further column of the result: the sums of the left matrix's rows.
    pub row_sums: bool,
}

/// `left [rows, depth]` times `right [depth, columns]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Product {
    pub rows: usize,
    pub columns: usize,
    pub depth: usize,
    pub left: View,
    pub right: View,
    pub extras: Extras,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Plan {
    left: View,
    right: View,
    extras: Extras,
}

impl Product {
    /// The product, `bias [columns]` added to each of its rows, in `shape`.
    pub(super) fn launch(
        &self,
        [left, right]: [&CubeTensor; 2],
        bias: Option<&CubeTensor>,
        slope_at: Option<&CubeTensor>,
        shape: Shape,
    ) -> CubeTensor {
        let result = empty(left, shape, left.dtype);
        self.start([left, right], bias, slope_at, &result, 1);
        result
    }

    /// Parts into which the sums are cut, so that there is work for all of a GPU.
    pub(super) fn parts(&self) -> usize {
        let tiles = self.rows.div_ceil(TILE) * self.columns.div_ceil(TILE);
        (ENOUGH_CUBES / tiles).min(self.depth / (4 * DEPTH)).clamp(1, MOST_PARTS)
    }

    /// Numbers of the parts: of each the product, and the sums of the left rows as a last column.
    pub(super) fn part_numbers(&self) -> usize {
        self.parts() * self.rows * (self.columns + 1)
    }

    /// The product of sums that are not long, or of those of [`launch_in_parts`]: a weight's
    /// gradient, in `shape`, where there is no bias.
    pub(super) fn launch_plain(&self, inputs: [&CubeTensor; 2], shape: Shape) -> CubeTensor {
        if self.parts() == 1 {
            return self.launch(inputs, None, None, shape);
        }
        let [made, _] = self.launch_in_parts(inputs, 1, shape);
        made
    }

    /// The product of long sums: a weight's gradient, as `[rows, columns / taps, taps]` in `shape`,
    /// and the sums of the left matrix's rows `[rows]`.
    pub(super) fn launch_in_parts(
        &self,
        inputs: [&CubeTensor; 2],
        taps: usize,
        shape: Shape,
    ) -> [CubeTensor; 2] {
        let (left, parts) = (inputs[0], self.parts());
        let product = Self { extras: Extras { row_sums: true, ..self.extras }, ..*self };
        let all = empty(left, [self.part_numbers()].into(), DType::F32);
        product.start(inputs, None, None, &all, parts);
        let made = [empty(left, shape, left.dtype), empty(left, [self.rows].into(), left.dtype)];
        let numbers = self.rows * (self.columns + 1);
        add_parts::launch(
            &left.client,
            cube_count(numbers.div_ceil(UNITS)),
            CubeDim::new_1d(UNITS as u32),
            all.into_buffer_arg(),
            made[0].clone().into_buffer_arg(),
            made[1].clone().into_buffer_arg(),
            parts,
            self.rows,
            self.columns,
            taps,
            dtype_to_elem_type(left.dtype),
        );
        made
    }

    fn start(
        &self,
        [left, right]: [&CubeTensor; 2],
        bias: Option<&CubeTensor>,
        slope_at: Option<&CubeTensor>,
        result: &CubeTensor,
        parts: usize,
    ) {
        let cubes = self.rows.div_ceil(TILE) * self.columns.div_ceil(TILE) * parts;
        let optional =
            |tensor: Option<&CubeTensor>| tensor.map(|tensor| tensor.clone().into_buffer_arg());
        product::launch(
            &left.client,
            cube_count(cubes),
            CubeDim::new_2d(SIDE as u32, SIDE as u32),
            left.clone().into_buffer_arg(),
            right.clone().into_buffer_arg(),
            optional(bias).into(),
            optional(slope_at).into(),
            result.clone().into_buffer_arg(),
            self.rows,
            self.columns,
            self.depth,
            self.depth.div_ceil(parts).next_multiple_of(DEPTH),
            cubes,
            Plan { left: self.left, right: self.right, extras: self.extras },
            [dtype_to_elem_type(left.dtype), dtype_to_elem_type(result.dtype())],
        );
    }
}

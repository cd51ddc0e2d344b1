//! The matrix product that convolutions and projections are made of, in tiles of shared memory.
//!
//! The left and the right matrix are read through a [`View`]: a convolution is the product of an
//! image's patches and the weights, and nothing is copied to make patches of it (implicit GEMM,
//! Chetlur et al. 2014, arXiv 1410.0759, section 3.3).

mod gelu;
pub(super) mod gradients;
mod kernels;
mod view;

use burn::backend::TensorMetadata;
use burn::backend::cubecl::dtype_to_elem_type;
use burn::tensor::Shape;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use self::kernels::product;
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
/// As many workgroups keep a large GPU busy, where one launch makes the gradient of the input too:
/// below, long sums are cut into parts.
const ENOUGH_CUBES: usize = 256;
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
    /// Behind the result the sums of the left matrix's rows.
    pub row_sums: bool,
}

/// What is done to the numbers of a product before they are written.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Epilogue<'a> {
    /// `[columns]`, added to each row.
    pub bias: Option<&'a CubeTensor>,
    /// Arrays of the product's shape that are added to it.
    pub plus: [Option<&'a CubeTensor>; 2],
    /// With [`Extras::gelu_slope`], the array of the product's shape at which the slope is.
    pub slope_at: Option<&'a CubeTensor>,
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
    /// The product, and what is done to its numbers, in `shape`.
    pub(super) fn launch(
        &self,
        inputs: [&CubeTensor; 2],
        epilogue: Epilogue,
        shape: Shape,
    ) -> CubeTensor {
        let result = empty(inputs[0], shape, inputs[0].dtype);
        self.start(inputs, epilogue, &result, 1);
        result
    }

    /// Workgroups for one part.
    fn tiles(&self) -> usize {
        self.rows.div_ceil(TILE) * self.columns.div_ceil(TILE)
    }

    /// Parts into which the sums are cut, so that there is work for all of a GPU.
    pub(super) fn parts(&self) -> usize {
        (ENOUGH_CUBES / self.tiles()).min(self.depth / (4 * DEPTH)).clamp(1, MOST_PARTS)
    }

    /// Length of the sums of a part, where there are so many.
    fn part_depth(&self, parts: usize) -> usize {
        self.depth.div_ceil(parts).next_multiple_of(DEPTH)
    }

    fn plan(&self) -> Plan {
        Plan { left: self.left, right: self.right, extras: self.extras }
    }

    fn start(
        &self,
        [left, right]: [&CubeTensor; 2],
        Epilogue { bias, plus, slope_at }: Epilogue,
        result: &CubeTensor,
        parts: usize,
    ) {
        let cubes = self.tiles() * parts;
        let optional =
            |tensor: Option<&CubeTensor>| tensor.map(|tensor| tensor.clone().into_buffer_arg());
        product::launch(
            &left.client,
            cube_count(cubes),
            CubeDim::new_2d(SIDE as u32, SIDE as u32),
            left.clone().into_buffer_arg(),
            right.clone().into_buffer_arg(),
            optional(bias).into(),
            optional(plus[0]).into(),
            optional(plus[1]).into(),
            optional(slope_at).into(),
            result.clone().into_buffer_arg(),
            self.rows,
            self.columns,
            self.depth,
            self.part_depth(parts),
            cubes,
            self.plan(),
            [dtype_to_elem_type(left.dtype), dtype_to_elem_type(result.dtype())],
        );
    }
}

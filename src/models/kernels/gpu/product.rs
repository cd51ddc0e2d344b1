//! The matrix product that convolutions and projections are made of, in tiles of shared memory.
//!
//! The left and the right matrix are read through a [`View`]: a convolution is the product of an
//! image's patches and the weights, and nothing is copied to make patches of it (implicit GEMM,
//! Chetlur et al. 2014, arXiv 1410.0759, section 3.3).

use burn::backend::TensorMetadata;
use burn::tensor::{DType, Shape};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::launch::{UNITS, cube_count, element_type, empty};

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

/// The image of a convolution as a matrix: a row for each position of the result, and in it the
/// numbers of its patch, tap by tap, the channels of each together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Patches {
    /// Height and width of the positions.
    pub grid: [usize; 2],
    /// Height and width of the image.
    pub image: [usize; 2],
    /// Channels of the image.
    pub channels: usize,
    /// Side of the kernel.
    pub kernel: usize,
    pub stride: usize,
    /// Each of the image's pixels stands for a square of four: positions are in those.
    pub doubled: bool,
    /// The gradient's way: positions are those of the convolution's input, and the image is the
    /// gradient of its result.
    pub backwards: bool,
}

/// Where the number at a row and a column is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum View {
    /// At `row * rows + column * columns`.
    Strided {
        rows: usize,
        columns: usize,
    },
    Patches(Patches),
    /// Weights `[outputs, inputs, taps]`: row `tap * inner + i` and column `j` are at
    /// `tap + i * step + j * columns`.
    Taps {
        inner: usize,
        step: usize,
        columns: usize,
    },
}

impl View {
    /// `[rows, columns]`, row by row.
    pub(super) fn rows_of(columns: usize) -> Self {
        Self::Strided { rows: columns, columns: 1 }
    }

    /// The transpose of `[columns, rows]`, row by row.
    pub(super) fn columns_of(rows: usize) -> Self {
        Self::Strided { rows: 1, columns: rows }
    }

    fn is_strided(&self) -> bool {
        matches!(self, Self::Strided { .. })
    }

    fn is_taps(&self) -> bool {
        matches!(self, Self::Taps { .. })
    }

    /// Steps of a row and of a column; of taps: numbers of a tap, steps of those and of a column.
    fn steps(&self) -> [usize; 3] {
        match *self {
            Self::Strided { rows, columns } => [rows, columns, 0],
            Self::Taps { inner, step, columns } => [inner, step, columns],
            Self::Patches(_) => [0; 3],
        }
    }

    fn patches(&self) -> Patches {
        match *self {
            Self::Patches(patches) => patches,
            _ => Patches {
                grid: [1; 2],
                image: [1; 2],
                channels: 1,
                kernel: 1,
                stride: 1,
                doubled: false,
                backwards: false,
            },
        }
    }

    /// Whether numbers of a row lie side by side, and not those of a column.
    fn along_rows(&self) -> bool {
        match *self {
            Self::Strided { rows, columns } => columns == 1 && rows != 1,
            Self::Patches(_) => true,
            Self::Taps { step, columns, .. } => columns < step,
        }
    }
}

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
    fn parts(&self) -> usize {
        let tiles = self.rows.div_ceil(TILE) * self.columns.div_ceil(TILE);
        (ENOUGH_CUBES / tiles).min(self.depth / (4 * DEPTH)).clamp(1, MOST_PARTS)
    }

    /// Numbers of the parts: of each the product, and the sums of the left rows as a last column.
    pub(super) fn part_numbers(&self) -> usize {
        self.parts() * self.rows * (self.columns + 1)
    }

    /// Iterations of the loop that adds up the parts.
    pub(super) fn part_count(&self) -> usize {
        self.parts()
    }

    /// The product of sums that are not long, or of those of [`launch_in_parts`]: a weight's
    /// gradient, in `shape`, where there is no bias.
    pub(super) fn launch_without_sums(&self, inputs: [&CubeTensor; 2], shape: Shape) -> CubeTensor {
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
            element_type(left.dtype),
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
            [element_type(left.dtype), element_type(result.dtype())],
        );
    }
}

/// The number of a view at a row and a column.
#[cube]
fn number<F: Float>(from: &[F], row: usize, column: usize, #[comptime] view: View) -> f32 {
    let steps = comptime!(view.steps());
    if comptime!(view.is_strided()) {
        f32::cast_from(from[row * comptime!(steps[0]) + column * comptime!(steps[1])])
    } else if comptime!(view.is_taps()) {
        let inner = comptime!(steps[0]);
        let at = row / inner + (row % inner) * comptime!(steps[1]);
        f32::cast_from(from[at + column * comptime!(steps[2])])
    } else {
        patch_number::<F>(from, row, column, comptime!(view.patches()))
    }
}

/// The number of a position's patch at an index: zero beside the image.
#[cube]
fn patch_number<F: Float>(
    from: &[F],
    position: usize,
    index: usize,
    #[comptime] patches: Patches,
) -> f32 {
    let channels = comptime!(patches.channels);
    let kernel = comptime!(patches.kernel);
    let pad = comptime!(patches.kernel / 2);
    let stride = comptime!(patches.stride);
    let height = comptime!(patches.image[0]);
    let width = comptime!(patches.image[1]);
    let channel = index % channels;
    let tap = index / channels;
    let x = position % comptime!(patches.grid[1]);
    let row = position / comptime!(patches.grid[1]);
    let y = row % comptime!(patches.grid[0]);
    let image = row / comptime!(patches.grid[0]);

    let mut value = 0.0f32;
    if comptime!(patches.backwards) {
        // Position y of the input took part in the results (y + pad - tap) / stride.
        let below = y + pad;
        let beside = x + pad;
        let tap_y = tap / kernel;
        let tap_x = tap % kernel;
        if below >= tap_y && beside >= tap_x {
            let from_y = (below - tap_y) / stride;
            let from_x = (beside - tap_x) / stride;
            if from_y * stride + tap_y == below
                && from_x * stride + tap_x == beside
                && from_y < height
                && from_x < width
            {
                let at = ((image * height + from_y) * width + from_x) * channels + channel;
                value = f32::cast_from(from[at]);
            }
        }
    } else {
        let below = y * stride + tap / kernel;
        let beside = x * stride + tap % kernel;
        let each = comptime!(if patches.doubled { 2usize } else { 1usize });
        let inside = below < height * each + pad && beside < width * each + pad;
        if below >= pad && beside >= pad && inside {
            let from_y = (below - pad) / each;
            let from_x = (beside - pad) / each;
            let at = ((image * height + from_y) * width + from_x) * channels + channel;
            value = f32::cast_from(from[at]);
        }
    }
    value
}

/// x Φ(x).
#[cube]
pub(super) fn gelu(x: f32) -> f32 {
    x * (0.5f32 + 0.5f32 * Erf::erf(x * 0.707_106_77f32))
}

/// The derivative of [`gelu`]: Φ(x) + x φ(x).
#[cube]
pub(super) fn gelu_slope(x: f32) -> f32 {
    let share = 0.5f32 + 0.5f32 * Erf::erf(x * 0.707_106_77f32);
    share + x * 0.398_942_3f32 * f32::exp(-0.5f32 * x * x)
}

/// One tile of the result for each workgroup and part.
#[cube(launch)]
fn product<F: Float, R: Float>(
    left: &[F],
    right: &[F],
    bias: ComptimeOption<&[F]>,
    slope_at: ComptimeOption<&[F]>,
    result: &mut [R],
    rows: usize,
    columns: usize,
    depth: usize,
    part_depth: usize,
    cubes: usize,
    #[comptime] plan: Plan,
    #[define(F, R)] _types: [ElemType; 2],
) {
    if CUBE_POS >= cubes {
        terminate!();
    }
    let column_tiles = columns.div_ceil(TILE);
    let row_tiles = rows.div_ceil(TILE);
    let tile = CUBE_POS % (column_tiles * row_tiles);
    let part = CUBE_POS / (column_tiles * row_tiles);
    let first_column = tile % column_tiles * TILE;
    let first_row = tile / column_tiles * TILE;
    let end = usize::min(depth, (part + 1) * part_depth);

    let mut left_tile = Shared::<[f32]>::new_slice(comptime!(DEPTH * PITCH));
    let mut right_tile = Shared::<[f32]>::new_slice(comptime!(DEPTH * PITCH));
    let mut sums = Array::<f32>::new(comptime!(EACH * EACH));
    let mut row_sums = Array::<f32>::new(EACH);
    let unit = UNIT_POS as usize;
    let my_column = unit % SIDE;
    let my_row = unit / SIDE;

    for start in range_stepped(part * part_depth, end, DEPTH) {
        #[unroll]
        for i in 0..comptime!(DEPTH * TILE / UNITS) {
            let index = unit + i * UNITS;
            let mut line = index % TILE;
            let mut deep = index / TILE;
            if comptime!(plan.left.along_rows()) {
                line = index / DEPTH;
                deep = index % DEPTH;
            }
            let mut value = 0.0f32;
            if first_row + line < rows && start + deep < end {
                value = number::<F>(left, first_row + line, start + deep, plan.left);
                if comptime!(plan.extras.gelu_left) {
                    value = gelu(value);
                }
            }
            left_tile[deep * PITCH + line] = value;
        }
        #[unroll]
        for i in 0..comptime!(DEPTH * TILE / UNITS) {
            let index = unit + i * UNITS;
            let mut line = index / DEPTH;
            let mut deep = index % DEPTH;
            if comptime!(plan.right.along_rows()) {
                line = index % TILE;
                deep = index / TILE;
            }
            let mut value = 0.0f32;
            if first_column + line < columns && start + deep < end {
                value = number::<F>(right, start + deep, first_column + line, plan.right);
                if comptime!(plan.extras.gelu_right) {
                    value = gelu(value);
                }
            }
            right_tile[deep * PITCH + line] = value;
        }
        sync_cube();
        #[unroll]
        for deep in 0..DEPTH {
            #[unroll]
            for i in 0..EACH {
                let x = left_tile[deep * PITCH + my_row + i * SIDE];
                if comptime!(plan.extras.row_sums) {
                    row_sums[i] += x;
                }
                #[unroll]
                for j in 0..EACH {
                    sums[i * EACH + j] += x * right_tile[deep * PITCH + my_column + j * SIDE];
                }
            }
        }
        sync_cube();
    }

    let pitch = if comptime!(plan.extras.row_sums) { columns + 1 } else { columns };
    #[unroll]
    for i in 0..EACH {
        let row = first_row + my_row + i * SIDE;
        if row < rows {
            let at = (part * rows + row) * pitch;
            #[unroll]
            for j in 0..EACH {
                let column = first_column + my_column + j * SIDE;
                if column < columns {
                    let mut value = sums[i * EACH + j];
                    if comptime!(bias.is_some()) {
                        value += f32::cast_from(bias.as_ref().unwrap()[column]);
                    }
                    if comptime!(plan.extras.gelu_slope) {
                        let at = f32::cast_from(slope_at.as_ref().unwrap()[at + column]);
                        value *= gelu_slope(at);
                    }
                    result[at + column] = R::cast_from(value);
                }
            }
            if comptime!(plan.extras.row_sums) {
                if my_column == 0 && first_column == 0 {
                    result[at + columns] = R::cast_from(row_sums[i]);
                }
            }
        }
    }
}

/// Each number of a weight's gradient, and of its bias's, from those of the parts.
#[cube(launch)]
fn add_parts<F: Float>(
    all: &[f32],
    weight: &mut [F],
    bias: &mut [F],
    parts: usize,
    rows: usize,
    columns: usize,
    #[comptime] taps: usize,
    #[define(F)] _type: ElemType,
) {
    let numbers = rows * (columns + 1);
    if ABSOLUTE_POS >= numbers {
        terminate!();
    }
    let mut sum = 0.0f32;
    for part in 0..parts {
        sum += all[part * numbers + ABSOLUTE_POS];
    }
    let column = ABSOLUTE_POS % (columns + 1);
    let row = ABSOLUTE_POS / (columns + 1);
    if column == columns {
        bias[row] = F::cast_from(sum);
    } else {
        // Tap by tap in the product, and all taps of an input together in the weight.
        let inputs = columns / taps;
        let at = row * columns + (column % inputs) * taps + column / inputs;
        weight[at] = F::cast_from(sum);
    }
}

//! The kernels of a product: one tile of the result for each workgroup, and the sum of parts.

use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::super::launch::UNITS;
use super::gelu::{gelu, gelu_slope};
use super::view::number;
use super::{DEPTH, EACH, PITCH, Plan, SIDE, TILE};

/// One tile of the result for each workgroup and part.
#[cube(launch)]
pub(super) fn product<F: Float, R: Float>(
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
    let tile = Tile::new(rows, columns);
    let end = usize::min(depth, (tile.part + 1) * part_depth);
    let mut left_tile = Shared::<[f32]>::new_slice(comptime!(DEPTH * PITCH));
    let mut right_tile = Shared::<[f32]>::new_slice(comptime!(DEPTH * PITCH));
    let mut sums = Array::<f32>::new(comptime!(EACH * EACH));
    let mut row_sums = Array::<f32>::new(EACH);
    for start in range_stepped(tile.part * part_depth, end, DEPTH) {
        load_left::<F>(left, &mut left_tile, tile.first_row, rows, start, end, plan);
        load_right::<F>(right, &mut right_tile, tile.first_column, columns, start, end, plan);
        sync_cube();
        #[unroll]
        for deep in 0..DEPTH {
            #[unroll]
            for i in 0..EACH {
                let x = left_tile[deep * PITCH + tile.row + i * SIDE];
                row_sums[i] += x;
                #[unroll]
                for j in 0..EACH {
                    sums[i * EACH + j] += x * right_tile[deep * PITCH + tile.column + j * SIDE];
                }
            }
        }
        sync_cube();
    }

    let pitch = if comptime!(plan.extras.row_sums) { columns + 1 } else { columns };
    #[unroll]
    for i in 0..EACH {
        let row = tile.first_row + tile.row + i * SIDE;
        let at = (tile.part * rows + row) * pitch;
        #[unroll]
        for j in 0..EACH {
            let column = tile.first_column + tile.column + j * SIDE;
            if row < rows && column < columns {
                let mut value = sums[i * EACH + j];
                if comptime!(bias.is_some()) {
                    value += f32::cast_from(bias.as_ref().unwrap()[column]);
                }
                if comptime!(plan.extras.gelu_slope) {
                    let x = f32::cast_from(slope_at.as_ref().unwrap()[at + column]);
                    value *= gelu_slope(x);
                }
                result[at + column] = R::cast_from(value);
            }
        }
        let is_first = tile.column == 0 && tile.first_column == 0;
        if comptime!(plan.extras.row_sums) && is_first && row < rows {
            result[at + columns] = R::cast_from(row_sums[i]);
        }
    }
}

/// What a thread computes.
#[derive(CubeType)]
struct Tile {
    /// Of the workgroup's numbers.
    first_row: usize,
    first_column: usize,
    part: usize,
    /// Of the thread's numbers in the tile; the others follow at distances of `SIDE`.
    row: usize,
    column: usize,
}

#[cube]
impl Tile {
    fn new(rows: usize, columns: usize) -> Tile {
        let column_tiles = columns.div_ceil(TILE);
        let tiles = rows.div_ceil(TILE) * column_tiles;
        let tile = CUBE_POS % tiles;
        Tile {
            first_row: tile / column_tiles * TILE,
            first_column: tile % column_tiles * TILE,
            part: CUBE_POS / tiles,
            row: UNIT_POS as usize / SIDE,
            column: UNIT_POS as usize % SIDE,
        }
    }
}

/// A tile of the left matrix: zeros beside it.
#[cube]
fn load_left<F: Float>(
    from: &[F],
    to: &mut Shared<[f32]>,
    first: usize,
    rows: usize,
    start: usize,
    end: usize,
    #[comptime] plan: Plan,
) {
    #[unroll]
    for i in 0..comptime!(DEPTH * TILE / UNITS) {
        let (line, deep) = place(i, comptime!(plan.left.along_rows()));
        let mut value = 0.0f32;
        if first + line < rows && start + deep < end {
            value = number::<F>(from, first + line, start + deep, plan.left);
            if comptime!(plan.extras.gelu_left) {
                value = gelu(value);
            }
        }
        to[deep * PITCH + line] = value;
    }
}

/// A tile of the right matrix: zeros beside it.
#[cube]
fn load_right<F: Float>(
    from: &[F],
    to: &mut Shared<[f32]>,
    first: usize,
    columns: usize,
    start: usize,
    end: usize,
    #[comptime] plan: Plan,
) {
    #[unroll]
    for i in 0..comptime!(DEPTH * TILE / UNITS) {
        let (line, deep) = place(i, comptime!(!plan.right.along_rows()));
        let mut value = 0.0f32;
        if first + line < columns && start + deep < end {
            value = number::<F>(from, start + deep, first + line, plan.right);
            if comptime!(plan.extras.gelu_right) {
                value = gelu(value);
            }
        }
        to[deep * PITCH + line] = value;
    }
}

/// The line and the depth in a tile of a thread's number `i`, so that neighbours read what lies side
/// by side: in the depth if so in memory.
#[cube]
fn place(#[comptime] i: usize, #[comptime] deep_first: bool) -> (usize, usize) {
    let index = UNIT_POS as usize + comptime!(i * UNITS);
    let mut line = index % TILE;
    let mut deep = index / TILE;
    if comptime!(deep_first) {
        line = index / DEPTH;
        deep = index % DEPTH;
    }
    (line, deep)
}

/// Each number of a weight's gradient, and of its bias's, from those of the parts.
#[cube(launch)]
pub(super) fn add_parts<F: Float>(
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

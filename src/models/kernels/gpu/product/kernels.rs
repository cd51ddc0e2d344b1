//! The kernels of a product: one tile of the result for each workgroup.

use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::super::launch::{UNITS, zeros};
use super::gelu::{gelu, gelu_slope};
use super::view::number;
use super::{DEPTH, EACH, PITCH, Plan, SIDE, TILE};

/// One tile of the result for each workgroup and part.
#[cube(launch)]
pub(super) fn product<F: Float, R: Float>(
    left: &[F],
    right: &[F],
    bias: ComptimeOption<&[F]>,
    plus: ComptimeOption<&[F]>,
    plus_too: ComptimeOption<&[F]>,
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
    let size = Size { rows, columns, depth, part_depth };
    let tile = Tile::new(CUBE_POS, &size);
    let mut left_tile = Shared::<[f32]>::new_slice(comptime!(DEPTH * PITCH));
    let mut right_tile = Shared::<[f32]>::new_slice(comptime!(DEPTH * PITCH));
    let mut sums = zeros(comptime!(EACH * EACH));
    let mut row_sums = zeros(EACH);
    multiply::<F>(
        left,
        right,
        &mut left_tile,
        &mut right_tile,
        &mut sums,
        &mut row_sums,
        &tile,
        &size,
        plan,
    );
    #[unroll]
    for i in 0..comptime!(EACH * EACH) {
        let (row, column) = tile.place(i);
        if row < rows && column < columns {
            let at = row * columns + column;
            if comptime!(bias.is_some()) {
                sums[i] += f32::cast_from(bias.as_ref().unwrap()[column]);
            }
            if comptime!(plus.is_some()) {
                sums[i] += f32::cast_from(plus.as_ref().unwrap()[at]);
            }
            if comptime!(plus_too.is_some()) {
                sums[i] += f32::cast_from(plus_too.as_ref().unwrap()[at]);
            }
            if comptime!(plan.extras.gelu_slope) {
                sums[i] *= gelu_slope(f32::cast_from(slope_at.as_ref().unwrap()[at]));
            }
        }
    }
    write::<R>(&sums, &row_sums, result, &tile, &size, plan);
}

/// The gradients of what a layer multiplies, from one array on the left: the first workgroups make
/// that of its weight, in parts, whose sums are the longer ones, the others that of its input.
#[cube(launch)]
pub(super) fn gradients<F: Float, R: Float>(
    left: &[F],
    right: &[F],
    other_right: &[F],
    of_input: &mut [F],
    of_weight: &mut [R],
    rows: usize,
    columns: usize,
    depth: usize,
    other_rows: usize,
    other_columns: usize,
    other_depth: usize,
    part_depth: usize,
    weight_cubes: usize,
    cubes: usize,
    #[comptime] plans: [Plan; 2],
    #[define(F, R)] _types: [ElemType; 2],
) {
    if CUBE_POS >= cubes {
        terminate!();
    }
    let mut left_tile = Shared::<[f32]>::new_slice(comptime!(DEPTH * PITCH));
    let mut right_tile = Shared::<[f32]>::new_slice(comptime!(DEPTH * PITCH));
    let mut sums = zeros(comptime!(EACH * EACH));
    let mut row_sums = zeros(EACH);
    if CUBE_POS >= weight_cubes {
        let plan = comptime!(plans[0]);
        let size = Size { rows, columns, depth, part_depth: depth };
        let tile = Tile::new(CUBE_POS - weight_cubes, &size);
        multiply::<F>(
            left,
            right,
            &mut left_tile,
            &mut right_tile,
            &mut sums,
            &mut row_sums,
            &tile,
            &size,
            plan,
        );
        if comptime!(plan.extras.gelu_slope) {
            #[unroll]
            for i in 0..comptime!(EACH * EACH) {
                let (row, column) = tile.place(i);
                if row < rows && column < columns {
                    sums[i] *= gelu_slope(f32::cast_from(other_right[row * columns + column]));
                }
            }
        }
        write::<F>(&sums, &row_sums, of_input, &tile, &size, plan);
    } else {
        let plan = comptime!(plans[1]);
        let size =
            Size { rows: other_rows, columns: other_columns, depth: other_depth, part_depth };
        let tile = Tile::new(CUBE_POS, &size);
        multiply::<F>(
            left,
            other_right,
            &mut left_tile,
            &mut right_tile,
            &mut sums,
            &mut row_sums,
            &tile,
            &size,
            plan,
        );
        write::<R>(&sums, &row_sums, of_weight, &tile, &size, plan);
    }
}

/// Writes the thread's numbers, and behind those of its part the sums of the left matrix's rows if
/// they are wanted.
#[cube]
fn write<R: Float>(
    sums: &Array<f32>,
    row_sums: &Array<f32>,
    result: &mut [R],
    tile: &Tile,
    size: &Size,
    #[comptime] plan: Plan,
) {
    let mut first = tile.part * size.rows * size.columns;
    if comptime!(plan.extras.row_sums) {
        first += tile.part * size.rows;
    }
    #[unroll]
    for i in 0..comptime!(EACH * EACH) {
        let (row, column) = tile.place(i);
        if row < size.rows && column < size.columns {
            result[first + row * size.columns + column] = R::cast_from(sums[i]);
        }
    }
    if comptime!(plan.extras.row_sums) {
        #[unroll]
        for i in 0..EACH {
            let (row, _) = tile.place(comptime!(i * EACH));
            if tile.column == 0 && tile.first_column == 0 && row < size.rows {
                result[first + size.rows * size.columns + row] = R::cast_from(row_sums[i]);
            }
        }
    }
}

/// Adds up the thread's numbers of a tile, and those of the left matrix's rows.
#[cube]
fn multiply<F: Float>(
    left: &[F],
    right: &[F],
    left_tile: &mut Shared<[f32]>,
    right_tile: &mut Shared<[f32]>,
    sums: &mut Array<f32>,
    row_sums: &mut Array<f32>,
    tile: &Tile,
    size: &Size,
    #[comptime] plan: Plan,
) {
    let end = usize::min(size.depth, (tile.part + 1) * size.part_depth);
    for start in range_stepped(tile.part * size.part_depth, end, DEPTH) {
        load_left::<F>(left, left_tile, tile.first_row, size.rows, start, end, plan);
        load_right::<F>(right, right_tile, tile.first_column, size.columns, start, end, plan);
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
}

/// Rows and columns of a result, length of its sums and of a part of them.
#[derive(CubeType)]
struct Size {
    rows: usize,
    columns: usize,
    depth: usize,
    part_depth: usize,
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
    fn new(cube: usize, size: &Size) -> Tile {
        let column_tiles = size.columns.div_ceil(TILE);
        let tiles = size.rows.div_ceil(TILE) * column_tiles;
        let tile = cube % tiles;
        Tile {
            first_row: tile / column_tiles * TILE,
            first_column: tile % column_tiles * TILE,
            part: cube / tiles,
            row: UNIT_POS as usize / SIDE,
            column: UNIT_POS as usize % SIDE,
        }
    }

    /// Row and column in the result of the thread's number `i`.
    fn place(&self, #[comptime] i: usize) -> (usize, usize) {
        let row = self.first_row + self.row + comptime!(i / EACH * SIDE);
        (row, self.first_column + self.column + comptime!(i % EACH * SIDE))
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

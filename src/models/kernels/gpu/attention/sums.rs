//! Sums over many rows in stages, so that no thread has a long loop, and that over blocks of
//! queries which ends in a bias table.

use burn::backend::cubecl::dtype_to_elem_type;
use burn::tensor::{DType, Shape};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::super::autodiff_op::Cost;
use super::super::launch::{UNITS, cube_count, empty};
use super::plan::Plan;

/// As many rows are added up in one stage.
const ONE_STAGE: usize = 128;
/// The longest loop.
const LONGEST: usize = 256;

/// How many rows there are before each stage and after the last one.
pub(super) struct Stages(Vec<usize>);

impl Stages {
    /// From so many rows to no more than `most`.
    pub(super) fn new(rows: usize, most: usize) -> Self {
        let mut counts = vec![rows];
        let mut left = rows;
        while left > most.min(ONE_STAGE) {
            left = left.div_ceil(Self::each(left));
            counts.push(left);
        }
        Self(counts)
    }

    /// How many of so many rows become one.
    fn each(rows: usize) -> usize {
        if rows <= ONE_STAGE { rows } else { ((rows - 1).isqrt() + 1).min(LONGEST) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == 1
    }

    /// Rows after the last stage.
    pub(super) fn left(&self) -> usize {
        self.0.last().copied().unwrap_or(0)
    }

    /// With so many numbers beside each other. Those of the last stage are a result unless they are
    /// read `again`.
    pub(super) fn cost(&self, numbers: usize, again: bool) -> Cost {
        let mut cost = Cost::default();
        for (stage, rows) in self.0.windows(2).enumerate() {
            let each = Self::each(rows[0]) as u64;
            let is_inner = again || stage + 2 < self.0.len();
            let inner_bytes = if is_inner { 2 * 4 * (rows[1] * numbers) as u64 } else { 0 };
            cost = cost + Cost { iterations: each, longest: each, inner_bytes, ..Cost::default() };
        }
        cost
    }
}

/// `[groups, rows, columns]`, behind `skip` numbers, to `[groups, rows left, columns]` in `shape`.
pub(super) fn add_up(
    from: &CubeTensor,
    skip: usize,
    [groups, columns]: [usize; 2],
    stages: &Stages,
    shape: Shape,
    dtype: DType,
) -> CubeTensor {
    let (mut sums, mut skip) = (from.clone(), skip);
    for (stage, rows) in stages.0.windows(2).enumerate() {
        let is_last = stage + 2 == stages.0.len();
        let numbers = groups * rows[1] * columns;
        let made = if is_last {
            empty(from, shape.clone(), dtype)
        } else {
            empty(from, [numbers].into(), DType::F32)
        };
        add_rows::launch(
            &from.client,
            cube_count(numbers.div_ceil(UNITS)),
            CubeDim::new_1d(UNITS as u32),
            sums.clone().into_buffer_arg(),
            made.clone().into_buffer_arg(),
            skip,
            rows[0],
            rows[1],
            columns,
            numbers,
            Stages::each(rows[0]),
            [dtype_to_elem_type(sums.dtype), dtype_to_elem_type(made.dtype)],
        );
        (sums, skip) = (made, 0);
    }
    sums
}

/// The sum of `each` rows for one number of the result.
#[cube(launch)]
fn add_rows<F: Float, R: Float>(
    from: &[F],
    to: &mut [R],
    skip: usize,
    rows: usize,
    parts: usize,
    columns: usize,
    numbers: usize,
    each: usize,
    #[define(F, R)] _types: [ElemType; 2],
) {
    if ABSOLUTE_POS >= numbers {
        terminate!();
    }
    let column = ABSOLUTE_POS % columns;
    let part = ABSOLUTE_POS / columns % parts;
    let group = ABSOLUTE_POS / columns / parts;
    let end = usize::min(rows, (part + 1) * each);
    let mut sum = 0.0f32;
    for row in part * each..end {
        sum += f32::cast_from(from[skip + (group * rows + row) * columns + column]);
    }
    to[ABSOLUTE_POS] = R::cast_from(sum);
}

/// Each number of the bias table's gradient `[distances, heads]` from `[windows, heads, blocks of
/// queries, the distances of a block]`.
#[cube(launch)]
pub(super) fn fold_table<F: Float>(
    from: &[f32],
    table: &mut [F],
    skip: usize,
    windows: usize,
    #[comptime] plan: Plan,
    #[define(F)] _type: ElemType,
) {
    let offsets = comptime!(plan.offsets());
    let heads = comptime!(plan.heads);
    let length = comptime!(plan.table_len());
    let blocks = comptime!(plan.blocks());
    if ABSOLUTE_POS >= comptime!(offsets * offsets * heads) {
        terminate!();
    }
    let head = ABSOLUTE_POS % heads;
    let distance = ABSOLUTE_POS / heads;
    let mut sum = 0.0f32;
    for block in 0..blocks {
        let first = block * comptime!(plan.rows) / comptime!(plan.window) * offsets;
        if distance >= first && distance < first + length {
            for window in 0..windows {
                let at = ((window * heads + head) * blocks + block) * length + distance - first;
                sum += from[skip + at];
            }
        }
    }
    table[ABSOLUTE_POS] = F::cast_from(sum);
}

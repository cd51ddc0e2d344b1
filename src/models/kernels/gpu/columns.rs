//! Sums over the rows of parts, for gradients of weights that every position shares.

use burn::backend::cubecl::dtype_to_elem_type;
use burn::tensor::{DType, Shape};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::launch::{cube_count, empty, part};

/// Columns of a workgroup, and its threads for each of them.
const LANES: usize = 32;
const GROUPS: usize = 8;

/// Iterations of the longest loop of [`sum_columns`].
pub(super) fn iterations(parts: usize) -> u64 {
    parts.div_ceil(GROUPS) as u64
}

/// The sums of the columns of `all [parts, 2 columns]`, f32: the first half and the second one, each
/// in `shape`.
pub(super) fn sum_columns(all: CubeTensor, shape: Shape, dtype: DType) -> [CubeTensor; 2] {
    let columns = shape.num_elements();
    let parts = all.meta.shape().num_elements() / (2 * columns);
    let made = empty(&all, [2 * columns].into(), dtype);
    column_sums::launch(
        &all.client.clone(),
        cube_count((2 * columns).div_ceil(LANES)),
        CubeDim::new_2d(LANES as u32, GROUPS as u32),
        all.into_buffer_arg(),
        made.clone().into_buffer_arg(),
        parts,
        2 * columns,
        dtype_to_elem_type(dtype),
    );
    [0, columns].map(|start| part(&made, start, shape.clone()))
}

#[cube(launch)]
fn column_sums<F: Float>(
    all: &[f32],
    made: &mut [F],
    parts: usize,
    columns: usize,
    #[define(F)] _type: ElemType,
) {
    let lane = UNIT_POS as usize % LANES;
    let group = UNIT_POS as usize / LANES;
    let column = CUBE_POS * LANES + lane;
    let mut shared = Shared::<[f32]>::new_slice(comptime!(LANES * GROUPS));
    let mut sum = 0.0f32;
    if column < columns {
        for part in range_stepped(group, parts, GROUPS) {
            sum += all[part * columns + column];
        }
    }
    shared[UNIT_POS as usize] = sum;
    sync_cube();
    if group == 0 && column < columns {
        let mut total = 0.0f32;
        #[unroll]
        for other in 0..GROUPS {
            total += shared[other * LANES + lane];
        }
        made[column] = F::cast_from(total);
    }
}

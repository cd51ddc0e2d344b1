//! What every launch needs: memory for a result, the number format, the number of workgroups; and
//! the sum over the threads of one.

use burn::tensor::{DType, Shape};
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::FloatKind;
use cubecl::prelude::*;

/// Threads of a workgroup in one direction: every adapter has so many.
pub(super) const UNITS: usize = 256;
/// So many workgroups in one direction: Vulkan, Metal and DX12 allow 65,535.
const WIDEST: usize = 32_768;

/// Memory for an array on the device of another one.
pub(super) fn empty(beside: &CubeTensor, shape: Shape, dtype: DType) -> CubeTensor {
    empty_device_contiguous_dtype(beside.client.clone(), beside.device.clone(), shape, dtype)
}

/// At least so many workgroups: kernels end at once in those that are too many.
pub(super) fn cube_count(cubes: usize) -> CubeCount {
    CubeCount::Static(cubes.min(WIDEST) as u32, cubes.div_ceil(WIDEST) as u32, 1)
}

/// The number format as kernels name it.
pub(super) fn element_type(dtype: DType) -> ElemType {
    ElemType::Float(match dtype {
        DType::F16 => FloatKind::F16,
        DType::BF16 => FloatKind::BF16,
        _ => FloatKind::F32,
    })
}

/// The sum of a number of each thread of a workgroup, for all of them.
#[cube]
pub(super) fn cube_sum(value: f32, shared: &mut Shared<[f32]>) -> f32 {
    let at = UNIT_POS as usize;
    shared[at] = value;
    sync_cube();
    #[unroll]
    for level in 0..comptime!(UNITS.ilog2() as usize) {
        let half = comptime!(UNITS >> (level + 1));
        if at < half {
            let other = shared[at + half];
            shared[at] += other;
        }
        sync_cube();
    }
    let sum = shared[0];
    sync_cube();
    sum
}

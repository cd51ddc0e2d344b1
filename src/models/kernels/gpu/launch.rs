//! What every launch needs: memory for a result, the number of workgroups; and the sum over the
//! threads of one.

use burn::tensor::{DType, Shape};
use burn_cubecl::kernel::slice;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

/// Threads of a workgroup in one direction: every adapter has so many.
pub(super) const UNITS: usize = 256;
/// So many workgroups in one direction: Vulkan, Metal and DX12 allow 65,535.
const WIDEST: usize = 32_768;

/// Memory for an array on the device of another one.
pub(super) fn empty(beside: &CubeTensor, shape: Shape, dtype: DType) -> CubeTensor {
    empty_device_contiguous_dtype(beside.client.clone(), beside.device.clone(), shape, dtype)
}

/// Part of a row of numbers, in `shape`: a view of its memory where a buffer can begin there, and a
/// copy elsewhere.
pub(super) fn part(whole: &CubeTensor, start: usize, shape: Shape) -> CubeTensor {
    let (count, size) = (shape.num_elements(), whole.dtype.size());
    let begin = (start * size) as u64;
    let handle = if begin.is_multiple_of(whole.client.properties().memory.alignment) {
        let rest = whole.meta.shape().num_elements() - start - count;
        whole.handle.clone().offset_start(begin).offset_end((rest * size) as u64)
    } else {
        let range = start..start + count;
        slice(whole.clone(), std::slice::from_ref(&range)).handle
    };
    let (client, device) = (whole.client.clone(), whole.device.clone());
    CubeTensor::new_contiguous(client, device, shape, handle, whole.dtype)
}

/// At least so many workgroups: kernels end at once in those that are too many.
pub(super) fn cube_count(cubes: usize) -> CubeCount {
    CubeCount::Static(cubes.min(WIDEST) as u32, cubes.div_ceil(WIDEST) as u32, 1)
}

/// The sum of a number of each thread of a workgroup, for all of them.
#[cube]
pub(super) fn cube_sum(value: f32, shared: &mut Shared<[f32]>) -> f32 {
    lanes_sum(value, shared, UNITS)
}

/// The sum of a number of each of `lanes` threads that follow one another, a power of two, for all
/// of them.
#[cube]
pub(super) fn lanes_sum(value: f32, shared: &mut Shared<[f32]>, #[comptime] lanes: usize) -> f32 {
    let at = UNIT_POS as usize;
    let lane = at % lanes;
    shared[at] = value;
    sync_cube();
    #[unroll]
    for level in 0..comptime!(lanes.ilog2() as usize) {
        let half = comptime!(lanes >> (level + 1));
        if lane < half {
            let other = shared[at + half];
            shared[at] += other;
        }
        sync_cube();
    }
    let sum = shared[at - lane];
    sync_cube();
    sum
}

/// An array of zeros in a thread: by itself its numbers are anything, though not in WGSL.
#[cube]
pub(super) fn zeros(#[comptime] length: usize) -> Array<f32> {
    let mut array = Array::<f32>::new(length);
    #[unroll]
    for i in 0..length {
        array[i] = 0.0f32;
    }
    array
}

//! What every launch needs: memory for a result, the number format, the number of workgroups.

use burn::tensor::{DType, Shape};
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::CubeCount;

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

//! Where a tensor's numbers are, and tensors as a backend takes them.

use burn::backend::{DispatchDevice, DispatchTensor, GradientCheckpointingStrategy};
use burn::tensor::{Device, Tensor};

/// The device itself, of one with autodiff or without.
pub(super) fn plain(device: &Device) -> DispatchDevice {
    match device.as_dispatch() {
        DispatchDevice::Autodiff(device) => device.clone().inner(),
        device => device.clone(),
    }
}

/// Whether operations may keep what their gradients need: burn computes it again otherwise, and an
/// operation of our own has no way to.
pub(super) fn keeps_inputs(device: &Device) -> bool {
    device.gradient_checkpointing_strategy() != Some(GradientCheckpointingStrategy::Balanced)
}

/// An input with its weight and bias, as a backend takes them.
pub(super) fn with_weights<const X: usize, const W: usize, const B: usize>(
    x: &Tensor<X>,
    weight: &Tensor<W>,
    bias: &Tensor<B>,
) -> [DispatchTensor; 3] {
    [x.clone().into_dispatch(), weight.clone().into_dispatch(), bias.clone().into_dispatch()]
}

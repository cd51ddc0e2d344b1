//! A device of the software Vulkan driver that tests are given.

#[path = "../../models/testing.rs"]
mod driver;

use burn::tensor::Device;
pub use driver::has_driver;

use super::{DeviceSpec, GpuAssignment, resolve};

/// The driver's device, for the test of this name, in the process that has the driver.
pub fn software_vulkan(test: &str) -> Option<Device> {
    has_driver(test)
        .then(|| resolve(DeviceSpec::Adapter(0), GpuAssignment::default()).unwrap().device)
}

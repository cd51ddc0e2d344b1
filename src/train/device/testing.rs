//! The software Vulkan driver that tests are given: `PIPE_TEST_VULKAN_ICD` names its ICD file.

use burn::tensor::Device;

use super::{DeviceSpec, GpuAssignment, resolve};

/// The driver's device, for the test of this name. The driver has to be named before the process
/// begins: where it is not, the test runs itself again in a process where it is, and gets `None`,
/// as it does where there is no driver.
pub fn software_vulkan(test: &str) -> Option<Device> {
    const DRIVERS: &str = "VK_DRIVER_FILES";
    let Ok(icd) = std::env::var("PIPE_TEST_VULKAN_ICD") else {
        eprintln!("skipped: PIPE_TEST_VULKAN_ICD names no software Vulkan driver");
        return None;
    };
    if cfg!(not(feature = "wgpu")) {
        eprintln!("skipped: built without wgpu");
        return None;
    }
    if std::env::var(DRIVERS).as_ref() == Ok(&icd) {
        return Some(resolve(DeviceSpec::Adapter(0), GpuAssignment::default()).unwrap().device);
    }
    let this = std::env::current_exe().unwrap();
    let child = std::process::Command::new(this)
        .args(["--exact", test, "--nocapture"])
        .env(DRIVERS, icd)
        .env("XDG_RUNTIME_DIR", std::env::temp_dir())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&child.stdout) + String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && told.contains("1 passed"), "{told}");
    None
}

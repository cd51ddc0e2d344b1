//! The software Vulkan driver that tests are given: `PIPE_TEST_VULKAN_ICD` names its ICD file.

/// Whether this process has the driver. It has to be named before the process begins: where it is
/// not, the test of this name runs itself again in a process where it is, and gets `false`, as it
/// does where there is no driver.
pub fn has_driver(test: &str) -> bool {
    const DRIVERS: &str = "VK_DRIVER_FILES";
    let Ok(icd) = std::env::var("PIPE_TEST_VULKAN_ICD") else {
        eprintln!("skipped: PIPE_TEST_VULKAN_ICD names no software Vulkan driver");
        return false;
    };
    if cfg!(not(feature = "wgpu")) {
        eprintln!("skipped: built without wgpu");
        return false;
    }
    if std::env::var(DRIVERS).as_ref() == Ok(&icd) {
        return true;
    }
    let this = std::env::current_exe().unwrap();
    let child = std::process::Command::new(this)
        .args(["--exact", test, "--nocapture"])
        .env(DRIVERS, icd)
        .env("XDG_RUNTIME_DIR", std::env::temp_dir())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&child.stdout) + String::from_utf8_lossy(&child.stderr);
    // The result that was told counts, not how the process ends after it: C's exit handlers race
    // with the driver's own threads, which can crash it then. The program ends without them.
    assert!(told.contains("test result: ok. 1 passed"), "{}: {told}", child.status);
    false
}

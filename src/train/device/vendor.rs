//! Compute runtimes of single vendors beside wgpu: CUDA and ROCm, in a program that was built with
//! them. Nobody has run them with this program yet.
//!
//! The compute library has their devices as values in every build, and refuses them where it lacks
//! the runtime. So all of this is compiled, and type-checked, in every build with wgpu.

#[cfg(feature = "wgpu")]
pub use listing::vendor_adapters;
#[cfg(feature = "wgpu")]
pub(super) use listing::{client, find};

/// The GPUs of the runtimes that this program was built with.
#[cfg(not(feature = "wgpu"))]
pub fn vendor_adapters() -> Vec<super::Adapter> {
    Vec::new()
}

#[cfg(feature = "wgpu")]
mod listing {
    use std::panic::catch_unwind;

    use cubecl::client::Client;
    use cubecl::device::DeviceUnavailable;

    use crate::device::adapters::Adapter;
    use crate::device::spec::VendorRuntime;

    /// The GPUs of the runtimes that this program was built with. Their names are known once they
    /// are open, so this opens them.
    pub fn vendor_adapters() -> Vec<Adapter> {
        VendorRuntime::BUILT.iter().flat_map(|runtime| list(*runtime)).collect()
    }

    fn list(runtime: VendorRuntime) -> Vec<Adapter> {
        (0..).map_while(|index| adapter(runtime, index).ok()).collect()
    }

    /// One GPU of a runtime.
    fn adapter(runtime: VendorRuntime, index: usize) -> Result<Adapter, DeviceUnavailable> {
        let device = find(runtime, index)?;
        let identity = client(&device).ok().map(|client| client.properties().identity.clone());
        let (name, id) = match identity {
            Some(identity) => (identity.name, identity.fingerprint),
            None => (format!("GPU {index}"), String::new()),
        };
        Ok(Adapter {
            index,
            name,
            backend: runtime.api().to_owned(),
            kind: "discrete",
            driver: String::new(),
            software: false,
            nth: index,
            id,
            f16: true,
        })
    }

    /// A GPU of a runtime.
    ///
    /// # Errors
    /// The program lacks the runtime, or the machine has no such GPU.
    pub fn find(runtime: VendorRuntime, index: usize) -> Result<cubecl::Device, DeviceUnavailable> {
        match runtime {
            VendorRuntime::Cuda => cubecl::Device::cuda(index),
            VendorRuntime::Rocm => cubecl::Device::rocm(index),
        }
    }

    /// Opens a device, or gives what is open.
    ///
    /// # Errors
    /// What the runtime says where it breaks off: these have no other way to fail.
    pub fn client(device: &cubecl::Device) -> Result<Client, String> {
        let device = device.clone();
        catch_unwind(move || device.client())
            .map_err(|panic| pipe_engine::kind::panic_message(panic.as_ref()).to_owned())
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_runtime_that_was_not_built_in_has_no_devices_and_says_so() {
            for runtime in [VendorRuntime::Cuda, VendorRuntime::Rocm] {
                if VendorRuntime::BUILT.contains(&runtime) {
                    continue;
                }
                assert_eq!(list(runtime), []);
                let error = find(runtime, 0).unwrap_err();
                assert!(matches!(error, DeviceUnavailable::NotLinked(_)), "{error}");
            }
        }
    }
}

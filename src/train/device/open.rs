//! Opening an adapter: once in a process, always the one that was listed, and on this program's
//! configuration.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// What was opened, by the number of its adapter. The compute runtime lets nobody open an adapter a
/// second time in a process, not even after it lost its memory or its device: every stage and every
/// attempt computes on the same one.
pub(super) struct DeviceCache<D>(Mutex<BTreeMap<usize, D>>);

#[cfg_attr(not(feature = "wgpu"), allow(dead_code, reason = "only wgpu opens adapters"))]
impl<D: Clone> DeviceCache<D> {
    pub const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// What was opened before; else what `open` opens. Who asks meanwhile waits. A failure is not
    /// kept.
    pub fn get<E>(&self, index: usize, open: impl FnOnce() -> Result<D, E>) -> Result<D, E> {
        let mut opened = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(device) = opened.get(&index) {
            return Ok(device.clone());
        }
        let device = open()?;
        opened.insert(index, device.clone());
        Ok(device)
    }
}

#[cfg(feature = "wgpu")]
pub(super) use wgpu::{APIS, client, open};

#[cfg(feature = "wgpu")]
mod wgpu {
    use burn::tensor::Device;
    use burn_wgpu::graphics::AutoGraphicsApi;
    use burn_wgpu::wgpu::Backend;
    use burn_wgpu::{RuntimeOptions, WgpuBackend, WgpuDevice, try_init_setup};
    use cubecl::client::Client;
    use cubecl::wgpu::WgpuDeviceKind;

    use crate::device::adapters::{Adapter, describe};
    use crate::device::open::DeviceCache;
    use crate::device::{configuration, failure};

    /// The graphics APIs that adapters are listed of, the preferred one first, with the names that
    /// the compute runtime opens them by. On macOS its choice is Metal and nothing else; by name it
    /// would refuse Metal where the system is too old for MSL, in place of compiling WGSL there.
    pub const APIS: [(Backend, WgpuBackend); 3] = [
        (Backend::Metal, WgpuBackend::Auto),
        (Backend::Vulkan, WgpuBackend::Vulkan),
        (Backend::Dx12, WgpuBackend::Dx12),
    ];

    /// Kernels that go to the GPU in one submission: the compute runtime's own number, whatever
    /// `CUBECL_WGPU_MAX_TASKS` says.
    const TASKS: usize = 32;

    /// Opens an adapter of [`adapters`](crate::device::adapters), or gives what was opened before.
    pub fn open(adapter: &Adapter) -> Result<Device, String> {
        static OPENED: DeviceCache<Device> = DeviceCache::new();
        OPENED.get(adapter.index, || open_first(adapter))
    }

    /// What launches kernels on an adapter that is open.
    pub fn client(adapter: &Adapter) -> Result<Client, String> {
        Ok(cubecl::Device::Wgpu(selector(adapter)?).client())
    }

    fn open_first(adapter: &Adapter) -> Result<Device, String> {
        failure::watch();
        configuration::fix();
        let selected = selector(adapter)?;
        let options = RuntimeOptions::with_tasks_max(Some(TASKS)).map_err(|e| e.to_string())?;
        let setup =
            try_init_setup::<AutoGraphicsApi>(&selected, options).map_err(|e| e.to_string())?;
        let found = describe(&setup.adapter);
        if !found.is_same_hardware(adapter) {
            return Err(format!(
                "the driver opened {} ({}) in its place",
                found.name, found.backend
            ));
        }
        Ok(Device::new(selected))
    }

    /// How the compute runtime finds an adapter: by graphics API and kind, counted among those of
    /// its kind. Never "the default one", which `CUBECL_WGPU_DEFAULT_DEVICE` and the system's power
    /// settings decide.
    fn selector(adapter: &Adapter) -> Result<WgpuDevice, String> {
        let api = APIS.iter().find(|(backend, _)| format!("{backend:?}") == adapter.backend);
        let Some((_, api)) = api else {
            return Err(format!("there is no way to compute with {}", adapter.backend));
        };
        let kind = match adapter.kind {
            "discrete" => WgpuDeviceKind::DiscreteGpu(adapter.nth),
            "integrated" => WgpuDeviceKind::IntegratedGpu(adapter.nth),
            "virtual" => WgpuDeviceKind::VirtualGpu(adapter.nth),
            "software" if adapter.nth == 0 => WgpuDeviceKind::Cpu,
            "software" => {
                return Err(
                    "only the first software adapter can be opened; name its driver alone in VK_DRIVER_FILES"
                        .into(),
                );
            }
            _ => WgpuDeviceKind::Other(adapter.nth),
        };
        Ok(WgpuDevice::new(kind).on(*api))
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use crate::device::adapters::tests::adapter;

        /// How the compute runtime counts: the nth of those that have the kind, on the API.
        fn opened_of(all: &[Adapter], device: &WgpuDevice) -> Option<usize> {
            let (kind, nth) = match device.kind {
                WgpuDeviceKind::DiscreteGpu(nth) => ("discrete", nth),
                WgpuDeviceKind::IntegratedGpu(nth) => ("integrated", nth),
                WgpuDeviceKind::VirtualGpu(nth) => ("virtual", nth),
                WgpuDeviceKind::Other(nth) => ("other", nth),
                WgpuDeviceKind::Cpu => ("software", 0),
                _ => return None,
            };
            all.iter().filter(|a| a.kind == kind).nth(nth).map(|a| a.index)
        }

        #[test]
        fn what_is_opened_is_what_was_listed_on_every_api_and_in_every_order() {
            const KINDS: [&str; 5] = ["discrete", "integrated", "virtual", "software", "other"];
            for (backend, api) in APIS {
                for lists in 0..KINDS.len().pow(4) {
                    let mut all: Vec<Adapter> = Vec::new();
                    for index in 0..4 {
                        let kind = KINDS[lists / KINDS.len().pow(index) % KINDS.len()];
                        let mut next = adapter(all.len(), kind, &format!("{backend:?}"));
                        next.nth = all.iter().filter(|a| a.kind == kind).count();
                        all.push(next);
                    }
                    for listed in &all {
                        match selector(listed) {
                            Ok(device) => {
                                assert_eq!(device.backend, api, "the API is what it is listed by");
                                assert_eq!(opened_of(&all, &device), Some(listed.index), "{all:?}");
                            }
                            Err(_) => assert!(listed.software && listed.nth > 0, "{listed:?}"),
                        }
                    }
                }
            }
        }

        #[test]
        fn an_api_that_nobody_listed_is_not_opened() {
            assert!(selector(&adapter(0, "discrete", "Gl")).unwrap_err().contains("Gl"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn an_adapter_is_opened_once_and_again_only_after_a_failure() {
        let (opened, times) = (DeviceCache::new(), Cell::new(0));
        let open = |index: usize, works: bool| {
            opened.get(index, || {
                times.set(times.get() + 1);
                if works { Ok(10 * index + times.get()) } else { Err("no") }
            })
        };
        assert_eq!(open(1, false), Err("no"));
        assert_eq!(open(1, true), Ok(12), "a failure is not kept");
        assert_eq!(open(1, false), Ok(12), "the second stage gets what the first one opened");
        assert_eq!(open(2, true), Ok(23));
        assert_eq!(open(1, true), Ok(12));
        assert_eq!(times.get(), 3);
    }
}

//! The adapters that wgpu sees. Listing opens none; what is opened later is the adapter that was
//! listed: see [`open`](super::open).

use super::spec::{DeviceSpec, VendorRuntime};

/// One adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adapter {
    /// The N of `gpu:N`.
    pub index: usize,
    pub name: String,
    /// Graphics API, or the compute runtime beside wgpu: Vulkan, Metal, Dx12, CUDA, ROCm.
    pub backend: String,
    /// discrete, integrated, virtual, other or software
    pub kind: &'static str,
    pub driver: String,
    /// Computes on the processor: slow, and never taken by `auto`.
    pub software: bool,
    /// Which one of its kind it is.
    pub nth: usize,
    /// Numbers of vendor and product, and the place on the bus where the system tells it.
    pub id: String,
    /// Its shaders can compute with 16-bit floats.
    pub f16: bool,
}

impl Adapter {
    /// Higher is better.
    pub(super) fn rank(&self) -> u8 {
        match self.kind {
            "discrete" => 3,
            "integrated" => 2,
            "virtual" => 1,
            _ => 0,
        }
    }

    /// What `device:` is to be.
    pub fn spec(&self) -> DeviceSpec {
        let runtime = VendorRuntime::BUILT.iter().find(|runtime| runtime.api() == self.backend);
        match runtime {
            Some(runtime) => DeviceSpec::Vendor(*runtime, self.index),
            None => DeviceSpec::Adapter(self.index),
        }
    }

    /// The formats that `precision:` may name on it, as far as its driver says so before it is
    /// opened. bf16 is in none of them: WGSL has no such type, and the SPIR-V compiler cannot do
    /// arithmetic with it.
    pub fn precisions(&self) -> &'static [&'static str] {
        if self.f16 { &["f32", "f16"] } else { &["f32"] }
    }

    /// Whether another listing's entry is the same piece of hardware with the same driver.
    pub(super) fn is_same_hardware(&self, other: &Self) -> bool {
        let what =
            |a: &Self| (a.backend.clone(), a.kind, a.name.clone(), a.id.clone(), a.driver.clone());
        what(self) == what(other)
    }
}

/// All adapters of one graphics API: the first of Metal, Vulkan and DX12 that has a hardware
/// adapter, else the first that has any. Empty without a driver. Looked for once in a process:
/// drivers take their time, and some print what they miss each time.
#[cfg(feature = "wgpu")]
pub fn adapters() -> Vec<Adapter> {
    static FOUND: std::sync::OnceLock<Vec<Adapter>> = std::sync::OnceLock::new();
    FOUND.get_or_init(|| preferred_api(super::open::APIS.map(|(backend, _)| list(backend)))).clone()
}

#[cfg(not(feature = "wgpu"))]
pub fn adapters() -> Vec<Adapter> {
    Vec::new()
}

/// The list to show, of those of all graphics APIs, the preferred one first.
#[cfg_attr(not(feature = "wgpu"), allow(dead_code, reason = "only wgpu lists adapters"))]
fn preferred_api(lists: impl IntoIterator<Item = Vec<Adapter>>) -> Vec<Adapter> {
    let mut lists = lists.into_iter().filter(|list| !list.is_empty()).collect::<Vec<_>>();
    let hardware = lists.iter().position(|list| list.iter().any(|a| !a.software)).unwrap_or(0);
    if lists.is_empty() { Vec::new() } else { lists.swap_remove(hardware) }
}

#[cfg(feature = "wgpu")]
fn list(backend: burn_wgpu::wgpu::Backend) -> Vec<Adapter> {
    use burn_wgpu::wgpu;
    if !wgpu::Instance::enabled_backend_features().contains(backend.into()) {
        return Vec::new();
    }
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: backend.into(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let mut found: Vec<Adapter> = Vec::new();
    for adapter in
        burn::tensor::try_read_sync(instance.enumerate_adapters(backend.into())).unwrap_or_default()
    {
        let mut listed = describe(&adapter);
        listed.index = found.len();
        listed.nth = found.iter().filter(|a| a.kind == listed.kind).count();
        found.push(listed);
    }
    found
}

/// What wgpu says of an adapter, without its place in a list.
#[cfg(feature = "wgpu")]
pub(super) fn describe(adapter: &burn_wgpu::wgpu::Adapter) -> Adapter {
    use burn_wgpu::wgpu;
    let info = adapter.get_info();
    let kind = match info.device_type {
        wgpu::DeviceType::DiscreteGpu => "discrete",
        wgpu::DeviceType::IntegratedGpu => "integrated",
        wgpu::DeviceType::VirtualGpu => "virtual",
        wgpu::DeviceType::Cpu => "software",
        wgpu::DeviceType::Other => "other",
    };
    let id = format!("{:04x}:{:04x} {}", info.vendor, info.device, info.device_pci_bus_id);
    Adapter {
        index: 0,
        name: info.name,
        backend: format!("{:?}", info.backend),
        kind,
        driver: [info.driver, info.driver_info].join(" ").trim().to_owned(),
        software: kind == "software",
        nth: 0,
        id: id.trim().to_owned(),
        f16: adapter.features().contains(wgpu::Features::SHADER_F16),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An adapter of a list, the first of its kind.
    pub fn adapter(index: usize, kind: &'static str, backend: &str) -> Adapter {
        Adapter {
            index,
            name: format!("adapter {index}"),
            backend: backend.into(),
            kind,
            driver: String::new(),
            software: kind == "software",
            nth: 0,
            id: format!("10de:{index:04x}"),
            f16: false,
        }
    }

    #[test]
    fn the_first_api_with_hardware_is_listed_and_else_the_first_that_has_anything() {
        let (gpu, software) =
            (|api| adapter(0, "discrete", api), |api| adapter(0, "software", api));
        let preferred = |lists: [&[Adapter]; 3]| {
            preferred_api(lists.map(<[_]>::to_vec)).first().map(|adapter| adapter.backend.clone())
        };
        let found = |name: &str| Some(name.to_owned());
        assert_eq!(preferred([&[], &[gpu("Vulkan")], &[gpu("Dx12")]]), found("Vulkan"));
        assert_eq!(preferred([&[], &[software("Vulkan")], &[gpu("Dx12")]]), found("Dx12"));
        assert_eq!(preferred([&[], &[software("Vulkan")], &[software("Dx12")]]), found("Vulkan"));
        assert_eq!(preferred([&[], &[], &[]]), None);
    }
}

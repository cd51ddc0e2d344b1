//! The adapters that wgpu sees, in the order in which the compute runtime counts them. Listing opens none.

/// One adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adapter {
    /// The N of `gpu:N`.
    pub index: usize,
    pub name: String,
    /// Graphics API: Vulkan, Metal, Dx12.
    pub backend: String,
    /// discrete, integrated, virtual, other or software
    pub kind: &'static str,
    pub driver: String,
    /// Computes on the processor: slow, and never taken by `auto`.
    pub software: bool,
    /// Which one of its kind it is.
    pub nth: usize,
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

    #[cfg(feature = "wgpu")]
    pub(super) fn burn_kind(&self) -> burn::tensor::DeviceKind {
        use burn::tensor::DeviceKind;
        match self.kind {
            "discrete" => DeviceKind::DiscreteGpu(self.nth),
            "integrated" => DeviceKind::IntegratedGpu(self.nth),
            "virtual" => DeviceKind::VirtualGpu(self.nth),
            "software" => DeviceKind::Cpu,
            _ => DeviceKind::DefaultDevice,
        }
    }
}

/// All adapters of the graphics API that the compute runtime settles on: the first of Vulkan, Metal and DX12 that
/// has a hardware adapter, else the first that has any. Empty without a driver. Looked for once in a process: drivers
/// take their time, and some print what they miss each time.
#[cfg(feature = "wgpu")]
pub fn adapters() -> Vec<Adapter> {
    static FOUND: std::sync::OnceLock<Vec<Adapter>> = std::sync::OnceLock::new();
    FOUND.get_or_init(look).clone()
}

#[cfg(feature = "wgpu")]
fn look() -> Vec<Adapter> {
    use burn_wgpu::wgpu;
    let backends = [wgpu::Backend::Metal, wgpu::Backend::Dx12, wgpu::Backend::Vulkan];
    let mut lists = backends.into_iter().map(list).filter(|list| !list.is_empty()).collect::<Vec<_>>();
    let hardware = lists.iter().position(|list| list.iter().any(|a| !a.software)).unwrap_or(0);
    if lists.is_empty() { Vec::new() } else { lists.swap_remove(hardware) }
}

#[cfg(not(feature = "wgpu"))]
pub fn adapters() -> Vec<Adapter> {
    Vec::new()
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
        let info = adapter.get_info();
        let kind = match info.device_type {
            wgpu::DeviceType::DiscreteGpu => "discrete",
            wgpu::DeviceType::IntegratedGpu => "integrated",
            wgpu::DeviceType::VirtualGpu => "virtual",
            wgpu::DeviceType::Cpu => "software",
            wgpu::DeviceType::Other => "other",
        };
        let nth = found.iter().filter(|a| a.kind == kind).count();
        found.push(Adapter {
            index: found.len(),
            name: info.name,
            backend: format!("{:?}", info.backend),
            kind,
            driver: [info.driver, info.driver_info].join(" ").trim().to_owned(),
            software: kind == "software",
            nth,
        });
    }
    found
}

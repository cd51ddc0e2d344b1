//! Where to compute: the setting, the adapters there are, and which one a setting means. Nothing is
//! opened until a stage asks for it.

mod adapters;
mod capabilities;
mod configuration;
mod failure;
mod list;
mod open;
mod self_test_result;
mod spec;
#[cfg(test)]
mod testing;
mod vendor;

use burn::tensor::Device;
use pipe_engine::kind::RunContext;

pub use adapters::{Adapter, adapters};
pub use capabilities::{Capabilities, Limits};
pub use configuration::fix as fix_configuration;
#[cfg(test)]
pub use failure::watch;
pub use failure::{read, read_all, read_parameters};
pub use list::DeviceList;
pub use self_test_result::SelfTestResult;
pub use spec::{DeviceSpec, VendorRuntime};
#[cfg(test)]
pub use testing::{has_driver, software_vulkan};
pub use vendor::vendor_adapters;

/// A device that a stage can compute on.
pub struct ResolvedDevice {
    /// Without autodiff.
    pub device: Device,
    /// For people and metadata: `cpu (flex)`, `NVIDIA … (Vulkan)`.
    pub name: String,
    pub is_gpu: bool,
    /// What it is of [`adapters`], if it is a GPU.
    pub adapter: Option<Adapter>,
}

/// Why no device was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    #[error(
        "failed to find a hardware GPU; {0}. `device: cpu` or `auto` works everywhere; `pipe doctor` says why"
    )]
    NoGpu(String),
    #[error("failed to find adapter {index}; {found}; `pipe doctor` says why")]
    NoAdapter { index: usize, found: String },
    #[error("failed to find {spec}; {reason}; `pipe doctor` says why")]
    NoVendorGpu { spec: DeviceSpec, reason: String },
    #[error("failed to open {name}: {reason}; `device: cpu` works everywhere")]
    Open { name: String, reason: String },
    #[error("`{spec}` is {device}, which is in the list already")]
    Twice { spec: DeviceSpec, device: DeviceSpec },
}

/// Finds and opens the device that a setting means. `auto` takes the best hardware adapter, else
/// the CPU, and never a software adapter; `gpu:N` takes adapter N of [`adapters`], whatever it is.
pub fn resolve(spec: DeviceSpec, assignment: GpuAssignment) -> Result<ResolvedDevice, DeviceError> {
    let cpu = || {
        let name = "cpu (flex)".into();
        ResolvedDevice { device: Device::flex(), name, is_gpu: false, adapter: None }
    };
    configuration::fix();
    match spec {
        DeviceSpec::Cpu => return Ok(cpu()),
        DeviceSpec::Vendor(runtime, index) => return resolve_vendor(runtime, index),
        _ => {}
    }
    let all = adapters();
    let best = assignment.pick(&all);
    match (spec, best) {
        (DeviceSpec::Adapter(index), _) => match all.get(index) {
            Some(adapter) => open(adapter),
            None => Err(DeviceError::NoAdapter { index, found: describe(&all) }),
        },
        (_, Some(adapter)) => open(adapter),
        (DeviceSpec::Gpu, None) => Err(DeviceError::NoGpu(describe(&all))),
        (_, None) => Ok(cpu()),
    }
}

/// Finds and opens a GPU of a compute runtime beside wgpu.
fn resolve_vendor(runtime: VendorRuntime, index: usize) -> Result<ResolvedDevice, DeviceError> {
    let spec = DeviceSpec::Vendor(runtime, index);
    let all = vendor_adapters();
    match all.iter().find(|adapter| adapter.spec() == spec) {
        Some(adapter) => open(adapter),
        None => {
            let names: Vec<String> =
                all.iter().map(|a| format!("{} {}", a.spec(), a.name)).collect();
            let reason = if names.is_empty() {
                format!("{} sees no GPU (is its driver installed?)", runtime.name())
            } else {
                format!("there is {}", names.join(", "))
            };
            Err(DeviceError::NoVendorGpu { spec, reason })
        }
    }
}

/// What a device of [`adapters`] or [`vendor_adapters`] can do. Opens it.
///
/// # Errors
/// It cannot be opened.
#[cfg(feature = "wgpu")]
pub fn capabilities(adapter: &Adapter) -> Result<(ResolvedDevice, Capabilities), DeviceError> {
    let device = open(adapter)?;
    let client = match adapter.spec() {
        DeviceSpec::Vendor(runtime, index) => vendor::find(runtime, index)
            .map_err(|e| e.to_string())
            .and_then(|device| vendor::client(&device)),
        _ => open::client(adapter),
    };
    let name = &adapter.name;
    let client = client.map_err(|reason| DeviceError::Open { name: name.clone(), reason })?;
    Ok((device, Capabilities::of(&client)))
}

#[cfg(not(feature = "wgpu"))]
pub fn capabilities(adapter: &Adapter) -> Result<(ResolvedDevice, Capabilities), DeviceError> {
    Err(without_wgpu(adapter))
}

/// Finds and opens all devices of a list, in its order. `all` is every hardware adapter, the
/// strongest first.
pub fn resolve_all(
    list: &DeviceList,
    assignment: GpuAssignment,
) -> Result<Vec<ResolvedDevice>, DeviceError> {
    let specs: Vec<DeviceSpec> = match list {
        DeviceList::These(specs) => specs.clone(),
        DeviceList::All => {
            let all = adapters();
            let hardware = by_strength(&all);
            if hardware.is_empty() {
                return Err(DeviceError::NoGpu(describe(&all)));
            }
            hardware.into_iter().map(|adapter| DeviceSpec::Adapter(adapter.index)).collect()
        }
    };
    let mut found: Vec<ResolvedDevice> = Vec::new();
    for spec in specs {
        let device = resolve(spec, assignment)?;
        if let Some(adapter) = &device.adapter
            && found.iter().any(|other| other.adapter == device.adapter)
        {
            return Err(DeviceError::Twice { spec, device: adapter.spec() });
        }
        found.push(device);
    }
    Ok(found)
}

/// The adapter that `auto` takes, if any.
pub fn best(all: &[Adapter]) -> Option<&Adapter> {
    GpuAssignment::default().pick(all)
}

/// Hardware adapters on this machine.
pub fn gpus() -> usize {
    adapters().iter().filter(|a| !a.software).count()
}

/// Which of several GPUs a stage may take, where it does not name one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GpuAssignment {
    /// Its own one, counted from 0 in the order of preference.
    pub gpu: Option<u32>,
    /// How many were lost in earlier attempts.
    pub lost: u32,
}

impl GpuAssignment {
    /// What the engine gave to a running stage.
    pub fn of(context: &RunContext) -> Self {
        Self { gpu: context.gpu, lost: context.adjustment.lost_devices }
    }

    /// The strongest hardware first; after a loss the next one, where there is one.
    fn pick(self, all: &[Adapter]) -> Option<&Adapter> {
        let hardware = by_strength(all);
        let place = self.gpu.unwrap_or(0) as usize + self.lost as usize;
        hardware.get(place % hardware.len().max(1)).copied()
    }
}

/// The hardware among them, the strongest first; of equals the first.
fn by_strength(all: &[Adapter]) -> Vec<&Adapter> {
    let mut hardware: Vec<&Adapter> = all.iter().filter(|a| !a.software).collect();
    hardware.sort_by_key(|a| std::cmp::Reverse(a.rank()));
    hardware
}

fn describe(all: &[Adapter]) -> String {
    if all.is_empty() {
        "wgpu sees no adapter at all (is a Vulkan driver installed?)".into()
    } else {
        let names: Vec<String> =
            all.iter().map(|a| format!("gpu:{} {}", a.index, a.name)).collect();
        format!("there is {}", names.join(", "))
    }
}

#[cfg(feature = "wgpu")]
fn open(adapter: &Adapter) -> Result<ResolvedDevice, DeviceError> {
    let failed = |reason: String| DeviceError::Open { name: adapter.name.clone(), reason };
    let device = match adapter.spec() {
        DeviceSpec::Vendor(runtime, index) => {
            let device = vendor::find(runtime, index).map_err(|e| failed(e.to_string()))?;
            vendor::client(&device).map_err(failed)?;
            Device::new(device)
        }
        _ => open::open(adapter).map_err(failed)?,
    };
    let name = format!("{} ({})", adapter.name, adapter.backend);
    Ok(ResolvedDevice { device, name, is_gpu: true, adapter: Some(adapter.clone()) })
}

#[cfg(not(feature = "wgpu"))]
fn open(adapter: &Adapter) -> Result<ResolvedDevice, DeviceError> {
    Err(without_wgpu(adapter))
}

#[cfg(not(feature = "wgpu"))]
fn without_wgpu(adapter: &Adapter) -> DeviceError {
    let reason = "this program was built without wgpu".into();
    DeviceError::Open { name: adapter.name.clone(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(index: usize, kind: &'static str) -> Adapter {
        adapters::tests::adapter(index, kind, "Vulkan")
    }

    #[test]
    fn auto_prefers_the_strongest_hardware_and_never_takes_software() {
        let all = [
            adapter(0, "software"),
            adapter(1, "integrated"),
            adapter(2, "discrete"),
            adapter(3, "discrete"),
        ];
        assert_eq!(best(&all).map(|a| a.index), Some(2));
        assert_eq!(best(&all[..2]).map(|a| a.index), Some(1));
        assert_eq!(best(&all[..1]), None);
    }

    #[test]
    fn stages_share_the_hardware_and_leave_a_lost_one() {
        let all = [adapter(0, "integrated"), adapter(1, "software"), adapter(2, "discrete")];
        let picked = |gpu, lost| GpuAssignment { gpu, lost }.pick(&all).map(|a| a.index);
        assert_eq!(
            [picked(None, 0), picked(Some(0), 0), picked(Some(1), 0)],
            [Some(2), Some(2), Some(0)]
        );
        assert_eq!(
            [picked(None, 1), picked(Some(1), 1)],
            [Some(0), Some(2)],
            "another one after a loss"
        );
        assert_eq!(GpuAssignment { gpu: Some(3), lost: 1 }.pick(&all[1..2]), None);
    }

    #[test]
    fn an_adapter_that_is_not_there_is_named() {
        let error =
            resolve(DeviceSpec::Adapter(99), GpuAssignment::default()).err().unwrap().to_string();
        assert!(error.starts_with("failed to find adapter 99; "), "{error}");
    }

    #[test]
    fn a_list_is_opened_in_its_order() {
        let list = DeviceList::These(vec![DeviceSpec::Cpu; 3]);
        let names: Vec<String> = resolve_all(&list, GpuAssignment::default())
            .unwrap()
            .into_iter()
            .map(|d| d.name)
            .collect();
        assert_eq!(names, ["cpu (flex)"; 3]);
        let list = DeviceList::These(vec![DeviceSpec::Cpu, DeviceSpec::Adapter(99)]);
        assert!(matches!(
            resolve_all(&list, GpuAssignment::default()),
            Err(DeviceError::NoAdapter { index: 99, .. })
        ));
    }

    #[test]
    fn the_cpu_is_always_there() {
        assert_eq!(resolve(DeviceSpec::Cpu, GpuAssignment::default()).unwrap().name, "cpu (flex)");
    }

    /// `a` times itself, and whether it could be computed.
    fn product(size: usize, device: &Device) -> Result<Vec<f32>, pipe_engine::kind::StageError> {
        let a = burn::tensor::Tensor::<2>::ones([size, size], device);
        read(a.clone().matmul(a)).map(|data| data.iter::<f32>().collect())
    }

    #[test]
    fn an_adapter_computes_on_after_it_was_resolved_again_and_after_a_lack_of_memory() {
        let test = "device::tests::an_adapter_computes_on_after_it_was_resolved_again_and_after_a_lack_of_memory";
        let Some(first) = software_vulkan(test) else { return };
        let again = || resolve(DeviceSpec::Adapter(0), GpuAssignment::default()).unwrap().device;
        assert_eq!(first, again(), "the second stage's device is the first one's");
        assert_eq!(product(8, &again()).unwrap(), [8.0; 64]);
        for _ in 0..2 {
            let error = product(1 << 17, &again()).unwrap_err(); // 69 GB
            assert_eq!(error.failure, pipe_engine::kind::Failure::OutOfMemory, "{error}");
            assert_eq!(product(8, &again()).unwrap(), [8.0; 64], "the attempt after it");
        }
    }

    #[test]
    fn the_memory_of_a_stage_is_there_for_the_next_one() {
        let Some(device) =
            software_vulkan("device::tests::the_memory_of_a_stage_is_there_for_the_next_one")
        else {
            return;
        };
        let reserved = || device.memory_pool_usage().unwrap().bytes_reserved;
        // Each in a thread of its own, as stages and their attempts are.
        let stage = || {
            let device = device.clone();
            let sum = move || burn::tensor::Tensor::<2>::ones([1024, 1024], &device) + 1.0;
            std::thread::spawn(move || read(sum()).unwrap().num_elements()).join().unwrap()
        };
        stage();
        let after_one = reserved();
        assert!(after_one >= 1 << 22, "{after_one} bytes");
        (0..4).for_each(|_| assert_eq!(stage(), 1 << 20));
        assert_eq!(reserved(), after_one);
    }

    #[test]
    fn the_precisions_that_are_listed_are_those_that_the_runtime_has() {
        use crate::trainer::Precision;
        let Some(device) = software_vulkan(
            "device::tests::the_precisions_that_are_listed_are_those_that_the_runtime_has",
        ) else {
            return;
        };
        let listed = adapters()[0].precisions();
        for precision in [Precision::F32, Precision::F16, Precision::Bf16] {
            assert_eq!(
                listed.contains(&precision.name()),
                precision.runs_on(&device),
                "{precision:?}"
            );
        }
    }
}

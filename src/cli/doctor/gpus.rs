//! Which GPUs there are, and why one that is in the machine is not among them.

use pipe_train::device::VendorRuntime;
use serde::Deserialize;

use super::finding::{DEBUG_LOADER, Finding, commands};
use super::machine::{Machine, Package};
use super::vulkan::{self, Driver};

/// A GPU as `pipe devices --json` tells it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Adapter {
    pub device: String,
    pub name: String,
    pub kind: String,
    pub backend: String,
    pub software: bool,
    pub precision: Vec<String>,
    pub capabilities: Option<Compiled>,
    pub unopened: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Compiled {
    pub compiler: String,
}

impl Adapter {
    pub fn is_hardware_gpu(&self) -> bool {
        self.kind != "processor" && !self.software
    }
}

/// The GPUs whose files are in the machine, whether a program can use them or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hardware {
    /// NVIDIA's kernel module has made its files.
    pub nvidia: bool,
    pub nodes: Vec<RenderNode>,
    /// Windows' GPU, seen from its Linux.
    pub wsl: bool,
}

/// A GPU's file in `/dev/dri`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderNode {
    pub path: String,
    pub vendor: Vendor,
    pub may_use: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vendor {
    Nvidia,
    Amd,
    Intel,
    /// What virtual machines have, mostly.
    Other,
}

impl Hardware {
    pub fn of(machine: &Machine) -> Self {
        let nodes = machine.list("/dev/dri").into_iter();
        let nodes = nodes.filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("renderD"))
        });
        let node = |path: std::path::PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let vendor = machine.read(format!("/sys/class/drm/{name}/device/vendor"));
            RenderNode {
                vendor: match vendor.unwrap_or_default().trim() {
                    "0x10de" => Vendor::Nvidia,
                    "0x1002" => Vendor::Amd,
                    "0x8086" => Vendor::Intel,
                    _ => Vendor::Other,
                },
                may_use: machine.may_use(&path),
                path: path.display().to_string(),
            }
        };
        Self {
            nvidia: machine.has("/dev/nvidiactl") || machine.has("/dev/nvidia0"),
            nodes: nodes.map(node).collect(),
            wsl: machine.has("/dev/dxg"),
        }
    }

    /// Whether one is there that a program should find.
    pub fn is_any(&self) -> bool {
        self.nvidia || self.wsl || self.nodes.iter().any(|node| node.vendor != Vendor::Other)
    }

    fn has(&self, vendors: &[Vendor]) -> bool {
        self.nodes.iter().any(|node| vendors.contains(&node.vendor))
    }
}

/// What is to be said of the GPUs that were found.
pub fn findings(machine: &Machine, hardware: &Hardware, adapters: &[Adapter]) -> Vec<Finding> {
    let gpus: Vec<&Adapter> = adapters.iter().filter(|a| a.is_hardware_gpu()).collect();
    if gpus.is_empty() {
        return vec![missing(machine, hardware, adapters)];
    }
    gpus.into_iter().map(found).collect()
}

fn found(gpu: &Adapter) -> Finding {
    match (&gpu.unopened, &gpu.capabilities) {
        (Some(reason), _) => Finding::problem("gpu", format!("{}: {reason}", gpu.device))
            .with_remedy(commands::DEVICES),
        (None, able) => {
            let compiler = able.as_ref().map_or("?", |able| able.compiler.as_str());
            let text = format!(
                "{} {} ({}), {compiler} kernels, {}",
                gpu.device,
                gpu.name,
                gpu.backend,
                gpu.precision.join(" and ")
            );
            Finding::ok("gpu", text)
        }
    }
}

/// Why there is no hardware GPU.
fn missing(machine: &Machine, hardware: &Hardware, adapters: &[Adapter]) -> Finding {
    let drivers = vulkan::drivers(machine);
    let driver = |names: &[&str]| -> Option<&Driver> {
        drivers.iter().find(|driver| names.iter().any(|name| driver.name().contains(name)))
    };
    if hardware.nvidia {
        return match driver(&["nvidia"]) {
            None => nvidia_without_vulkan(machine),
            Some(driver) => unused(driver),
        };
    }
    if let Some(node) = hardware.nodes.iter().find(|node| !node.may_use) {
        let text = format!("{} may not be used by this user", node.path);
        return Finding::problem("gpu", text).with_remedy("sudo usermod -aG render,video $USER");
    }
    if hardware.has(&[Vendor::Amd, Vendor::Intel]) {
        return match driver(&["radeon", "amd", "intel"]) {
            Some(driver) => unused(driver),
            None => {
                let text = "a GPU of AMD or Intel is there, and no Vulkan driver for it";
                with_package(Finding::problem("gpu", text), machine, Package::Mesa)
            }
        };
    }
    if hardware.has(&[Vendor::Nvidia]) {
        let text = "an NVIDIA GPU is there, and its own kernel module is not loaded";
        return with_package(Finding::problem("gpu", text), machine, Package::Nvidia);
    }
    if hardware.wsl {
        let text = "Windows' GPU is there, and no Vulkan driver for it (dzn, a part of Mesa)";
        return with_package(Finding::warning("gpu", text), machine, Package::Mesa);
    }
    let software = adapters.iter().find(|adapter| adapter.software);
    Finding::warning(
        "gpu",
        match software {
            Some(adapter) => format!(
                "none: {} is {}, which computes on the processor; `device: cpu` is faster",
                adapter.device, adapter.name
            ),
            None => "no GPU is in this machine; trainings run on the processor".to_owned(),
        },
    )
}

/// NVIDIA's kernel module is loaded, and its part for Vulkan is not there.
fn nvidia_without_vulkan(machine: &Machine) -> Finding {
    let allowed = machine.variable("NVIDIA_DRIVER_CAPABILITIES");
    let has_graphics =
        allowed.is_some_and(|list| list.split(',').any(|item| matches!(item, "graphics" | "all")));
    if machine.is_container() && !has_graphics {
        let set = allowed.map_or("is not set".into(), |list| format!("is {list}"));
        let text = format!(
            "this container was given an NVIDIA GPU without graphics, which Vulkan is a part of: NVIDIA_DRIVER_CAPABILITIES {set}"
        );
        let remedy = "docker run --gpus all -e NVIDIA_DRIVER_CAPABILITIES=all …";
        return Finding::problem("gpu", text).with_remedy(remedy);
    }
    if machine.is_container() {
        let text = "this container was given an NVIDIA GPU, and the machine outside has no Vulkan driver to give (its package is to be installed there)";
        return with_package(Finding::problem("gpu", text), machine, Package::Nvidia);
    }
    let text = "an NVIDIA GPU is there, and no Vulkan driver for it: only the part of its driver that computes is installed";
    with_package(Finding::problem("gpu", text), machine, Package::Nvidia)
}

/// A driver is there and has shown no GPU.
fn unused(driver: &Driver) -> Finding {
    let text = format!("a GPU and the driver {} are there, and it shows no adapter", driver.name());
    Finding::problem("gpu", text).with_remedy(DEBUG_LOADER)
}

fn with_package(finding: Finding, machine: &Machine, package: Package) -> Finding {
    match machine.install(package) {
        Some(command) => finding.with_remedy(command),
        None => finding,
    }
}

/// The compute runtimes that the program was built with, beside wgpu.
pub fn runtime_findings(machine: &Machine, built: &[VendorRuntime]) -> Vec<Finding> {
    let of = |runtime: &VendorRuntime| {
        let name = match runtime {
            VendorRuntime::Cuda => "libcuda.so.1",
            VendorRuntime::Rocm => "libamdhip64.so",
        };
        match vulkan::library(machine, name) {
            Some(path) => {
                Finding::ok("loader", format!("{} for {}", path.display(), runtime.name()))
            }
            None => {
                let text = format!("there is no {name}: no device of {} is found", runtime.name());
                Finding::warning("loader", text)
            }
        }
    };
    built.iter().map(of).collect()
}

/// Variables that make drivers fail, or complain.
pub fn variable_findings(machine: &Machine) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in ["VK_LOADER_DRIVERS_SELECT", "VK_LOADER_DRIVERS_DISABLE"] {
        if let Some(value) = machine.variable(name) {
            let text = format!("{name}={value} leaves drivers out");
            findings.push(Finding::warning("drivers", text).with_remedy(format!("unset {name}")));
        }
    }
    let layer = "vulkan/implicit_layer.d/VkLayer_MESA_device_select.json";
    let is_layer = ["/usr/share", "/usr/local/share", "/etc"]
        .iter()
        .any(|folder| machine.has(format!("{folder}/{layer}")));
    let silent = machine.variable("NODEVICE_SELECT").is_some();
    if is_layer && !silent && machine.variable("XDG_RUNTIME_DIR").is_none() {
        let text = "XDG_RUNTIME_DIR is not set: a layer of Mesa's may say so as an error, and nothing depends on it";
        findings.push(Finding::warning("drivers", text).with_remedy("export NODEVICE_SELECT=1"));
    }
    findings
}

#[cfg(test)]
#[path = "gpus_tests.rs"]
mod tests;

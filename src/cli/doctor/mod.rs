//! `pipe doctor`: what this machine has for a training, what it lacks, and what to type.
//!
//! What is read are files and variables ([`machine`]). Drivers are asked by processes of their own
//! ([`child`]), so that one that crashes or hangs is a finding too.

mod child;
mod disk;
mod finding;
mod gpus;
mod machine;
mod steps;
mod system;
mod vulkan;

use std::time::Duration;

use pipe_train::device::{DeviceList, DeviceSpec, VendorRuntime};
use serde::Serialize;

use self::finding::{DEBUG_LOADER, Finding, Verdict};
use self::gpus::{Adapter, Hardware};
use self::machine::Machine;
use super::{CliError, ExitCode, project};
use crate::report::stdout::say;

/// Drivers of several GPUs may take some seconds to come up.
const LISTING: Duration = Duration::from_secs(90);

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe doctor\n  pipe doctor --json\n  pipe doctor --test gpu:0\n\nExit codes: 0 nothing is a problem; 1 something is."
)]
pub struct DoctorArguments {
    /// Devices to try some training steps on besides the CPU: all hardware GPUs, if left out
    #[arg(long, value_name = "DEVICES")]
    test: Option<DeviceList>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Try steps on one device in this process
    #[arg(long, hide = true, value_name = "DEVICE", conflicts_with_all = ["test", "json"])]
    step: Option<DeviceSpec>,
}

#[derive(Serialize)]
struct Report {
    /// Whether nothing is a problem.
    healthy: bool,
    findings: Vec<Finding>,
}

pub fn doctor(arguments: DoctorArguments) -> Result<ExitCode, CliError> {
    if let Some(device) = arguments.step {
        let tried = steps::here(device)?;
        say!("{}", serde_json::to_string(&tried).map_err(CliError::failed)?);
        return Ok(ExitCode::SUCCESS);
    }
    let program = std::env::current_exe().map_err(CliError::failed)?;
    let program = program.to_string_lossy();
    let machine = Machine::this();
    let root = project::root()?;
    let mut findings = Vec::new();
    let mut tell = |found: Vec<Finding>| {
        if !arguments.json {
            found.iter().for_each(|finding| say!("{}", finding.lines()));
        }
        findings.extend(found);
    };
    let (adapters, listing) = adapters(&program);
    tell(graphics(&machine, &adapters));
    tell(listing.into_iter().collect());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    tell(vec![system::memory_finding(&machine, cores)]);
    tell(disk::folders(&machine, &root).iter().map(disk::Folder::finding).collect());
    tell(vec![system::python_finding(), system::git_finding(&machine, &root)]);
    for device in tried(arguments.test.as_ref(), &adapters) {
        tell(vec![steps::finding(&program, &device)]);
    }
    let healthy = findings.iter().all(|finding| finding.verdict != Verdict::Problem);
    if arguments.json {
        let report = Report { healthy, findings };
        say!("{}", serde_json::to_string_pretty(&report).map_err(CliError::failed)?);
    }
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// What a process that asks the drivers lists, or what became of it.
fn adapters(program: &str) -> (Vec<Adapter>, Option<Finding>) {
    let reason = match child::run(program, &["devices", "--json"], LISTING) {
        Ok(ended) => match serde_json::from_str(&ended.stdout) {
            Ok(adapters) => return (adapters, None),
            Err(_) if ended.code.is_none() => "a driver crashed".to_owned(),
            Err(_) => ended.last_words,
        },
        Err(error) => format!("a driver hangs: {error}"),
    };
    let finding = Finding::problem("drivers", format!("the GPUs could not be listed: {reason}"))
        .with_remedy(DEBUG_LOADER);
    (Vec::new(), Some(finding))
}

/// How GPUs are reached on this system, and which there are.
fn graphics(machine: &Machine, adapters: &[Adapter]) -> Vec<Finding> {
    if !cfg!(feature = "wgpu") {
        return vec![Finding::warning("gpu", "this program was built without GPUs")];
    }
    let hardware = Hardware::of(machine);
    let mut findings = Vec::new();
    if cfg!(target_os = "macos") {
        findings.push(Finding::ok("loader", "Metal, a part of macOS"));
    } else if cfg!(windows) {
        findings.push(Finding::ok(
            "loader",
            "DX12, a part of Windows, and Vulkan where a driver has it",
        ));
    } else {
        let seen = adapters.iter().any(|adapter| adapter.backend == "Vulkan");
        findings.push(vulkan::loader_finding(machine, seen, hardware.is_any()));
        findings.extend(vulkan::driver_findings(machine));
        findings.extend(gpus::variable_findings(machine));
        findings.extend(gpus::runtime_findings(machine, VendorRuntime::BUILT));
    }
    findings.extend(gpus::findings(machine, &hardware, adapters));
    findings
}

/// The devices to try steps on: the CPU, then those that were named, or all hardware.
fn tried(named: Option<&DeviceList>, adapters: &[Adapter]) -> Vec<String> {
    let gpus: Vec<String> = match named {
        Some(DeviceList::These(specs)) => specs.iter().map(DeviceSpec::to_string).collect(),
        Some(DeviceList::All) | None => {
            let hardware = adapters.iter().filter(|adapter| adapter.is_hardware_gpu());
            hardware.map(|adapter| adapter.device.clone()).collect()
        }
    };
    let others = gpus.into_iter().filter(|device| device != "cpu");
    std::iter::once("cpu".to_owned()).chain(others).collect()
}

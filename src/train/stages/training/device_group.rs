//! The devices of one training.

use burn::tensor::Device;
use pipe_engine::kind::{Failure, StageError};

use crate::device::ResolvedDevice;
use crate::trainer::Worker;

/// The devices of a training, by what they do.
pub(super) struct DeviceGroup {
    /// With autodiff.
    pub main: Device,
    pub workers: Vec<Worker>,
    /// Threads of the main one, if it is not to have all cores.
    pub threads: Option<usize>,
    /// Of all, for people and metadata.
    pub name: String,
}

impl DeviceGroup {
    pub fn of(devices: Vec<ResolvedDevice>) -> Result<Self, StageError> {
        let name = devices.iter().map(|d| d.name.as_str()).collect::<Vec<_>>().join(" + ");
        // Where the CPU is listed several times, each one has its share of the cores.
        let cpus = devices.iter().filter(|d| !d.is_gpu).count();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = |d: &ResolvedDevice| (!d.is_gpu && cpus > 1).then(|| (cores / cpus).max(1));
        let mut devices = devices.into_iter();
        let Some(main) = devices.next() else {
            return Err(StageError::new(Failure::Bug, "a training without a device"));
        };
        let worker = |d: ResolvedDevice| {
            let threads = if d.is_gpu { None } else { Some(threads(&d).unwrap_or(cores)) };
            Worker { device: d.device.autodiff(), name: d.name, threads }
        };
        let own = threads(&main);
        Ok(Self {
            main: main.device.autodiff(),
            workers: devices.map(worker).collect(),
            threads: own,
            name,
        })
    }
}

/// Why a device cannot train in a precision, and what can be done.
pub(super) fn refused_precision(precision: &str, device: &ResolvedDevice) -> String {
    let can =
        device.adapter.as_ref().map_or("f32".into(), |adapter| adapter.precisions().join(" or "));
    format!(
        "precision: {} cannot compute with {precision}; use {can}, or `device: cpu`, which can (see `pipe devices`)",
        device.name
    )
}

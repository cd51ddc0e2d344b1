//! The devices of one training.

use burn::tensor::Device;
use pipe_core::progress::Event;
use pipe_engine::kind::{Failure, RunContext, StageError};

use crate::device::{self, GpuAssignment, ResolvedDevice};
use crate::trainer::{Periods, Precision, Worker, self_test};

/// The devices of a training, by what they do.
pub(super) struct DeviceGroup {
    /// With autodiff.
    pub main: Device,
    pub workers: Vec<Worker>,
    /// Threads of the main one, if it is not to have all cores.
    pub threads: Option<usize>,
    /// Of all, for people and metadata.
    pub name: String,
    /// Micro-batches that each device's shard of a batch is cut into, to save memory.
    pub micro_batches: usize,
}

impl DeviceGroup {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Device> {
        self.workers.iter().map(|worker| &worker.device).chain([&self.main])
    }

    /// The devices that the settings name, or that the run was given.
    ///
    /// # Errors
    /// One of them is not there, has not enough memory, cannot compute in the precision, or
    /// computes wrongly.
    pub fn resolve(periods: &Periods, context: &RunContext) -> Result<Self, StageError> {
        let settings = &periods.first().settings;
        let devices = device::resolve_all(&settings.devices(), GpuAssignment::of(context))
            .map_err(|e| StageError::setting(e.to_string()))?;
        let micro_batches =
            1usize.checked_shl(context.adjustment.micro_batch_splits).unwrap_or(usize::MAX);
        let largest = periods.iter().map(|period| period.settings.batch_size).max().unwrap_or(0);
        if micro_batches > largest.div_ceil(devices.len()) {
            return Err(StageError::setting(
                "the device's memory does not suffice even for one image at a time",
            ));
        }
        let mut precisions: Vec<Precision> =
            periods.iter().map(|period| period.settings.precision).collect();
        precisions.dedup();
        for precision in precisions {
            if let Some(device) = devices.iter().find(|d| !precision.runs_on(&d.device)) {
                return Err(StageError::setting(refused_precision(precision.name(), device)));
            }
            for device in &devices {
                self_test::require(&context.root, device, precision, |text| {
                    context.event(Event::Message { text });
                })?;
            }
        }
        Self::of(devices, micro_batches)
    }

    fn of(devices: Vec<ResolvedDevice>, micro_batches: usize) -> Result<Self, StageError> {
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
            micro_batches,
        })
    }
}

/// Why a device cannot train in a precision, and what can be done.
fn refused_precision(precision: &str, device: &ResolvedDevice) -> String {
    let can = Precision::all_on(&device.device).into_iter().map(Precision::name);
    let can = can.collect::<Vec<_>>().join(" or ");
    format!(
        "precision: {} cannot compute with {precision}; use {can}, or `device: cpu`, which can (see `pipe devices`)",
        device.name
    )
}

//! What each kernel of a training step takes on a GPU.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use burn::tensor::Device;
use cubecl::logging::{Duration, LaunchObservation, LaunchObserver, TimingMethod, TimingRequest};
use pipe_engine::kind::StageError;
use serde::Serialize;

use super::{Trial, held, short_name};
use crate::architecture::ModelConfig;
use crate::trainer::settings::OptimizerSettings;

/// The time of a step's kernels, each run by itself: their sum is more than a step takes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KernelTimes {
    /// Sum over all kernels of a step, in seconds.
    pub seconds: f64,
    /// Share of the launches that the device timed. The host timed the others, with what it takes
    /// to launch them.
    pub timed_by_device: f64,
    /// The longest in all first.
    pub kernels: Vec<KernelTime>,
}

/// A kernel in a step, on the average of the steps that were timed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KernelTime {
    pub kernel: String,
    pub launches: f64,
    /// Of all its launches.
    pub seconds: f64,
}

#[derive(Default)]
struct Timer(Mutex<Timed>);

#[derive(Default)]
struct Timed {
    /// Launches and seconds by kernel.
    kernels: BTreeMap<String, (u64, f64)>,
    by_device: u64,
}

impl LaunchObserver for Timer {
    fn launched(&self, _: &'static str) {}

    fn timing(&self) -> TimingRequest {
        TimingRequest::Resolved
    }

    fn timed(&self, kernel: &'static str, duration: Duration, method: TimingMethod) {
        let mut timed = held(&self.0);
        timed.by_device += u64::from(method == TimingMethod::Device);
        let (launches, seconds) = timed.kernels.entry(short_name(kernel)).or_default();
        *launches += 1;
        *seconds += duration.as_secs_f64();
    }
}

/// Times the kernels of so many steps of a batch, after some that are not timed.
///
/// # Errors
/// The device is no GPU, or fails.
pub fn time(
    config: &ModelConfig,
    batch: u64,
    optimizer: &OptimizerSettings,
    device: &Device,
    steps: u64,
) -> Result<KernelTimes, StageError> {
    let mut trial = Trial::new(config, batch, optimizer, device)?;
    let timer = Arc::new(Timer::default());
    let watching = LaunchObservation::new(timer.clone());
    (0..steps).try_for_each(|_| trial.step())?;
    drop(watching);
    let timed = std::mem::take(&mut *held(&timer.0));
    let launches: u64 = timed.kernels.values().map(|(launches, _)| launches).sum();
    if launches == 0 {
        return Err(StageError::setting("kernels are those of a GPU, and this device is none"));
    }
    let per_step = |number: f64| number / steps as f64;
    let mut kernels: Vec<KernelTime> = timed
        .kernels
        .into_iter()
        .map(|(kernel, (launches, seconds))| KernelTime {
            kernel,
            launches: per_step(launches as f64),
            seconds: per_step(seconds),
        })
        .collect();
    kernels.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    Ok(KernelTimes {
        seconds: kernels.iter().map(|kernel| kernel.seconds).sum(),
        timed_by_device: timed.by_device as f64 / launches as f64,
        kernels,
    })
}

//! `pipe bench`: what a training costs on this machine. It runs the program itself, in a folder of
//! its own, and reads the events that `--log json` tells: what is measured is what a training does.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use pipe_core::stop::Stop;
use pipe_models::architecture::Architectures;
#[cfg(feature = "wgpu")]
use pipe_models::architecture::{ModelConfig, ModelSettings};
#[cfg(feature = "wgpu")]
use pipe_train::device::{self, GpuAssignment, ResolvedDevice};
use pipe_train::device::{DeviceList, DeviceSpec};
use serde::Serialize;
use serde_json::{Value, json};

use super::{CliError, ExitCode, signals};
use crate::report::stdout::say;
use crate::report::table::bytes;

/// Epochs of the measured training: the first warms up, and a checkpoint follows the last.
const EPOCHS: u64 = 3;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe bench\n  pipe bench --device gpu --preset diffit_small --batch-size 64\n  pipe bench --devices 0,1 --batch-size 64\n  pipe bench --steps 5 --set optimizer.kind=adam --json\n  pipe bench --count --device gpu --batch-size 64"
)]
pub struct BenchArguments {
    /// Where to compute: auto, cpu, gpu, gpu:N
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    device: DeviceSpec,
    /// Several devices that share each batch: numbers of GPUs or devices between commas, or all
    #[arg(long, value_name = "LIST", conflicts_with = "device")]
    devices: Option<DeviceList>,
    /// Size of the model: diffit_tiny, diffit_small, diffit_cifar10, unet_tiny, unet_small,
    /// unet_cifar10
    #[arg(long, default_value = "diffit_tiny", value_name = "NAME")]
    preset: String,
    /// Side of the images in pixels
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u32).range(8..=1024))]
    image_size: u32,
    /// Images in a batch
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch_size: u32,
    /// Number format of the forward and backward pass: f32, f16, bf16, where the device can (see
    /// `pipe devices`)
    #[arg(long, default_value = "f32", value_name = "FORMAT", value_parser = ["f32", "f16", "bf16"])]
    precision: String,
    /// Steps of an epoch; two epochs are measured, after one to warm up
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    steps: u32,
    /// Another setting of the training, such as optimizer.kind=adam; can be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Count what a step asks of a GPU instead of timing it: launches, loops, bytes. A software
    /// adapter will do
    #[arg(long, conflicts_with_all = ["devices", "steps", "set", "precision"])]
    count: bool,
    /// Time the kernels of a step on a GPU, each by itself
    #[arg(long, hide = true, conflicts_with_all = ["count", "devices", "set", "precision"])]
    kernels: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What was measured.
#[derive(Serialize)]
struct Figures {
    device: String,
    preset: String,
    image_size: u32,
    batch_size: u32,
    precision: String,
    /// From the program's start to the end of the first step; in a new folder, then once more.
    first_step_seconds: [f64; 2],
    step_seconds: f64,
    images_per_second: f64,
    /// The largest that a step told, in bytes; 0 where the system does not say.
    memory: u64,
    checkpoint: Option<Saved>,
}

#[derive(Serialize)]
struct Saved {
    bytes: u64,
    /// Until it stood on the disk.
    seconds: f64,
    /// So long the training stood still.
    blocked_seconds: f64,
}

impl BenchArguments {
    /// Whether a step is counted and not timed.
    pub fn counts(&self) -> bool {
        self.count
    }
}

pub fn bench(a: BenchArguments, architectures: &Architectures) -> Result<ExitCode, CliError> {
    let Some(arch) = architectures.of_preset(&a.preset).map(|arch| arch.name()) else {
        let (name, known) = (&a.preset, architectures.presets().join(", "));
        let text = format!("invalid value '{name}' for '--preset <NAME>': expected {known}");
        return Err(CliError::usage(text));
    };
    if a.count {
        return count(&a, arch, architectures);
    }
    if a.kernels {
        return kernels(&a, arch, architectures);
    }
    let stop = Stop::default();
    signals::watch(stop.clone())?;
    let folder = tempfile::tempdir().map_err(CliError::failed)?;
    let stages = |steps: u32, epochs: u64| {
        json!({"name": "bench", "stages": {
            "data": {"kind": "dataset", "source": "shapes", "image_size": a.image_size,
                     "num_images": u64::from(steps) * u64::from(a.batch_size)},
            "base": {"kind": "train", "dataset": "data", "epochs": epochs, "batch_size": a.batch_size,
                     "device": a.device, "devices": a.devices, "precision": a.precision, "model": {"preset": a.preset, "arch": arch},
                     "checkpoint": {"save_every_n_epochs": EPOCHS}},
        }})
    };
    let training = |name: &str, pipeline: Value| -> Result<Vec<(f64, Value)>, CliError> {
        let file = folder.path().join(name);
        std::fs::write(&file, pipeline.to_string()).map_err(CliError::failed)?;
        run(folder.path(), name, &a.set)
    };
    let first_step = |events: &[(f64, Value)]| find(events, "epoch").map_or(0.0, |(at, _)| *at);
    let mut starts = [0.0; 2];
    for (start, name) in starts.iter_mut().zip(["first.yaml", "second.yaml"]) {
        *start = first_step(&training(name, stages(1, 1))?);
        if let Some(signal) = stop.requested() {
            return Ok(ExitCode::from(signal.exit_code()));
        }
    }
    let events = training("measured.yaml", stages(a.steps, EPOCHS))?;
    if let Some(signal) = stop.requested() {
        return Ok(ExitCode::from(signal.exit_code()));
    }
    let as_json = a.json;
    let figures = Figures::new(a, starts, &events)?;
    if as_json {
        say!("{}", serde_json::to_string_pretty(&figures).map_err(CliError::failed)?);
    } else {
        say!("{}", figures.text());
    }
    Ok(ExitCode::SUCCESS)
}

/// Counts a step in this process.
#[cfg(feature = "wgpu")]
fn count(
    a: &BenchArguments,
    arch: &str,
    architectures: &Architectures,
) -> Result<ExitCode, CliError> {
    use pipe_train::trainer::{OptimizerSettings, step_counts};

    use crate::report::log::gpu_calls;

    let (device, config) = prepare(a, arch, architectures)?;
    let (batch, optimizer) = (u64::from(a.batch_size), OptimizerSettings::default());
    let counts = step_counts::count(&config, batch, &optimizer, &device.device, gpu_calls);
    let counts = counts.map_err(CliError::failed)?;
    if a.json {
        say!("{}", serde_json::to_string_pretty(&counts).map_err(CliError::failed)?);
        return Ok(ExitCode::SUCCESS);
    }
    let (size, name) = (a.image_size, &device.name);
    say!("{}, {size} x {size} pixels, batch {batch}, a step on {name}", a.preset);
    say!("  launches            {}", counts.launches);
    say!(
        "  serial iterations   {}, the longest loop {}",
        counts.serial_iterations,
        counts.longest_loop
    );
    let times = counts.bytes as f64 / counts.essential_bytes as f64;
    say!("  bytes moved         {}, {times:.1} times what is needed", bytes(counts.bytes));
    say!("  uploads             {}", counts.uploads);
    say!("  submits             {}, read-backs {}", counts.submits, counts.read_backs);
    let times = counts.pool_bytes as f64 / counts.essential_pool_bytes as f64;
    say!("  memory              {}, {times:.1} times what is needed", bytes(counts.pool_bytes));
    say!(
        "  sampler's step      {} launches, for a batch of any size",
        counts.sampler_step_launches
    );
    say!("  sums, the longest in all first:");
    for sum in &counts.loops {
        say!("  {:>6}  of {} numbers each, out of {:?}", sum.launches, sum.iterations, sum.shape);
    }
    say!("  launches by kernel:");
    let mut kernels: Vec<_> = counts.kernels.iter().collect();
    kernels.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), *name));
    for (name, count) in kernels {
        say!("  {count:>6}  {name}");
    }
    Ok(ExitCode::SUCCESS)
}

/// The device, and the network that is to be looked at in this process.
#[cfg(feature = "wgpu")]
fn prepare(
    a: &BenchArguments,
    arch: &str,
    architectures: &Architectures,
) -> Result<(ResolvedDevice, ModelConfig), CliError> {
    let device = device::resolve(a.device, GpuAssignment::default()).map_err(CliError::usage)?;
    let settings = ModelSettings {
        arch: Some(arch.to_owned()),
        preset: Some(a.preset.clone()),
        ..ModelSettings::default()
    };
    let config =
        settings.config(architectures, a.image_size as usize, 0).map_err(CliError::usage)?;
    Ok((device, config))
}

/// Times the kernels of some steps in this process.
#[cfg(feature = "wgpu")]
fn kernels(
    a: &BenchArguments,
    arch: &str,
    architectures: &Architectures,
) -> Result<ExitCode, CliError> {
    use pipe_train::trainer::{OptimizerSettings, step_counts};

    let (device, config) = prepare(a, arch, architectures)?;
    let (batch, optimizer) = (u64::from(a.batch_size), OptimizerSettings::default());
    let steps = u64::from(a.steps);
    let times = step_counts::time(&config, batch, &optimizer, &device.device, steps);
    let times = times.map_err(CliError::failed)?;
    if a.json {
        say!("{}", serde_json::to_string_pretty(&times).map_err(CliError::failed)?);
        return Ok(ExitCode::SUCCESS);
    }
    let (size, name) = (a.image_size, &device.name);
    say!("{}, {size} x {size} pixels, batch {batch}, kernels of a step on {name}", a.preset);
    let by_device = 100.0 * times.timed_by_device;
    say!("  {:>9.3} ms in all; {by_device:.0}% were timed by the device", 1e3 * times.seconds);
    for kernel in &times.kernels {
        let milliseconds = 1e3 * kernel.seconds;
        say!("  {milliseconds:>9.3} ms  {:>6.0}  {}", kernel.launches, kernel.kernel);
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(not(feature = "wgpu"))]
fn count(_: &BenchArguments, _: &str, _: &Architectures) -> Result<ExitCode, CliError> {
    Err(CliError::usage("--count: this program was built without GPUs"))
}

#[cfg(not(feature = "wgpu"))]
fn kernels(_: &BenchArguments, _: &str, _: &Architectures) -> Result<ExitCode, CliError> {
    Err(CliError::usage("--kernels: this program was built without GPUs"))
}

/// Seconds of a training's step on drawn images, by the first few on the device that `auto` takes, and
/// that device's name. `None` where not one could be done.
pub(super) fn step(model: &Value, image_size: usize, batch: usize) -> Option<(f64, String)> {
    const STEPS: usize = 5;
    let folder = tempfile::tempdir().ok()?;
    let pipeline = json!({"name": "step", "stages": {
        "data": {"kind": "dataset", "source": "shapes", "image_size": image_size, "num_images": STEPS * batch},
        "base": {"kind": "train", "dataset": "data", "epochs": 1, "batch_size": batch, "model": model,
                 "max_time": "15s", "log_every_n_steps": 1, "checkpoint": {"enabled": false}},
    }});
    std::fs::write(folder.path().join("step.yaml"), pipeline.to_string()).ok()?;
    let events = run(folder.path(), "step.yaml", &[]).ok()?;
    let (opened, run) = find(&events, "run_opened")?;
    let steps = events.iter().filter(|(_, event)| event["event"] == "step").map(|(at, _)| *at);
    let steps: Vec<f64> = steps.collect();
    let (first, last) = (steps.first()?, steps.last()?);
    // The first one warms up, unless there is no other.
    let seconds = match steps.len() {
        1 => last - opened,
        count => (last - first) / (count - 1) as f64,
    };
    Some((seconds, run["device"].as_str()?.to_owned()))
}

/// Runs the pipeline `name` in `folder`, and says what happened when: seconds since the start.
pub(super) fn run(
    folder: &Path,
    name: &str,
    set: &[String],
) -> Result<Vec<(f64, Value)>, CliError> {
    let start = Instant::now();
    let mut command = Command::new(std::env::current_exe().map_err(CliError::failed)?);
    command.args(["run", name, "--force", "--log", "json"]).current_dir(folder);
    for setting in set {
        command.arg("--set").arg(format!("base.{setting}"));
    }
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PIPE_"))
    {
        command.env_remove(name); // settings of the user's own trainings
    }
    let mut child =
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(CliError::failed)?;
    let mut events = Vec::new();
    for line in child.stderr.take().map(BufReader::new).into_iter().flat_map(|told| told.lines()) {
        if let Ok(event) = serde_json::from_str::<Value>(&line.map_err(CliError::failed)?) {
            events.push((start.elapsed().as_secs_f64(), event));
        }
    }
    let status = child.wait().map_err(CliError::failed)?;
    match status.code() {
        Some(0 | 75 | 130) => Ok(events),
        _ => {
            let told = find(&events, "error").and_then(|(_, event)| event["text"].as_str());
            let message =
                told.map_or_else(|| format!("the training ended with {status}"), str::to_owned);
            Err(match status.code() {
                Some(2) => CliError::usage(message),
                _ => CliError::failed(message),
            })
        }
    }
}

/// The first event of a kind.
fn find<'a>(events: &'a [(f64, Value)], kind: &str) -> Option<&'a (f64, Value)> {
    events.iter().find(|(_, event)| event["event"] == kind)
}

impl Figures {
    fn new(
        a: BenchArguments,
        first_step_seconds: [f64; 2],
        events: &[(f64, Value)],
    ) -> Result<Self, CliError> {
        let number = |event: &Value, key: &str| event[key].as_f64().unwrap_or_default();
        let of =
            |kind: &'static str| events.iter().map(|(_, e)| e).filter(move |e| e["event"] == kind);
        let measured: Vec<f64> = of("epoch").skip(1).map(|e| number(e, "seconds")).collect();
        let device = find(events, "run_opened").and_then(|(_, e)| e["device"].as_str());
        let (Some(device), false) = (device, measured.is_empty()) else {
            return Err(CliError::failed("the training told nothing that could be measured"));
        };
        let step_seconds =
            measured.iter().sum::<f64>() / (measured.len() as f64 * f64::from(a.steps));
        Ok(Self {
            device: device.to_owned(),
            preset: a.preset,
            image_size: a.image_size,
            batch_size: a.batch_size,
            precision: a.precision,
            first_step_seconds,
            step_seconds,
            images_per_second: f64::from(a.batch_size) / step_seconds,
            memory: of("step").filter_map(|e| e["memory"].as_u64()).max().unwrap_or_default(),
            checkpoint: of("saved").next_back().map(|e| Saved {
                bytes: e["bytes"].as_u64().unwrap_or_default(),
                seconds: number(e, "seconds"),
                blocked_seconds: number(e, "blocked"),
            }),
        })
    }

    fn text(&self) -> String {
        let [first, second] = self.first_step_seconds;
        let mut lines = vec![
            format!(
                "{}, {size} x {size} pixels, batch {}, {}, on {}",
                self.preset,
                self.batch_size,
                self.precision,
                self.device,
                size = self.image_size
            ),
            format!(
                "  step              {:.4} s ({:.1} images/s)",
                self.step_seconds, self.images_per_second
            ),
            format!("  start to step 1   {first:.2} s, then {second:.2} s"),
        ];
        if self.memory > 0 {
            lines.push(format!("  memory            {} of the process", bytes(self.memory)));
        }
        if let Some(saved) = &self.checkpoint {
            lines.push(format!(
                "  checkpoint        {} in {:.2} s; the training stood still for {:.3} s",
                bytes(saved.bytes),
                saved.seconds,
                saved.blocked_seconds
            ));
        }
        lines.join("\n")
    }
}

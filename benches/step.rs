//! Time and memory of one training step: forward, EDM's loss, backward, AdamW, moving average of
//! the weights.
//!
//! `cargo bench --workspace --bench step -- --preset diffit_tiny --batch 16 --steps 10` prints the
//! same JSON as the reference's `bench`, and the peak of resident memory besides.
//! `benches/peers.sh` runs both in turn. `--precision bf16` rounds the factors of matrix products.
//! `--lora R` trains LoRA factors of that rank (`--targets
//! qkv,proj`) and freezes the rest.

use std::time::Instant;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Distribution, Tensor};
use pipe_models::architecture::{Architectures, ModelSettings};
use pipe_models::diffusion::Objective;
use pipe_models::lora::{LoraConfig, LoraPlan};
use pipe_models::nn::{Pass, param_paths};
use pipe_train::trainer::{Optimizer, OptimizerSettings, Precision, ema};

#[path = "../src/allocator.rs"]
mod allocator;

fn main() {
    allocator::keep_memory();
    pipe_models::kernels::in_own_pool(measure);
}

fn measure() {
    let args: Vec<String> = std::env::args().collect();
    let value =
        |flag: &str| args.iter().position(|a| a == flag).and_then(|i| args.get(i + 1)).cloned();
    let number = |flag: &str, default| value(flag).and_then(|v| v.parse().ok()).unwrap_or(default);
    let name = value("--preset").unwrap_or_else(|| "diffit_tiny".into());
    let known = Architectures::builtin();
    let arch = known.of_preset(&name).expect("--preset names a preset").name().to_owned();
    let (batch, steps, size) =
        (number("--batch", 16), number("--steps", 10), number("--image-size", 32));

    let precision = match value("--precision").as_deref() {
        None | Some("f32") => Precision::F32,
        Some("bf16") => Precision::Bf16,
        Some(other) => panic!("--precision is f32 or bf16, not {other}"),
    };

    let device = Device::flex().autodiff();
    device.seed(0);
    let settings =
        ModelSettings { arch: Some(arch), preset: Some(name.clone()), ..ModelSettings::default() };
    let config = settings.config(&known, size, 0).expect("a preset of its architecture");
    let mut net = config.init(0, &device).expect("a preset is valid");
    if let Some(r) = value("--lora").and_then(|r| r.parse().ok()) {
        let targets = value("--targets").unwrap_or_else(|| "qkv,proj".into());
        let target_modules = targets.split(',').map(str::to_owned).collect();
        let config = LoraConfig { r, target_modules, ..LoraConfig::default() };
        net = LoraPlan::new(&config, &net).expect("the targets are there").inject(net, 0).model;
    }
    let mut average = net.valid();
    let mut optimizer = Optimizer::new(&OptimizerSettings::default(), &net);
    let (mut times, mut busy) = (Vec::new(), Vec::new());
    for _ in 0..steps + 2 {
        let (start, used) = (Instant::now(), processor_seconds());
        let normal = |shape| Tensor::<4>::random(shape, Distribution::Normal(0.0, 1.0), &device);
        let image = normal([batch, 3, size, size]);
        let sigma = (Tensor::<1>::random([batch], Distribution::Normal(0.0, 1.0), &device) * 1.2
            - 1.2)
            .exp();
        let loss = Objective::default().loss(
            &net,
            image,
            sigma,
            normal([batch, 3, size, size]),
            None,
            &Pass::inference().with_matmul_precision(precision.matmul()),
        );
        let forward = start.elapsed();
        let grads = GradientsParams::from_grads(loss.backward(), &net);
        let backward = start.elapsed();
        net = optimizer.step(1e-3, net, grads);
        let stepped = start.elapsed();
        average = ema::update(average, &net, 0.999);
        times.push(start.elapsed().as_secs_f64());
        busy.push(processor_seconds() - used);
        if args.iter().any(|a| a == "--phases") {
            let phases =
                [forward, backward - forward, stepped - backward, start.elapsed() - stepped];
            eprintln!("forward, backward, AdamW, average: {phases:.1?}");
        }
    }
    let median = |mut seconds: Vec<f64>| {
        let mut measured = seconds.split_off(2);
        measured.sort_by(f64::total_cmp);
        measured[measured.len() / 2]
    };
    let (median, busy) = (median(times), median(busy));
    let params: usize =
        param_paths(&average).iter().map(|(_, _, shape)| shape.iter().product::<usize>()).sum();
    let line = serde_json::json!({
        "preset": name, "batch": batch, "params": params, "threads": rayon::current_num_threads(),
        "median_step_s": median, "median_cpu_s": busy, "images_per_s": batch as f64 / median, "peak_mib": peak_mib(),
    });
    println!("{line}");
}

/// Processor time of all threads that run; 0 where the system does not say.
fn processor_seconds() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanoseconds = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    nanoseconds.sum::<u64>() as f64 * 1e-9
}

/// Peak of resident memory, as the kernel counted it; 0 where it does not say.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kib| kib / 1024)
}

//! Whether a GPU computes a training step right: loss and gradients of a tiny network beside the
//! CPU's.
//!
//! Drivers and kernels fail in ways that nothing reports: gradients that are all NaN, products that
//! are wrong at some sizes, a kernel that ends in a panic because the adapter has less memory for
//! it. A training would run for hours on such numbers. So the first training on an adapter begins
//! with this; its result is kept: see [`SelfTestResult`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use burn::optim::GradientsAccumulator;
use burn::tensor::Device;
use pipe_engine::kind::{Failure, StageError, panic_message};
use pipe_fs::ProjectRoot;

use super::backward::Backward;
use super::data_parallel::read_gradients;
use super::noised_batch::{BatchKey, LabelDropout, NoisedBatch};
use super::precision::Precision;
use crate::architecture::{ModelConfig, Network};
use crate::data::Batch;
use crate::device::{Adapter, ResolvedDevice, SelfTestResult};
use crate::diffusion::Objective;
use crate::nn::{Dropout, param_paths};
use pipe_models::diffit::DiffitConfig;

/// Loss and gradients of one step.
#[derive(Clone)]
struct StepResult {
    loss: f32,
    /// By parameter.
    gradients: Vec<(String, Vec<f32>)>,
}

/// By how much of its size a gradient may be off.
///
/// In f32, two devices round each of a few thousand operations differently by 6e-8, which adds up
/// to some 1e-5. Vulkan's and WGSL's sine, of which the time token is made, may be off by 2^-11 =
/// 5e-4, everything else by 1e-6. In f16 each of some fifty layers rounds by 5e-4, and what cancels
/// leaves more than that: up to a tenth. What is computed wrongly, a sum that lacks terms or
/// another function's gradient in a layer, is off by the size of what is missing.
fn tolerance(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 5e-3,
        Precision::F16 | Precision::Bf16 => 0.1,
    }
}

/// Makes sure that a GPU was tested in this project, and that it computes right. `tell` gets a line
/// before a test begins.
///
/// # Errors
/// [`Failure::Setting`] where it computes wrongly, with what to do instead.
/// [`Failure::OutOfMemory`] and [`Failure::DeviceLost`] where it could not be tested: those say
/// nothing about the next time, and are not kept.
pub fn require(
    project: &ProjectRoot,
    device: &ResolvedDevice,
    precision: Precision,
    tell: impl FnOnce(String),
) -> Result<(), StageError> {
    let Some(adapter) = &device.adapter else { return Ok(()) };
    let result = match SelfTestResult::cached(project, adapter, precision.name()) {
        Some(result) => result,
        None => {
            tell(format!("first training on {}: comparing it with the CPU", device.name));
            test(project, device, precision)?
        }
    };
    match result {
        SelfTestResult::Passed => Ok(()),
        SelfTestResult::Failed { reason } => {
            Err(StageError::new(Failure::Setting, refusal(adapter, precision, &reason)))
        }
    }
}

/// Tests a GPU and keeps the result, whatever was known of it. Takes about a second, on a software
/// adapter ten.
///
/// # Errors
/// [`Failure::OutOfMemory`] and [`Failure::DeviceLost`], as for [`require`].
pub fn test(
    project: &ProjectRoot,
    device: &ResolvedDevice,
    precision: Precision,
) -> Result<SelfTestResult, StageError> {
    let Some(adapter) = &device.adapter else { return Ok(SelfTestResult::Passed) };
    let result = compare_with_cpu(precision, || step_on(&device.device, precision))?;
    result.save(project, adapter, precision.name());
    Ok(result)
}

/// Steps of the tiny network on a device in f32: whether they are the CPU's, and what one takes.
/// Nothing is kept.
///
/// # Errors
/// As for [`require`].
pub fn try_steps(
    device: &Device,
    at_most: Duration,
) -> Result<(SelfTestResult, Duration), StageError> {
    let result = compare_with_cpu(Precision::F32, || step_on(device, Precision::F32))?;
    let (began, mut times) = (Instant::now(), Vec::new());
    while result == SelfTestResult::Passed && (times.is_empty() || began.elapsed() < at_most) {
        let step = Instant::now();
        step_on(device, Precision::F32)?;
        times.push(step.elapsed());
    }
    times.sort();
    Ok((result, times.get(times.len() / 2).copied().unwrap_or_default()))
}

fn refusal(adapter: &Adapter, precision: Precision, reason: &str) -> String {
    let other = if precision == Precision::F32 { "" } else { "`precision: f32`, or " };
    let spec = adapter.spec();
    format!(
        "{spec} {} cannot be trained on: in its self-test {reason}; use {other}`device: cpu`, or another driver ({} is \
         the one in use), and test again with: pipe devices --test {spec}",
        adapter.name, adapter.driver
    )
}

/// Compares what a device computes with the CPU.
fn compare_with_cpu(
    precision: Precision,
    computed: impl FnOnce() -> Result<StepResult, StageError>,
) -> Result<SelfTestResult, StageError> {
    let expected = step_on(&Device::flex(), Precision::F32)?;
    let failed = |reason: String| Ok(SelfTestResult::Failed { reason });
    match catch_unwind(AssertUnwindSafe(computed)) {
        Ok(Ok(found)) => match difference(&expected, &found, tolerance(precision)) {
            None => Ok(SelfTestResult::Passed),
            Some(reason) => failed(reason),
        },
        Ok(Err(error)) if matches!(error.failure, Failure::OutOfMemory | Failure::DeviceLost) => {
            Err(error)
        }
        Ok(Err(error)) => failed(format!("it failed ({})", first_line(&error.message))),
        Err(panic) => {
            failed(format!("it broke off ({})", first_line(panic_message(panic.as_ref()))))
        }
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// What differs by more than `tolerance` of its size, in words.
fn difference(expected: &StepResult, found: &StepResult, tolerance: f64) -> Option<String> {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let of = |values: &[f32]| norm(&mut values.iter().map(|x| f64::from(*x)));
    let all = norm(&mut expected.gradients.iter().map(|(_, values)| of(values)));
    let (loss, expected_loss) = (f64::from(found.loss), f64::from(expected.loss));
    let beyond = |off: f64, limit: f64| off.is_nan() || off > limit;
    if beyond((loss - expected_loss).abs(), tolerance * expected_loss.abs()) {
        return Some(format!("the loss was {loss} and not {expected_loss}"));
    }
    for ((name, expected), (other, found)) in expected.gradients.iter().zip(&found.gradients) {
        let off = norm(&mut expected.iter().zip(found).map(|(a, b)| f64::from(a - b)));
        // A gradient that is small beside the others is what cancelled out, with errors of the size
        // of those.
        let size = of(expected).max(SMALL * all);
        if beyond(off, tolerance * size) || name != other || expected.len() != found.len() {
            return Some(format!(
                "the gradient of {name} was off by {:.2e} of its size",
                off / size
            ));
        }
    }
    (expected.gradients.len() != found.gradients.len()).then(|| "gradients were missing".to_owned())
}

/// Share of the whole gradient below which a parameter's own is not looked at more closely.
const SMALL: f64 = 1e-2;

/// One step of a network that has all building blocks, two resolutions and classes.
fn step_on(device: &Device, precision: Precision) -> Result<StepResult, StageError> {
    let config = DiffitConfig {
        dim: 16,
        mults: vec![1, 2],
        depths: vec![1, 1],
        heads: 2,
        window: 4,
        image_size: 8,
        channels: 3,
        num_classes: 2,
        augment_labels: 0,
    };
    let config = ModelConfig::from(config);
    let device = device.clone().autodiff();
    let network =
        config.init(7, &device).map_err(|e| StageError::new(Failure::Bug, e.to_string()))?;
    step_of(&network, &config, &device, precision)
}

/// One step of a network for images of 8 pixels in two classes, on `device` with autodiff.
fn step_of(
    network: &Network,
    config: &ModelConfig,
    device: &Device,
    precision: Precision,
) -> Result<StepResult, StageError> {
    let weights = precision.weights(network);
    const IMAGES: usize = 2;
    let pixels = (0..IMAGES * 3 * 64).map(|i| (0.37 * i as f32).sin()).collect();
    let batch =
        Batch { images: pixels, labels: vec![0, 1], indices: vec![0, 1], augment: Vec::new() };
    let labels = LabelDropout { classes: 2, dropout: 0.0 };
    let noised = NoisedBatch::for_training(
        batch,
        BatchKey { seed: 1, epoch: 1, batch: 0 },
        &Objective::default(),
        labels,
    );
    let mut gradients = GradientsAccumulator::new();
    let loss = Backward::new(config, precision, Dropout::default(), 1).add(
        &mut gradients,
        &weights,
        noised,
        1,
        device,
    );
    let losses = loss.into_iter().enumerate().collect();
    let computed = read_gradients(&weights, gradients.grads(), losses)?;
    let names: std::collections::HashMap<_, _> =
        param_paths(&weights).into_iter().map(|(id, name, _)| (id, name)).collect();
    let gradients = computed.gradients.into_iter().map(|(id, data)| {
        (names.get(&id).cloned().unwrap_or_default(), data.iter::<f32>().collect::<Vec<f32>>())
    });
    let loss = computed.losses.first().map_or(f32::NAN, |(_, loss)| *loss);
    Ok(StepResult { loss, gradients: gradients.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::software_vulkan;
    use crate::nn::initialize;
    use pipe_models::unet::UnetConfig;

    fn compared(
        computed: impl FnOnce(StepResult) -> Result<StepResult, StageError>,
    ) -> Result<SelfTestResult, StageError> {
        compare_with_cpu(Precision::F32, || computed(step_on(&Device::flex(), Precision::F32)?))
    }

    #[test]
    fn the_cpu_passes_in_every_precision() {
        assert_eq!(compared(Ok).unwrap(), SelfTestResult::Passed);
        for precision in [Precision::F16, Precision::Bf16] {
            let result =
                compare_with_cpu(precision, || step_on(&Device::flex(), precision)).unwrap();
            assert_eq!(result, SelfTestResult::Passed, "{precision:?}");
        }
    }

    #[test]
    fn steps_are_tried_and_timed() {
        let (result, step) = try_steps(&Device::flex(), Duration::from_millis(1)).unwrap();
        assert_eq!(result, SelfTestResult::Passed);
        assert!(step > Duration::ZERO);
    }

    #[test]
    fn what_a_broken_driver_computes_is_refused() {
        let right = step_on(&Device::flex(), Precision::F32).unwrap();
        let refused = |change: &dyn Fn(&mut StepResult), said: &str| {
            let mut wrong = right.clone();
            change(&mut wrong);
            let reason = difference(&right, &wrong, tolerance(Precision::F32)).unwrap_or_default();
            assert!(reason.contains(said), "{reason:?} and not {said}");
        };
        refused(&|c| c.loss = f32::NAN, "the loss was NaN");
        refused(&|c| c.loss *= 1.01, "the loss was");
        refused(&|c| c.gradients.clear(), "gradients were missing");
        for (layer, (name, _)) in right.gradients.iter().enumerate() {
            let said = format!("the gradient of {name} was off by");
            refused(&|c| c.gradients[layer].1[0] = f32::NAN, &said);
            refused(&|c| c.gradients[layer].1.fill(f32::NAN), &said);
            refused(&|c| c.gradients[layer].1.iter_mut().for_each(|x| *x = *x * 1.1 + 0.01), &said);
        }
        assert_eq!(difference(&right, &right, 0.0), None);
    }

    #[test]
    fn a_panic_inside_is_told_and_a_lack_of_memory_says_nothing_about_the_next_time() {
        let result = compared(|_| panic!("shared memory 40960 > 32768"));
        let reason = "it broke off (shared memory 40960 > 32768)".to_owned();
        assert_eq!(result.unwrap(), SelfTestResult::Failed { reason });
        let error =
            compared(|_| Err(StageError::new(Failure::OutOfMemory, "no memory"))).unwrap_err();
        assert_eq!(error.failure, Failure::OutOfMemory);
        let lost = compared(|_| Err(StageError::new(Failure::DeviceLost, "gone"))).unwrap_err();
        assert_eq!(lost.failure, Failure::DeviceLost);
        let other =
            compared(|_| Err(StageError::new(Failure::Bug, "failed to compute\nmore"))).unwrap();
        assert_eq!(
            other,
            SelfTestResult::Failed { reason: "it failed (failed to compute)".into() }
        );
    }

    #[test]
    fn software_vulkan_passes() {
        let name = "trainer::self_test::tests::software_vulkan_passes";
        let Some(device) = software_vulkan(name) else { return };
        let began = std::time::Instant::now();
        let expected = step_on(&Device::flex(), Precision::F32).unwrap();
        let found = step_on(&device, Precision::F32).unwrap();
        println!("the step took {:?}", began.elapsed());
        assert_eq!(difference(&expected, &found, 5e-4), None, "a tenth of what is allowed");

        let config = ModelConfig::from(UnetConfig {
            dim: 32,
            mults: vec![1, 2],
            depth: 1,
            attention: vec![4],
            image_size: 8,
            channels: 3,
            num_classes: 2,
            augment_labels: 0,
        });
        let step = |device: &Device| {
            let device = device.clone().autodiff();
            // Were the last layers at zero, almost every gradient would be zero.
            let net = initialize(config.skeleton(&device).unwrap(), 7, |_| false);
            step_of(&net, &config, &device, Precision::F32).unwrap()
        };
        assert_eq!(difference(&step(&Device::flex()), &step(&device), 5e-4), None, "the U-Net");
    }
}

//! Steps on long arrays beside steps on one parameter after the other.

use burn::module::{ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};
use rand::RngExt;

use super::*;
use crate::architecture::Architectures;
use crate::device::software_vulkan;
use crate::rng::{Purpose, stream};
use crate::trainer::OptimizerKind;

/// A network of a few dozen parameters, some with a number of elements that no view can begin at.
/// With `frozen`, its biases are.
fn network(device: &Device, frozen: bool) -> Network {
    let text = r#"{"dim": 16, "mults": [1, 2], "depths": [1, 1], "heads": 2, "window": 4, "image_size": 8,
                   "channels": 3, "num_classes": 2}"#;
    let config = Architectures::builtin().read(serde_json::from_str(text).unwrap()).unwrap();
    let network = config.init(7, &device.clone().autodiff()).unwrap();
    if frozen { network.map(&mut Freeze) } else { network }
}

struct Freeze;

impl ModuleMapper for Freeze {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if D == 1 { param.set_require_grad(false) } else { param }
    }
}

/// A random gradient for each trained parameter but the one of that number.
struct Draw<R> {
    rng: R,
    number: usize,
    without: Option<usize>,
    found: GradientsParams,
}

impl<R: rand::Rng> ModuleVisitor for Draw<R> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if !param.is_require_grad() {
            return;
        }
        self.number += 1;
        let shape = param.lazy_shape();
        let values: Vec<f32> =
            (0..shape.num_elements()).map(|_| self.rng.random_range(-1.0..1.0)).collect();
        if self.without != Some(self.number - 1) {
            let device = param.lazy_device().inner();
            self.found.register::<D>(
                param.id,
                Tensor::from_data(TensorData::new(values, shape), &device),
            );
        }
    }
}

/// A training of a few steps, each with a gradient for all parameters, and now and then for all but
/// one: what a checkpoint would hold, and the weights to sample with.
fn trained(device: &Device, case: u64, is_flat: bool) -> Vec<HostTensor> {
    let mut rng = stream(case, Purpose::Init, 0, 0);
    let kind = if case % 3 == 2 { OptimizerKind::Adam } else { OptimizerKind::Adamw };
    // Adam adds its decay to the gradient: where the two cancel, rounding decides the step.
    let weight_decay = if kind == OptimizerKind::Adamw { 0.1 } else { 0.0 };
    let optimizer = OptimizerSettings { kind, weight_decay, ..OptimizerSettings::default() };
    let model = network(device, case % 2 == 1);
    let mut state = TrainState::new(model, Scope::All, &optimizer, case % 4 != 3);
    state = state.with_lengths(&[0.05, 0.1][..(case % 3) as usize]);
    state.is_flat = is_flat;
    for step in 0..6u64 {
        let without = (case > 0 && step == case % 6).then(|| rng.random_range(0..8));
        let rng = stream(case, Purpose::Init, 1, step);
        let mut draw = Draw { rng, number: 0, without, found: GradientsParams::new() };
        state.model.visit(&mut draw);
        let settings = StepSettings {
            learning_rate: 0.01 / (1.0 + step as f64),
            clip: (step != 3).then_some(0.5),
            ema_decay: ema::decay_at(0.999, step),
            done: step,
        };
        state.step(draw.found, settings);
        assert_eq!(state.flat.is_some(), is_flat && without.is_none(), "step {step}");
        for precision in [Precision::F32, Precision::F16].into_iter().filter(|p| p.runs_on(device))
        {
            let cast = |model| read_parameters(&model, &Scope::All, "").unwrap();
            let whole = cast(precision.weights(&state.model));
            assert!(cast(state.weights_in(precision)) == whole, "step {step}, {precision:?}");
        }
    }
    let mut all = state.tensors().unwrap();
    all.extend(read_parameters(&state.weights(), &Scope::All, "sampled.").unwrap());
    all
}

#[track_caller]
fn assert_same(ours: &[HostTensor], theirs: &[HostTensor]) {
    let layout = |all: &[HostTensor]| -> Vec<_> {
        all.iter().map(|t| (t.name.clone(), t.dtype, t.shape.clone())).collect()
    };
    assert_eq!(layout(ours), layout(theirs));
    for (a, b) in ours.iter().zip(theirs) {
        let (Some(x), Some(y)) = (a.to_f32(), b.to_f32()) else {
            assert_eq!(a.bytes, b.bytes, "{}", a.name);
            continue;
        };
        let scale = y.iter().fold(1e-3f32, |most, y| most.max(y.abs()));
        let worst = x.iter().zip(&y).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-5 * scale, "{}: off by {worst} of {scale}", a.name);
    }
}

#[test]
fn long_arrays_step_as_one_parameter_after_the_other_does() {
    for case in 0..12 {
        let device = Device::flex();
        assert_same(&trained(&device, case, true), &trained(&device, case, false));
    }
}

#[test]
fn long_arrays_step_on_a_gpu_as_single_ones_on_the_cpu() {
    let test = "trainer::train_state::tests::long_arrays_step_on_a_gpu_as_single_ones_on_the_cpu";
    let Some(device) = software_vulkan(test) else { return };
    for case in 0..2 {
        let flat = trained(&device, case, true);
        assert_same(&flat, &trained(&Device::flex(), case, false));
        assert_same(&flat, &trained(&device, case, false));
    }
}

#[test]
fn the_cpu_keeps_its_parameters_apart() {
    let model = network(&Device::flex(), false);
    let settings = OptimizerSettings::default();
    assert!(!TrainState::new(model, Scope::All, &settings, true).is_flat);
}

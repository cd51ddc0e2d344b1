//! The networks, their denoiser and their gradients against an independent PyTorch implementation.
//!
//! `golden/make_golden.py` wrote the reference's answers; weights and inputs are formulas that both
//! sides compute.

use std::collections::BTreeMap;
use std::convert::Infallible;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};
use pipe_models::architecture::Denoiser;
use pipe_models::diffusion::Objective;
use pipe_models::nn::{Pass, Scope, load_state_dict, param_paths};
use pipe_models::unet;
use pipe_models::{diffit, probe};
use pipe_runs::tensor::HostTensor;

#[derive(serde::Deserialize)]
struct Golden {
    probes: BTreeMap<String, probe::Probe>,
    parameters: BTreeMap<String, usize>,
    training: Training,
}

#[derive(serde::Deserialize)]
struct Training {
    loss: f64,
    grads: BTreeMap<String, Grad>,
}

#[derive(serde::Deserialize)]
struct Grad {
    norm: f64,
    first: f64,
}

fn of_diffit() -> Golden {
    serde_json::from_str(include_str!("golden/model.json")).expect("the committed file is valid")
}

fn of_unet() -> Golden {
    serde_json::from_str(include_str!("golden/unet.json")).expect("the committed file is valid")
}

/// Numbers in [-1, 1) that look random: an integer hash of (index, stream) modulo 2³².
fn pattern(count: usize, stream: u64) -> impl Iterator<Item = f64> {
    (0..count as u64).map(move |i| {
        let mut h = (i * 747_796_405 + stream * 2_891_336_453 + 1) & 0xFFFF_FFFF;
        h ^= h >> 16;
        h = (h * 0x45D_9F3B) & 0xFFFF_FFFF;
        h ^= h >> 16;
        h as f64 / 2f64.powi(31) - 1.0
    })
}

fn filled<M: Module>(net: M) -> M {
    let paths = param_paths(&net);
    let names: Vec<String> = paths.iter().map(|(_, name, _)| name.clone()).collect();
    let value = |name: &str| {
        let stream = names.iter().position(|n| n == name).expect("only parameters are asked for");
        let shape = paths[stream].2.clone();
        let scale = 1.0 / (shape.iter().skip(1).product::<usize>() as f64).sqrt();
        let one = if name.ends_with("weight") { 1.0 } else { 0.0 };
        let values = pattern(shape.iter().product(), stream as u64).map(|u| match shape.len() {
            1 => (0.1 * u + one) as f32,
            _ => (u * scale) as f32,
        });
        Ok::<_, Infallible>(Some(HostTensor::f32(name, shape.clone(), &values.collect::<Vec<_>>())))
    };
    load_state_dict(net, &Scope::All, "", names.iter().map(String::as_str), value)
        .expect("every parameter is given")
}

fn pattern_tensor<const D: usize>(shape: [usize; D], stream: u64, device: &Device) -> Tensor<D> {
    let values: Vec<f32> = pattern(shape.iter().product(), stream).map(|v| v as f32).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

#[track_caller]
fn assert_close(what: &str, found: f64, expected: f64, relative: f64, absolute: f64) {
    let error = (found - expected).abs();
    assert!(error <= relative * expected.abs() + absolute, "{what}: {found} instead of {expected}");
}

/// `net` is the preset's network for 32 pixels, without classes.
fn assert_preset(name: &str, net: impl Denoiser, golden: &Golden) {
    let count: usize =
        param_paths(&net).iter().map(|(_, _, shape)| shape.iter().product::<usize>()).sum();
    assert_eq!(count, golden.parameters[name]);
    let found = probe::probe(&filled(net), [3, 32], &Device::flex());
    let expected = &golden.probes[name];
    assert_close("mean", found.mean, expected.mean, 1e-4, 0.0);
    assert_close("std", found.std, expected.std, 1e-4, 0.0);
    assert_eq!(found.first.len(), expected.first.len());
    for (found, expected) in found.first.iter().zip(&expected.first) {
        assert_close("first", *found, *expected, 1e-4, 0.0);
    }
}

fn assert_diffit(preset: diffit::Preset) {
    let net = preset.config(32, 0).skeleton(&Device::flex()).expect("a preset is valid");
    assert_preset(preset.name(), net, &of_diffit());
}

fn assert_unet(preset: unet::Preset) {
    let net = preset.config(32, 0).skeleton(&Device::flex()).expect("a preset is valid");
    assert_preset(preset.name(), net, &of_unet());
}

#[test]
fn tiny_computes_what_the_reference_computes() {
    assert_diffit(diffit::Preset::Tiny);
}

#[test]
fn small_computes_what_the_reference_computes() {
    assert_diffit(diffit::Preset::Small);
}

#[test]
fn cifar10_computes_what_the_reference_computes() {
    assert_diffit(diffit::Preset::Cifar10);
}

#[test]
fn unet_tiny_computes_what_the_reference_computes() {
    assert_unet(unet::Preset::Tiny);
}

#[test]
fn unet_small_computes_what_the_reference_computes() {
    assert_unet(unet::Preset::Small);
}

#[test]
fn unet_cifar10_computes_what_the_reference_computes() {
    assert_unet(unet::Preset::Cifar10);
}

/// `net` is the tiny preset's for images of `size` pixels in ten classes.
fn assert_training(net: impl Denoiser, size: usize, expected: Training, device: &Device) {
    let net = filled(net);
    let image = pattern_tensor([4, 3, size, size], 1000, device);
    let noise = pattern_tensor([4, 3, size, size], 1001, device);
    let sigma = Tensor::<1>::from_floats([0.05, 0.3, 1.0, 4.0], device);
    let label = Tensor::<1, Int>::from_ints([0, 3, 10, 9], device);
    let loss =
        Objective::default().loss(&net, image, sigma, noise, Some(label), &Pass::inference());
    assert_close("loss", f64::from(loss.clone().into_scalar::<f32>()), expected.loss, 1e-5, 0.0);

    let found = gradients(&net, loss);
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.grads.keys().collect::<Vec<_>>());
    for (name, expected) in &expected.grads {
        let found = &found[name];
        let norm = found.iter().map(|v| v * v).sum::<f64>().sqrt();
        assert_close(name, norm, expected.norm, 1e-3, 1e-7);
        // One element is a sum that may cancel: its error counts against the whole gradient.
        assert_close(name, found[0], expected.first, 1e-3, 2e-3 * expected.norm);
    }
}

#[test]
fn loss_and_every_gradient_are_the_reference_s() {
    let device = Device::flex().autodiff();
    let net = diffit::Preset::Tiny.config(32, 10).skeleton(&device).expect("a preset is valid");
    assert_training(net, 32, of_diffit().training, &device);
}

#[test]
fn the_unet_s_loss_and_every_gradient_are_the_reference_s() {
    let device = Device::flex().autodiff();
    let net = unet::Preset::Tiny.config(16, 10).skeleton(&device).expect("a preset is valid");
    assert_training(net, 16, of_unet().training, &device);
}

/// Every parameter's gradient by name.
fn gradients(net: &impl Module, loss: Tensor<1>) -> BTreeMap<String, Vec<f64>> {
    struct Visit<'a> {
        names: BTreeMap<burn::module::ParamId, String>,
        grads: &'a burn::tensor::Gradients,
        found: BTreeMap<String, Vec<f64>>,
    }
    impl ModuleVisitor for Visit<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let grad = param.val().grad(self.grads).expect("every parameter takes part");
            self.found
                .insert(self.names[&param.id].clone(), grad.into_data().iter::<f64>().collect());
        }
    }
    let names = param_paths(net).into_iter().map(|(id, name, _)| (id, name)).collect();
    let grads = loss.backward();
    let mut visit = Visit { names, grads: &grads, found: BTreeMap::new() };
    net.visit(&mut visit);
    visit.found
}

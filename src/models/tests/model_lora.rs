//! LoRA beside the 1x1 convolutions of the U-Net.

use std::convert::Infallible;

use burn::module::Module;
use burn::tensor::Device;
use pipe_models::architecture::{Architecture, ModelConfig};
use pipe_models::lora::{AdaptedModel, LoraConfig, LoraPlan};
use pipe_models::nn::{Scope, load_state_dict, param_paths};
use pipe_models::probe::probe;
use pipe_models::unet::UnetConfig;
use pipe_runs::tensor::HostTensor;

#[test]
fn factors_have_peft_s_shapes_and_merge_into_the_weights() {
    let config = ModelConfig::from(UnetConfig::smallest());
    let net = config.init(3, &Device::flex()).expect("valid");
    let targets = ["qkv", "skip", "affine"].map(str::to_owned).to_vec();
    let lora = LoraConfig { r: 2, target_modules: targets, ..LoraConfig::default() };
    let plan = LoraPlan::new(&lora, &net).expect("the targets are there");
    let AdaptedModel { model, scope } = plan.inject(net.clone(), 5);

    let shapes = param_paths(&model);
    let shape = |end: &str| {
        let found = shapes.iter().find(|(_, name, _)| name == end);
        found.map(|(_, _, shape)| shape.clone()).unwrap_or_default()
    };
    assert_eq!(shape("middle.attention.qkv.lora_A.weight"), [2, 32, 1, 1]);
    assert_eq!(shape("middle.attention.qkv.lora_B.weight"), [96, 2, 1, 1]);
    assert_eq!(shape("up.0.0.skip.lora_A.weight"), [2, 64, 1, 1]);
    assert_eq!(shape("middle.affine.lora_A.weight"), [2, 128]);

    // Factors that change something, and last layers that let it through.
    let wave = |shape: &[usize]| -> Vec<f32> {
        (0..shape.iter().product()).map(|i: usize| 0.1 * (0.37 * i as f32).sin()).collect()
    };
    let filled = |net, scope: &Scope| {
        let lookup = |name: &str| {
            let (_, _, shape) = shapes.iter().find(|(_, n, _)| n == name).expect("asked by name");
            Ok::<_, Infallible>(Some(HostTensor::f32(name, shape.clone(), &wave(shape))))
        };
        load_state_dict(net, scope, "", [], lookup).expect("all are given")
    };
    let outputs = |net: &_| probe(net, [3, 8], &Device::flex()).first;
    let base = filled(net, &Scope::All);
    let model = filled(plan.inject(base.clone(), 5).model, &scope);
    let (adapted, merged) = (outputs(&model), outputs(&model.materialize()));
    for (adapted, merged) in adapted.iter().zip(&merged) {
        assert!((adapted - merged).abs() <= 1e-4 * adapted.abs(), "{adapted} {merged}");
    }
    assert_ne!(adapted, outputs(&base));
}

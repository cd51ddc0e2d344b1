//! Initial numbers and the state dictionary.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind};

use burn::tensor::Device;
use pipe_engine::store::tensor::{Dtype, HostTensor};
use pipe_train::diffit::{DiffitConfig, Preset, Scope, load_state_dict, param_paths, state_dict};

fn minute() -> DiffitConfig {
    DiffitConfig {
        dim: 16,
        mults: vec![1, 2],
        depths: vec![1, 1],
        heads: 2,
        window: 4,
        image_size: 8,
        channels: 3,
        num_classes: 5,
    }
}

fn by_name(tensors: Vec<HostTensor>) -> BTreeMap<String, HostTensor> {
    tensors.into_iter().map(|t| (t.name.clone(), t)).collect()
}

#[test]
fn every_preset_has_the_reference_s_parameter_count() {
    // Counted by the reference: sum(p.numel() for p in Diffit(**preset).parameters()).
    for (preset, expected) in
        [(Preset::Tiny, 2_178_647), (Preset::Small, 15_085_739), (Preset::Cifar10, 27_900_883)]
    {
        let net = preset.config(32, 0).skeleton(&Device::flex()).expect("a preset is valid");
        let count: usize =
            param_paths(&net).iter().map(|(_, _, shape)| shape.iter().product::<usize>()).sum();
        assert_eq!(count, expected, "{}", preset.name());
    }
}

#[test]
fn initial_numbers_depend_on_the_seed_alone_and_follow_pytorch() {
    let numbers = |seed, device| {
        state_dict(&minute().init(seed, &device).expect("valid"), &Scope::All, "").expect("read")
    };
    let a = numbers(7, Device::flex());
    assert_eq!(a, numbers(7, Device::flex().autodiff()));
    assert_ne!(a, numbers(8, Device::flex()));

    let a = by_name(a);
    let values = |name: &str| a[name].to_f32().expect("all are F32");
    let conv = values("middle.0.conv.weight");
    let bound = 1.0 / (32f32 * 9.0).sqrt();
    let widest = conv.iter().fold(0f32, |max, v| max.max(v.abs()));
    assert!(widest <= bound && widest > 0.99 * bound);
    assert!(values("middle.0.conv.bias").iter().all(|v| v.abs() <= bound && *v != 0.0));
    assert!(values("middle.0.norm.weight").iter().all(|v| *v == 1.0));
    assert!(values("middle.0.norm.bias").iter().all(|v| *v == 0.0));
    assert!(values("encoder.0.0.block.attn.bias_table").iter().all(|v| *v == 0.0));
    let label = values("time.label.weight");
    let variance = label.iter().map(|v| v * v).sum::<f32>() / label.len() as f32;
    assert!((variance - 1.0).abs() < 0.2, "{variance}");
}

#[test]
fn a_state_dictionary_round_trips_to_the_bit() {
    let device = Device::flex().autodiff();
    let saved = state_dict(&minute().init(1, &device).expect("valid"), &Scope::All, "state_dict.")
        .expect("read");
    assert!(saved.windows(2).all(|pair| pair[0].name < pair[1].name));
    assert!(saved.iter().all(|t| t.dtype == Dtype::F32 && t.name.starts_with("state_dict.")));

    let tensors = by_name(saved.clone());
    let other = minute().init(2, &device).expect("valid");
    let loaded = load_state_dict(
        other,
        &Scope::All,
        "state_dict.",
        tensors.keys().map(String::as_str),
        |name| Ok::<_, Error>(tensors.get(name).cloned()),
    )
    .expect("all names fit");
    assert_eq!(state_dict(&loaded, &Scope::All, "state_dict.").expect("read"), saved);
}

#[test]
fn a_misfit_names_every_tensor_concerned() {
    let device = Device::flex();
    let net = minute().init(1, &device).expect("valid");
    let mut tensors = by_name(state_dict(&net, &Scope::All, "w.").expect("read"));
    tensors.remove("w.head.bias");
    tensors.insert("w.head.extra".into(), HostTensor::f32("w.head.extra", vec![1], &[0.0]));
    tensors
        .insert("w.head_norm.bias".into(), HostTensor::f32("w.head_norm.bias", vec![2], &[0.0; 2]));
    let names: Vec<&str> = tensors.keys().map(String::as_str).collect();

    let load = |lookup: &dyn Fn(&str) -> Result<Option<HostTensor>, Error>| {
        load_state_dict(net.clone(), &Scope::All, "w.", names.clone(), lookup)
            .expect_err("it does not fit")
            .to_string()
    };
    assert_eq!(
        load(&|name| Ok(tensors.get(name).cloned())),
        "failed to load the parameters: `w.head_norm.bias` has the shape [2], the model needs [16]; \
         `w.head.bias` is missing; `w.head.extra` is not part of the model"
    );
    assert_eq!(load(&|_| Err(Error::new(ErrorKind::UnexpectedEof, "torn"))), "torn");
}

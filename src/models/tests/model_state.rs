//! Initial numbers and the state dictionary.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind};

use burn::tensor::Device;
use pipe_models::architecture::Architecture;
use pipe_models::diffit::DiffitConfig;
use pipe_models::nn::{Scope, load_state_dict, state_dict};
use pipe_models::unet::UnetConfig;
use pipe_runs::tensor::{Dtype, HostTensor};

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
        augment_labels: 0,
    }
}

fn minute_unet() -> UnetConfig {
    UnetConfig {
        dim: 32,
        mults: vec![1, 2],
        depth: 1,
        attention: vec![4],
        image_size: 8,
        channels: 3,
        num_classes: 5,
        augment_labels: 0,
    }
}

fn by_name(tensors: Vec<HostTensor>) -> BTreeMap<String, HostTensor> {
    tensors.into_iter().map(|t| (t.name.clone(), t)).collect()
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
fn the_unet_s_last_layers_begin_at_zero_and_the_others_follow_pytorch() {
    let numbers = |seed, device| {
        let net = minute_unet().init(seed, &device).expect("valid");
        state_dict(&net, &Scope::All, "").expect("read")
    };
    let a = numbers(7, Device::flex());
    assert_eq!(a, numbers(7, Device::flex().autodiff()));
    assert_ne!(a, numbers(8, Device::flex()));

    let a = by_name(a);
    let values = |name: &str| a[name].to_f32().expect("all are F32");
    for name in a.keys().filter(|name| name.ends_with(".weight")) {
        let is_last = name.ends_with("conv2.weight")
            || name.ends_with("proj.weight")
            || name == "head.weight";
        assert_eq!(values(name).iter().all(|v| *v == 0.0), is_last, "{name}");
    }
    let bound = 1.0 / 64f32.sqrt();
    let qkv = values("middle.attention.qkv.weight");
    let widest = qkv.iter().fold(0f32, |max, v| max.max(v.abs()));
    assert!(widest <= bound && widest > 0.99 * bound);
    let bias = values("middle.attention.proj.bias");
    assert!(bias.iter().all(|v| v.abs() <= bound && *v != 0.0));
    assert!(values("middle.norm2.weight").iter().all(|v| *v == 1.0));
}

#[test]
fn a_1x1_kernel_has_pytorch_s_shape_and_round_trips_to_the_bit() {
    let device = Device::flex();
    let saved =
        state_dict(&minute_unet().init(1, &device).expect("valid"), &Scope::All, "").expect("read");
    let tensors = by_name(saved.clone());
    assert_eq!(tensors["middle.attention.qkv.weight"].shape, [192, 64, 1, 1]);
    assert_eq!(tensors["up.0.0.skip.weight"].shape, [64, 128, 1, 1]);
    assert_eq!(tensors["middle.affine.weight"].shape, [128, 128]);

    let names = tensors.keys().map(String::as_str);
    let other = minute_unet().init(2, &device).expect("valid");
    let loaded = load_state_dict(other, &Scope::All, "", names, |name| {
        Ok::<_, Error>(tensors.get(name).cloned())
    })
    .expect("all names fit");
    assert_eq!(state_dict(&loaded, &Scope::All, "").expect("read"), saved);
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

#[test]
fn what_tells_of_the_augmentation_begins_at_zero_and_has_its_weights_only_where_it_is_asked_for() {
    use burn::tensor::{Tensor, TensorData};
    use pipe_models::architecture::{Denoiser, ModelConfig, Shapes};
    use pipe_models::nn::{Pass, fill, walk};

    let device = Device::flex();
    let configs: [(ModelConfig, ModelConfig); 2] = [
        (minute().into(), minute().with_augment_labels(9).into()),
        (minute_unet().into(), minute_unet().with_augment_labels(9).into()),
    ];
    for (plain, told) in configs {
        assert!(!serde_json::to_string(&plain).unwrap().contains("augment"));
        assert!(serde_json::to_string(&told).unwrap().contains(r#""augment_labels":9"#));
        let net = told.init(7, &device).unwrap();
        let params = walk(&net);
        let shapes = Shapes(params.iter().map(|p| (p.name.as_str(), p.shape.as_slice())).collect());
        assert_eq!(shapes.augment_labels(), 9);
        assert!(walk(&plain.init(7, &device).unwrap()).iter().all(|p| p.name != "time.augment"));

        let tensor = |count: usize, shape: &[usize]| {
            let values: Vec<f32> = (0..count).map(|i| (0.37 * i as f32).sin()).collect();
            TensorData::new(values, shape.to_vec())
        };
        let labels = Tensor::<2>::from_data(tensor(18, &[2, 9]), &device);
        let run = |net: &pipe_models::architecture::Network, labels: Option<Tensor<2>>| {
            let x = Tensor::<4>::from_data(tensor(384, &[2, 3, 8, 8]), &device);
            let noise = Tensor::<1>::from_data(tensor(2, &[2]), &device);
            let pass = Pass::inference().with_augment(labels);
            net.forward(x, noise, None, &pass).into_data().try_into_vec::<f32>().unwrap()
        };
        let net = fill(
            net,
            params
                .iter()
                .filter(|p| p.name != "time.augment")
                .map(|p| {
                    let count: usize = p.shape.iter().product();
                    (p.name.clone(), (0..count).map(|i| 0.2 * (0.61 * i as f32).cos()).collect())
                })
                .collect(),
        );
        assert_eq!(run(&net, Some(labels.clone())), run(&net, None), "it begins at zero");
        let width = shapes.size("time.augment", 1);
        let weights = (0..9 * width).map(|i| (i as f32).cos()).collect();
        let net = fill(net, [("time.augment".to_owned(), weights)].into());
        assert_ne!(run(&net, Some(labels)), run(&net, None));
    }
}

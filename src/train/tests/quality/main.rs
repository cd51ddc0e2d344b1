//! Features, FID, KID, precision and recall against other programs: pytorch-fid, clean-fid, and the
//! definitions pair by pair. `reference.py` wrote the answers; weights, pictures and features are
//! formulas that both sides compute, so that no file of weights is needed.

use std::collections::BTreeMap;

use pipe_models::burn::tensor::Device;
use pipe_models::inception::Inception;
use pipe_runs::tensor::HostTensor;
use pipe_train::evaluate::{
    FeatureNetwork, Features, Moments, NEIGHBOURS, Resize, Statistics, frechet_distance,
    kernel_distance, precision_recall,
};
use pipe_train::kernels;
use safetensors::tensor::TensorView;
use serde_json::Value;

const GOLDEN: &str = include_str!("golden.json");

/// Numbers in [-1, 1) that look random: an integer hash of (index, stream).
fn pattern(count: usize, stream: u64) -> Vec<f64> {
    let hash = |i: u64| {
        let mut h = (i * 747_796_405 + stream * 2_891_336_453 + 1) as u32;
        h ^= h >> 16;
        h = h.wrapping_mul(0x45D_9F3B);
        h ^ (h >> 16)
    };
    (0..count as u64).map(|i| f64::from(hash(i)) / f64::from(1u32 << 31) - 1.0).collect()
}

/// The pattern of each tensor's place in the order of names, scaled so that signals keep their size.
fn weights() -> Vec<(String, Vec<usize>, Vec<u8>)> {
    let mut names = Vec::new();
    let mut note = |name: &str, shape: &[usize]| {
        names.push((name.to_owned(), shape.to_vec()));
        Ok(Some(HostTensor::f32(name, shape.to_vec(), &vec![0.0; shape.iter().product()])))
    };
    Inception::from_tensors(&mut note, &Device::flex()).unwrap();
    names.sort();
    let tensor = |(stream, (name, shape)): (usize, (String, Vec<usize>))| {
        let count = shape.iter().product();
        let scale = (6.0 / shape.iter().skip(1).product::<usize>() as f64).sqrt();
        let scaled = |u: f64| match &name {
            _ if shape.len() == 4 => u * scale,
            name if name.ends_with("running_var") => 1.0 + 0.5 * u,
            name if name.ends_with("bn.weight") => 1.0 + 0.1 * u,
            _ => 0.1 * u,
        };
        let values = pattern(count, stream as u64).into_iter();
        let bytes = values.flat_map(|u| (scaled(u) as f32).to_le_bytes()).collect();
        (name.clone(), shape.clone(), bytes)
    };
    names.into_iter().enumerate().map(tensor).collect()
}

/// Noise over a slope: neither smooth nor without shapes.
fn picture(index: u64, width: usize, height: usize) -> Vec<u8> {
    let noise = pattern(3 * width * height, 1000 + index);
    let slope = |at: usize| ((at / width + 2 * (at % width)) % 97) as f64 / 97.0;
    let value = |(i, u): (usize, &f64)| (64.0 * (u + 1.0) + 127.0 * slope(i / 3)).floor() as u8;
    noise.iter().enumerate().map(value).collect()
}

/// A few directions stand out, as they do in features of pictures.
fn features(count: usize, stream: u64, shift: f64) -> Features {
    const WIDTH: usize = 48;
    let value = |(i, u): (usize, f64)| (u * 0.9f64.powi((i % WIDTH) as i32) + shift) as f32;
    let values = pattern(count * WIDTH, stream).into_iter().enumerate().map(value);
    let mut features = Features::new(WIDTH);
    features.push(&values.collect::<Vec<f32>>());
    features
}

fn statistics(features: &Features) -> Statistics {
    let mut moments = Moments::new(features.width());
    moments.push(features.values());
    moments.statistics().unwrap()
}

#[track_caller]
fn near(found: f64, expected: &Value, relative: f64, what: &str) {
    let expected = expected.as_f64().unwrap();
    let off = (found - expected).abs() / expected.abs().max(1e-12);
    assert!(off < relative, "{what}: {found}, not {expected}: off by {off:.1e}");
}

/// Their length, and some of them, relative to their usual size.
#[track_caller]
fn alike(found: &[f32], expected: &Value, step: usize, relative: f64, what: &str) {
    let norm = found.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    near(norm, &expected["norm"], relative, what);
    let size = norm / (found.len() as f64).sqrt();
    let expected = expected["some"].as_array().unwrap();
    let some: Vec<f32> = found.iter().step_by(step).copied().collect();
    assert_eq!(some.len(), expected.len());
    for (at, (found, expected)) in some.iter().zip(expected).enumerate() {
        let off = (f64::from(*found) - expected.as_f64().unwrap()).abs() / size;
        assert!(off < relative, "{what}, number {}: off by {off:.1e}", at * step);
    }
}

#[test]
fn resizing_and_features_are_those_of_other_programs() {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("weights.safetensors");
    let tensors = weights();
    let views: BTreeMap<&String, TensorView> = tensors
        .iter()
        .map(|(name, shape, bytes)| {
            let view = TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes);
            (name, view.unwrap())
        })
        .collect();
    safetensors::serialize_to_file(views, None, &file).unwrap();
    let network = FeatureNetwork::load(&file, &Device::flex()).unwrap();
    for (number, expected) in golden["pictures"].as_array().unwrap().iter().enumerate() {
        let side = |key: &str| expected[key].as_u64().unwrap() as usize;
        let (width, height) = (side("width"), side("height"));
        let way = expected["way"].as_str().unwrap();
        let resize = if way == "clean" { Resize::Clean } else { Resize::Legacy };
        let pixels = picture(number as u64 / 2, width, height);
        let what = format!("{width} x {height}, {way}");
        let resized = resize.apply(&pixels, width, height);
        alike(&resized, &expected["resized"], 4999, 1e-5, &what);
        let found = kernels::in_own_pool(|| network.features(resized)).unwrap();
        alike(&found, &expected["features"], 64, 1e-3, &what);
    }
}

#[test]
fn distances_are_those_of_other_programs() {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let many = (features(200, 5000, 0.0), features(150, 5001, 0.1));
    let few = (features(30, 5002, 0.0), features(40, 5003, 0.05));
    for ((a, b), expected) in [many, few].iter().zip(golden["sets"].as_array().unwrap()) {
        let name = expected["name"].as_str().unwrap();
        let fid = frechet_distance(&statistics(a), &statistics(b)).unwrap();
        near(fid, &expected["fid"], 1e-6, &format!("fid, {name}"));
        let first = |set: &Features, rows: usize| {
            let mut some = Features::new(set.width());
            some.push(&set.values()[..rows * set.width()]);
            some
        };
        let rows = a.len().min(b.len());
        let kid = kernel_distance(&first(a, rows), &first(b, rows), 0).unwrap();
        near(kid.mean, &expected["kid"], 1e-6, &format!("kid, {name}"));
        let found = precision_recall(a, b, NEIGHBOURS).unwrap();
        near(found.precision, &expected["precision"], 1e-9, &format!("precision, {name}"));
        near(found.recall, &expected["recall"], 1e-9, &format!("recall, {name}"));
    }
}

//! The numbers that training starts from: PyTorch's defaults for each layer type, drawn from the
//! seed alone.
//!
//! No device and no library generator takes part, so a seed names the same network everywhere.

use std::collections::HashMap;

use burn::module::Module;
use rand::RngExt;
use rand_distr::StandardNormal;

use super::state_dict::{ParamPath, fill, walk};
use pipe_core::rng::{ChaCha8Rng, Purpose, stream};

/// Fills a new network. Linear and convolution: uniform within ±1/√fan-in, weight and bias;
/// embedding: normal; norms: 1 and 0; every other parameter, and those that `is_zero` names: 0.
/// Each parameter has a stream of its own, numbered by its place in the order of names.
pub fn initialize<M: Module>(skeleton: M, seed: u64, is_zero: impl Fn(&str) -> bool) -> M {
    let mut paths = walk(&skeleton);
    paths.sort_by(|a, b| a.name.cmp(&b.name));
    let shapes: HashMap<&str, &[usize]> =
        paths.iter().map(|p| (p.name.as_str(), &p.shape[..])).collect();
    let values = paths.iter().enumerate().map(|(index, path)| {
        let mut rng = stream(seed, Purpose::Init, 0, index as u64);
        let values = if is_zero(&path.name) {
            vec![0.0; path.shape.iter().product()]
        } else {
            draw(path, &shapes, &mut rng)
        };
        (path.name.clone(), values)
    });
    let values = values.collect();
    fill(skeleton, values)
}

fn draw(param: &ParamPath, shapes: &HashMap<&str, &[usize]>, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let count = param.shape.iter().product();
    match (param.container.as_str(), param.field.as_str()) {
        ("Struct:Linear" | "Struct:Projection" | "Struct:Pointwise" | "Struct:Conv2d", field) => {
            // A bias goes by the fan-in of the weight beside it.
            let weight = format!("{}weight", param.name.strip_suffix(field).unwrap_or(&param.name));
            let fan_in: usize =
                shapes.get(weight.as_str()).map_or(1, |shape| shape[1..].iter().product());
            let bound = 1.0 / (fan_in as f32).sqrt();
            (0..count).map(|_| bound * (2.0 * rng.random::<f32>() - 1.0)).collect()
        }
        ("Struct:Embedding", _) => {
            (0..count).map(|_| rng.sample::<f32, _>(StandardNormal)).collect()
        }
        ("Struct:Norm", "weight") => vec![1.0; count],
        _ => vec![0.0; count],
    }
}

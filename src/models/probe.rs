//! A digest of what a network computes on fixed inputs, to compare it with another implementation.
//!
//! The reference prints the same JSON: `diffit_torch.py forward FILE`.

use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::architecture::Denoiser;
use crate::diffusion::Objective;
use crate::nn::Pass;

/// Mean, standard deviation (with n - 1) and first eight values of the denoised fixed inputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    pub mean: f64,
    pub std: f64,
    pub first: Vec<f64>,
}

/// Denoises [`fixed_inputs`] with `net`, which may stand on any device, and sums up the result.
/// `image` is channels and side of the images that it makes.
pub fn probe(net: &impl Denoiser, image: [usize; 2], device: &Device) -> Probe {
    const BATCH: usize = 2;
    let [channels, size] = image;
    let (x, sigma) = fixed_inputs(image, BATCH);
    let shape = [BATCH, channels, size, size];
    let x = Tensor::<4>::from_data(TensorData::new(x, shape), device);
    let sigma = Tensor::<1>::from_data(TensorData::new(sigma, [BATCH]), device);
    let denoised = Objective::default().denoise(net, x, sigma, None, &Pass::inference());
    let values: Vec<f64> = denoised.into_data().convert::<f32>().iter::<f64>().collect();

    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (count - 1.0);
    Probe { mean, std: variance.sqrt(), first: values.into_iter().take(8).collect() }
}

/// Images `x[i] = sin(0.37 i)` and noise levels 0.5, 1.0, 1.5, …: the same numbers in any language.
/// `image` is channels and side.
pub fn fixed_inputs([channels, size]: [usize; 2], batch: usize) -> (Vec<f32>, Vec<f32>) {
    let count = batch * channels * size.pow(2);
    let x = (0..count).map(|i| (0.37 * i as f64).sin() as f32).collect();
    let sigma = (1..=batch).map(|i| 0.5 * i as f32).collect();
    (x, sigma)
}

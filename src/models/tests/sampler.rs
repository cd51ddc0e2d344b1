//! The sampler against an implementation in NumPy, and against what is known in closed form: of
//! data that is normally distributed, the denoiser and the path from noise to data are.
//!
//! `golden/make_sampler.py` wrote the answers in NumPy; noise is a formula that both sides compute.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use pipe_models::architecture::Denoiser;
use pipe_models::diffusion::{Churn, Guided, Method, Objective, Sampler};
use pipe_models::nn::Pass;

/// What a network has to answer so that the denoiser made of it answers `estimate` of the image and
/// the noise level, `[batch, 1, 1, 1]`: EDM's preconditioning (table 1) turned round.
fn answer(
    x: Tensor<4>,
    c_noise: Tensor<1>,
    estimate: impl FnOnce(Tensor<4>, Tensor<4>) -> Tensor<4>,
) -> Tensor<4> {
    let data = Objective::default().sigma_data();
    let [batch] = c_noise.dims();
    let sigma = (c_noise * 4.0).exp().reshape([batch, 1, 1, 1]);
    let total = sigma.clone().square() + data * data;
    let x = x * total.clone().sqrt();
    let skip = x.clone() * (total.clone().recip() * (data * data));
    (estimate(x, sigma.clone()) - skip) * total.sqrt() / (sigma * data)
}

/// The ideal denoiser of data of mean 0 and standard deviation `DEVIATION`.
#[derive(Module, Debug)]
struct Normal;

const DEVIATION: f64 = 0.8;

impl Denoiser for Normal {
    fn forward(
        &self,
        x: Tensor<4>,
        c_noise: Tensor<1>,
        _: Option<Tensor<1, Int>>,
        _: &Pass,
    ) -> Tensor<4> {
        let variance = DEVIATION * DEVIATION;
        answer(x, c_noise, |x, sigma| x * ((sigma.square() + variance).recip() * variance))
    }
}

/// That of `make_sampler.py`.
#[derive(Module, Debug)]
struct Bent {
    bend: f64,
}

impl Denoiser for Bent {
    fn forward(
        &self,
        x: Tensor<4>,
        c_noise: Tensor<1>,
        label: Option<Tensor<1, Int>>,
        _: &Pass,
    ) -> Tensor<4> {
        answer(x, c_noise, |x, sigma| {
            let square = sigma.square();
            let plain = x.clone() / (square.clone() * 4.0 + 1.0);
            let bent = (x / (square + 1.0).sqrt()).sin() * self.bend;
            let Some(label) = label else { return plain + bent };
            let [batch] = label.dims();
            // 0.5 for class 0 and -0.3 for class 1.
            plain + bent + (label.float() * -0.8 + 0.5).reshape([batch, 1, 1, 1])
        })
    }
}

/// Numbers in [-1, 1) that look random: an integer hash of (index, stream) modulo 2³².
fn pattern(count: usize, stream: u64) -> Vec<f32> {
    let number = |i: u64| {
        let mut h = (i * 747_796_405 + stream * 2_891_336_453 + 1) & 0xFFFF_FFFF;
        h ^= h >> 16;
        h = (h * 0x45D_9F3B) & 0xFFFF_FFFF;
        h ^= h >> 16;
        (h as f64 / 2f64.powi(31) - 1.0) as f32
    };
    (0..count as u64).map(number).collect()
}

const SHAPE: [usize; 4] = [4, 3, 2, 2];

fn noise(stream: usize) -> Tensor<4> {
    let values = TensorData::new(pattern(SHAPE.iter().product(), stream as u64), SHAPE);
    Tensor::from_data(values, &Device::flex()) * 1.5
}

fn values(x: Tensor<4>) -> Vec<f32> {
    x.into_data().try_into_vec().unwrap()
}

#[test]
fn every_method_makes_what_it_makes_in_numpy() {
    let text = include_str!("golden/sampler.json");
    let golden: BTreeMap<String, Vec<f32>> = serde_json::from_str(text).unwrap();
    let plain = Sampler { steps: 7, sigma_min: 0.02, sigma_max: 20.0, ..Sampler::default() };
    let churn = Churn { amount: 3.0, from: 0.05, to: 10.0, noise: 1.007 };
    let interval = Some((0.28, 2.9));
    let (euler, dpmpp) = (Method::Euler, Method::Dpmpp2m);
    let guide = Bent { bend: 0.1 };
    let cases = [
        ("heun", plain, None),
        ("euler", Sampler { method: euler, ..plain }, None),
        ("dpmpp_2m", Sampler { method: dpmpp, ..plain }, None),
        ("range", Sampler { sigma_min: 0.1, sigma_max: 5.0, rho: 3.0, ..plain }, None),
        ("churn", Sampler { churn, ..plain }, None),
        ("euler_churn", Sampler { method: euler, churn, ..plain }, None),
        ("guidance", Sampler { guidance: 2.0, ..plain }, None),
        ("interval", Sampler { guidance: 2.0, guidance_interval: interval, ..plain }, None),
        ("guide", Sampler { guidance: 1.7, ..plain }, Some(&guide)),
        (
            "dpmpp_2m_interval_guide",
            Sampler { method: dpmpp, guidance: 1.7, guidance_interval: interval, ..plain },
            Some(&guide),
        ),
    ];
    assert_eq!(cases.len(), golden.len());
    let label = || TensorData::new(vec![0i64, 1, 1, 0], [4]);
    for (name, sampler, guide) in cases {
        let net = Bent { bend: 0.2 };
        let label = Some(Tensor::from_data(label(), &Device::flex()));
        let networks = Guided { net: &net, guide, label };
        let mut seen = Vec::new();
        let fresh = |step| noise(step + 1);
        let found = sampler.run(&networks, noise(0), fresh, |step| {
            assert_eq!(step.estimate.dims(), SHAPE);
            seen.push(step.number);
            true
        });
        assert_eq!(seen, [1, 2, 3, 4, 5, 6, 7]);
        let pairs = values(found.unwrap()).into_iter().zip(&golden[name]);
        let worst = pairs.map(|(ours, theirs)| (ours - theirs).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-4, "{name}: off by {worst}");
    }
    let names: Vec<&Vec<f32>> = golden.values().collect();
    let apart = |a: &[f32], b: &[f32]| a.iter().zip(b).any(|(a, b)| (a - b).abs() > 1e-2);
    for (at, one) in names.iter().enumerate() {
        assert!(names[..at].iter().all(|other| apart(one, other)), "each case is one of its own");
    }
}

/// How far off the path to data of known distribution a sampler is, of the values' size.
fn error(method: Method, steps: usize) -> f64 {
    let sampler = Sampler { method, steps, sigma_min: 0.02, ..Sampler::default() };
    let ended = sampler.sample(&Normal, noise(0), None, |_| true).unwrap();
    // dx/dσ = σ x / (s² + σ²), so x grows with √(s² + σ²); the last step takes the denoiser's word.
    let variance = DEVIATION * DEVIATION;
    let size = |sigma: f64| (variance + sigma * sigma).sqrt();
    let last = variance / (variance + sampler.sigma_min.powi(2));
    let factor = sampler.sigma_max * size(sampler.sigma_min) / size(sampler.sigma_max) * last;
    let (ended, began) = (values(ended), values(noise(0)));
    let of = |(ended, began): (&f32, &f32)| {
        (f64::from(*ended) / (f64::from(*began) * factor) - 1.0).abs()
    };
    ended.iter().zip(&began).map(of).fold(0.0, f64::max)
}

#[test]
fn each_method_converges_to_the_path_in_its_order() {
    for (method, order) in [(Method::Euler, 1.0), (Method::Heun, 2.0), (Method::Dpmpp2m, 2.0)] {
        let errors = [16, 32, 64].map(|steps| error(method, steps));
        println!("{method:?}: off by {errors:?} in 16, 32 and 64 steps");
        let rate = (errors[1] / errors[2]).log2();
        assert!((rate - order).abs() < 0.35, "{method:?} is of order {rate:.2}");
        assert!(errors[2] < if order > 1.0 { 5e-3 } else { 0.1 }, "{method:?}: {errors:?}");
    }
}

#[test]
fn churn_keeps_the_variance_of_the_data() {
    let (count, side) = (64, 16);
    let shape = [count, 1, side, side];
    // Sums of twelve, less their mean: normal enough for a variance.
    let normal = |stream: u64| {
        let sums = (0..12).map(|i| pattern(count * side * side, 100 * stream + i + 7));
        let sum = sums.reduce(|a, b| a.iter().zip(&b).map(|(a, b)| a + b).collect());
        let values: Vec<f32> = sum.unwrap().into_iter().map(|sum| sum / 2.0).collect();
        Tensor::<4>::from_data(TensorData::new(values, shape), &Device::flex())
    };
    let deviation = |x: Tensor<4>| {
        let values = values(x);
        let squares: f64 = values.iter().map(|value| f64::from(*value).powi(2)).sum();
        (squares / values.len() as f64).sqrt()
    };
    for steps in [64, 128] {
        let of = |amount: f64, noise: f64| {
            let churn = Churn { amount, noise, ..Churn::default() };
            let sampler = Sampler { steps, churn, ..Sampler::default() };
            let net = Normal;
            let networks = Guided { net: &net, guide: None, label: None };
            let fresh = |step| normal(step as u64 + 1);
            deviation(sampler.run(&networks, normal(0), fresh, |_| true).unwrap())
        };
        for amount in [0.0, 5.0, 20.0] {
            let found = of(amount, 1.0) / DEVIATION;
            println!("{steps} steps, churn {amount}: {found:.4} of the deviation");
            assert!((found - 1.0).abs() < 0.02, "{steps} steps, churn {amount}: {found}");
        }
        assert!(of(20.0, 1.2) > 1.02 * of(20.0, 1.0), "more noise than is taken away");
    }
}

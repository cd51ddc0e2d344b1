//! Objectives against what is known in closed form: images whose pixels are Gaussian.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use pipe_core::rng::{Purpose, stream};
use rand::RngExt;
use rand_distr::StandardNormal;

use super::{Objective, ObjectiveKind, Sampler, Times};
use crate::architecture::Denoiser;
use crate::nn::Pass;

/// Standard deviation of the pixels.
const STD: f64 = 0.8;

fn all() -> Vec<Objective> {
    let of = |kind| Objective { kind, ..Objective::default() };
    let flow = of(ObjectiveKind::Flow);
    vec![
        of(ObjectiveKind::Edm),
        of(ObjectiveKind::V),
        flow,
        Objective { times: Some(Times::LogitNormal), ..flow },
        Objective { min_snr_gamma: Some(5.0), ..of(ObjectiveKind::V) },
        Objective { sigma_data: Some(0.8), ..of(ObjectiveKind::V) },
    ]
}

/// What makes `D(x; σ)` the mean of the pixels that gave `x`, but for a share `off` of its input.
#[derive(Module, Debug)]
struct Ideal {
    edm: f64,
    v: f64,
    flow: f64,
    data: f64,
    off: f64,
}

impl Ideal {
    fn of(objective: &Objective, off: f64) -> Self {
        let is = |kind| f64::from(u8::from(objective.kind == kind));
        let [edm, v, flow] = [ObjectiveKind::Edm, ObjectiveKind::V, ObjectiveKind::Flow].map(is);
        Self { edm, v, flow, data: objective.sigma_data(), off }
    }

    /// The factor of the network's input, from the definitions in the papers: the mean of the
    /// target, given the input.
    fn factor(&self, sigma: f64) -> f64 {
        let data = self.data;
        let (image, whole) = (STD * STD, STD * STD + sigma * sigma);
        let root = (sigma * sigma + data * data).sqrt();
        // Means of image and noise are so many times `x`, which is the input times `divisor`.
        let (y, n) = (image / whole, sigma / whole);
        let edm = (y - data * data / (root * root)) * root / (sigma * data / root) * self.edm;
        // v = α ε - σ x0 of images and noise of standard deviation `data`.
        let v = (data / root * n * data - sigma / root * y) * root / data * self.v;
        let flow = (n - y) * (1.0 + sigma) * self.flow;
        edm + v + flow
    }
}

impl Denoiser for Ideal {
    fn forward(
        &self,
        x: Tensor<4>,
        c_noise: Tensor<1>,
        _: Option<Tensor<1, Int>>,
        _: &Pass,
    ) -> Tensor<4> {
        let levels: Vec<f32> = c_noise.into_data().try_into_vec().unwrap();
        let factors = levels.iter().map(|c| self.factor((4.0 * f64::from(*c)).exp()) + self.off);
        let factors: Vec<f32> = factors.map(|factor| factor as f32).collect();
        let shape = [factors.len(), 1, 1, 1];
        let factors = Tensor::<4>::from_data(TensorData::new(factors, shape), &x.device());
        x * factors
    }

    fn objective(&self) -> Objective {
        let kind = match (self.edm, self.v) {
            (1.0, _) => ObjectiveKind::Edm,
            (_, 1.0) => ObjectiveKind::V,
            _ => ObjectiveKind::Flow,
        };
        let sigma_data = (kind != ObjectiveKind::Flow).then_some(self.data);
        Objective { kind, sigma_data, ..Objective::default() }
    }
}

fn normal(seed: u64, shape: [usize; 4], std: f64) -> Tensor<4> {
    let mut rng = stream(seed, Purpose::Noise, 0, 0);
    let draw = |_| rng.sample::<f32, _>(StandardNormal) * std as f32;
    let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(draw).collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

fn levels(values: &[f64]) -> Tensor<1> {
    let values: Vec<f32> = values.iter().map(|v| *v as f32).collect();
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), &Device::flex())
}

fn vec(tensor: Tensor<4>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

#[test]
fn the_loss_of_each_objective_is_least_at_the_ideal_denoiser() {
    let shape = [128, 3, 16, 16];
    let (image, noise) = (normal(1, shape, STD), normal(2, shape, 1.0));
    for objective in all() {
        for sigma in [0.05, 0.5, 3.0] {
            let loss = |off| {
                let net = Ideal::of(&objective, off);
                let (image, noise) = (image.clone(), noise.clone());
                let pass = Pass::inference();
                let found = objective.loss(&net, image, levels(&[sigma; 128]), noise, None, &pass);
                f64::from(found.into_scalar::<f32>())
            };
            // Of the parabola through three losses.
            let (below, at, above) = (loss(-0.2), loss(0.0), loss(0.2));
            let lowest = 0.2 * (below - above) / (2.0 * (below + above - 2.0 * at));
            assert!(lowest.abs() < 0.03, "{objective:?} at {sigma}: least at {lowest}");
            assert!(at < below && at < above);
        }
    }
}

#[test]
fn one_sampler_samples_all_objectives() {
    let shape = [16, 3, 16, 16];
    for objective in all() {
        let net = Ideal::of(&objective, 0.0);
        let sampler = Sampler { steps: 32, ..Sampler::default() };
        let images = sampler.sample(&net, normal(3, shape, 1.0), None, |_| true);
        let images = vec(images.unwrap());
        let square = images.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
        let std = (square / images.len() as f64).sqrt();
        assert!((std / STD - 1.0).abs() < 0.02, "{objective:?}: {std}");
    }
}

/// Gives one tensor, whatever it is asked.
#[derive(Module, Debug)]
struct Says {
    answer: Tensor<4>,
}

impl Denoiser for Says {
    fn forward(
        &self,
        _: Tensor<4>,
        _: Tensor<1>,
        _: Option<Tensor<1, Int>>,
        _: &Pass,
    ) -> Tensor<4> {
        self.answer.clone()
    }
}

#[test]
fn a_network_that_says_the_target_gives_the_image_and_the_loss_is_that_of_the_target() {
    let shape = [2, 3, 8, 8];
    let (image, noise) = (normal(4, shape, 0.5), normal(5, shape, 1.0));
    let sigma = [0.3, 4.0];
    let scaled = |of: fn(f64) -> f64| levels(&sigma.map(of)).reshape([2, 1, 1, 1]);
    // z = α x0 + σ ε with α² + σ² = 1, and x_t = (1 - t) x0 + t ε.
    let v = noise.clone() * scaled(|s| 1.0 / (1.0 + s * s).sqrt())
        - image.clone() * scaled(|s| s / (1.0 + s * s).sqrt());
    let flow = noise.clone() - image.clone();
    for (kind, target) in [(ObjectiveKind::V, v), (ObjectiveKind::Flow, flow)] {
        let objective = Objective { kind, ..Objective::default() };
        let x = image.clone() + noise.clone() * scaled(|s| s);
        let pass = Pass::inference();
        let net = Says { answer: target.clone() };
        let found = vec(objective.denoise(&net, x, levels(&sigma), None, &pass));
        let worst = found.iter().zip(vec(image.clone())).map(|(a, b)| (a - b).abs());
        assert!(worst.fold(0.0, f32::max) < 1e-5, "{kind:?}");
        // Of a network that says nothing, the loss is the mean square of the target.
        let nothing = Says { answer: target.clone() * 0.0 };
        let (image, noise) = (image.clone(), noise.clone());
        let loss = objective.loss(&nothing, image, levels(&sigma), noise, None, &pass);
        let expected = target.square().mean().into_scalar::<f32>();
        assert!((loss.into_scalar::<f32>() / expected - 1.0).abs() < 1e-4, "{kind:?}");
    }
}

#[test]
fn input_and_target_have_variance_one_where_the_paper_says_so() {
    for objective in
        [Objective::default(), Objective { kind: ObjectiveKind::V, ..Objective::default() }]
    {
        let data = objective.sigma_data();
        for sigma in [0.002, 0.1, 1.0, 80.0] {
            let level = || levels(&[sigma]).reshape([1, 1, 1, 1]);
            let c = objective.scaling(level());
            let [skip, out, divisor] = [c.skip, c.out, c.divisor].map(|t| f64::from(vec(t)[0]));
            assert!(((sigma * sigma + data * data) / divisor.powi(2) - 1.0).abs() < 1e-5);
            // The target is (y - c_skip (y + σ n)) / c_out.
            let variance = (((1.0 - skip) * data).powi(2) + (skip * sigma).powi(2)) / out.powi(2);
            assert!((variance - 1.0).abs() < 1e-3, "{objective:?} at {sigma}: {variance}");
            let weight = f64::from(vec(objective.weight(level()))[0]);
            assert!((weight * out * out - 1.0).abs() < 1e-4);
        }
    }
}

#[test]
fn the_weight_of_min_snr_is_cut_off() {
    let objective =
        Objective { kind: ObjectiveKind::V, min_snr_gamma: Some(5.0), ..Objective::default() };
    for sigma in [0.01f64, 0.44, 0.45, 2.0] {
        let (level, snr) = (levels(&[sigma]).reshape([1, 1, 1, 1]), sigma.powi(-2));
        let weight = f64::from(vec(objective.weight(level.clone()))[0]);
        assert!((weight / snr.min(5.0) - 1.0).abs() < 1e-5);
        // Of the squared error of v it is min(SNR, γ) / (SNR + 1): the paper's section 3.4.
        let out = f64::from(vec(objective.scaling(level).out)[0]);
        assert!((weight * out * out / (snr.min(5.0) / (snr + 1.0)) - 1.0).abs() < 1e-4);
    }
}

#[test]
fn levels_are_drawn_as_each_objective_says() {
    let quantiles = |objective: Objective| {
        let mut found = objective.draw_levels(20_001, &mut stream(1, Purpose::Sigma, 0, 0));
        found.sort_by(f32::total_cmp);
        [2_000, 10_000, 18_000].map(|at| f64::from(found[at]))
    };
    let near = |objective: Objective, expected: [f64; 3]| {
        let found = quantiles(objective);
        let worst =
            found.iter().zip(expected).map(|(a, b)| (a / b - 1.0).abs()).fold(0.0, f64::max);
        assert!(worst < 0.06, "{objective:?}: {found:?}, not {expected:?}");
    };
    let of = |kind| Objective { kind, ..Objective::default() };
    let tenth = 1.281_55f64; // of a standard normal
    near(of(ObjectiveKind::Edm), [-tenth, 0.0, tenth].map(|z| (-1.2 + 1.2 * z).exp()));
    let time = |t: f64| (std::f64::consts::FRAC_PI_2 * t).tan();
    near(of(ObjectiveKind::V), [time(0.1), 1.0, time(0.9)]);
    near(of(ObjectiveKind::Flow), [1.0 / 9.0, 1.0, 9.0]);
    let logit = Objective { times: Some(Times::LogitNormal), ..of(ObjectiveKind::Flow) };
    near(logit, [-tenth, 0.0, tenth].map(f64::exp));
    near(
        Objective { p_mean: Some(1.0), p_std: Some(0.5), ..logit },
        [-tenth, 0.0, tenth].map(|z| (1.0 + 0.5 * z).exp()),
    );
}

#[test]
fn settings_of_other_objectives_are_refused() {
    let refused = |text: &str| {
        let objective: Objective = serde_json::from_str(text).unwrap();
        objective.validate().unwrap_err().key
    };
    for (text, key) in [
        (r#"{"kind": "flow", "sigma_data": 0.5}"#, "sigma_data"),
        (r#"{"kind": "v", "times": "uniform"}"#, "times"),
        (r#"{"kind": "flow", "p_mean": 0.0}"#, "p_mean"),
        (r#"{"kind": "v", "p_std": 1.0}"#, "p_std"),
        (r#"{"p_std": 0.0}"#, "p_std"),
        (r#"{"sigma_data": -1.0}"#, "sigma_data"),
        (r#"{"min_snr_gamma": 0.0}"#, "min_snr_gamma"),
    ] {
        assert_eq!(refused(text), key, "{text}");
    }
    for objective in all() {
        assert_eq!(objective.validate(), Ok(()));
        let text = serde_json::to_string(&objective).unwrap();
        assert_eq!(serde_json::from_str::<Objective>(&text).unwrap(), objective);
    }
    assert_eq!(serde_json::to_string(&Objective::default()).unwrap(), r#"{"kind":"edm"}"#);
}

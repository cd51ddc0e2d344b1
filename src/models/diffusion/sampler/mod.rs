//! From noise to images: along the probability flow, or with fresh noise in between.
//!
//! Sources: Karras et al. 2022, arXiv 2206.00364, algorithms 1 and 2 and equation 5; Lu et al. 2022,
//! arXiv 2211.01095, algorithm 2 (DPM-Solver++(2M)), whose λ is -ln σ on EDM's noise levels, where α
//! is 1. Draws nothing itself: noise comes from outside, where the streams are.

mod estimate;

use burn::tensor::{Int, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::architecture::Denoiser;
use estimate::Estimator;
pub use estimate::Guided;

/// How one noise level is left for the next one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Heun's method, of second order: two evaluations of the network a step, one in the last.
    #[default]
    Heun,
    /// Euler's method, of first order: one evaluation a step. DDIM, in other words.
    Euler,
    /// DPM-Solver++(2M), of second order: one evaluation a step, and the estimate of the step
    /// before.
    #[serde(rename = "dpmpp_2m")]
    Dpmpp2m,
}

/// Fresh noise before each step, algorithm 2 of EDM.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Churn {
    /// S_churn: of all steps together; at most (√2 - 1) times the noise of a step is added to it.
    pub amount: f64,
    /// S_min: the lowest noise level to which noise is added.
    pub from: f64,
    /// S_max: the highest one.
    pub to: f64,
    /// S_noise: standard deviation of the noise that is added.
    pub noise: f64,
}

impl Default for Churn {
    /// None.
    fn default() -> Self {
        Self { amount: 0.0, from: 0.0, to: f64::INFINITY, noise: 1.0 }
    }
}

/// How to get from noise to an image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    pub method: Method,
    /// Noise levels; Heun's method evaluates the network `2 steps - 1` times.
    pub steps: usize,
    pub sigma_min: f64,
    pub sigma_max: f64,
    /// How much closer the levels lie at the clean end.
    pub rho: f64,
    /// For Heun's and Euler's methods.
    pub churn: Churn,
    /// Weight of the class, or of the network against its guide: 1 takes the estimate as it is,
    /// more exaggerates it.
    pub guidance: f64,
    /// The noise levels with guidance: above the first number, and up to the second one.
    pub guidance_interval: Option<(f64, f64)>,
}

impl Default for Sampler {
    fn default() -> Self {
        Self {
            method: Method::Heun,
            steps: 18,
            sigma_min: 0.002,
            sigma_max: 80.0,
            rho: 7.0,
            churn: Churn::default(),
            guidance: 1.0,
            guidance_interval: None,
        }
    }
}

/// A step that is done.
pub struct Step<'a> {
    /// From 1.
    pub number: usize,
    /// The noise level at its beginning.
    pub sigma: f64,
    /// What the images were estimated to be there, `[batch, channels, size, size]`.
    pub estimate: &'a Tensor<4>,
}

impl Sampler {
    /// The noise levels, highest first, and a last 0 (equation 5).
    pub fn sigmas(&self) -> Vec<f64> {
        let root = |sigma: f64| sigma.powf(1.0 / self.rho);
        let (high, low) = (root(self.sigma_max), root(self.sigma_min));
        let last = self.steps.saturating_sub(1).max(1) as f64;
        let level = |i: usize| (high + i as f64 / last * (low - high)).powf(self.rho);
        (0..self.steps).map(level).chain([0.0]).collect()
    }

    /// [`Sampler::run`] with one network, without churn. `after` is told the number of the step just
    /// done, from 1.
    pub fn sample(
        &self,
        net: &impl Denoiser,
        noise: Tensor<4>,
        label: Option<Tensor<1, Int>>,
        mut after: impl FnMut(usize) -> bool,
    ) -> Option<Tensor<4>> {
        let networks = Guided { net, guide: None, label };
        let plain = Self { churn: Churn::default(), ..*self };
        let (shape, device) = (noise.dims(), noise.device());
        let none = |_| Tensor::zeros(shape, &device);
        plain.run(&networks, noise, none, |step| after(step.number))
    }

    /// Denoises `noise [batch, channels, size, size]` (standard normal) to images in [-1, 1],
    /// without autodiff. `fresh` draws standard normal noise of the same shape for a step, counted
    /// from 0, where churn adds some. `after` is told each step that is done, and stops the sampler
    /// by answering `false`.
    pub fn run<N: Denoiser>(
        &self,
        networks: &Guided<N>,
        noise: Tensor<4>,
        mut fresh: impl FnMut(usize) -> Tensor<4>,
        mut after: impl FnMut(Step) -> bool,
    ) -> Option<Tensor<4>> {
        let estimator = Estimator::new(self, networks, &noise);
        let sigmas = self.sigmas();
        let mut x = noise * self.sigma_max; // [batch, channels, size, size]
        let mut before: Option<(f64, Tensor<4>)> = None;
        for (step, pair) in sigmas.windows(2).enumerate() {
            let (level, next) = (pair[0], pair[1]);
            let sigma = level * (1.0 + self.added(level));
            if sigma > level {
                let more = (sigma.powi(2) - level.powi(2)).sqrt() * self.churn.noise;
                x = x + fresh(step) * more;
            }
            let estimate = estimator.at(x.clone(), sigma);
            x = match self.method {
                Method::Dpmpp2m => {
                    let last = before.replace((sigma, estimate.clone()));
                    multistep(x, (sigma, next), estimate.clone(), last)
                }
                method => {
                    let slope = (x.clone() - estimate.clone()) / sigma;
                    let ahead = x.clone() + slope.clone() * (next - sigma);
                    if method == Method::Heun && next > 0.0 {
                        let there = (ahead.clone() - estimator.at(ahead, next)) / next;
                        x + (slope + there) * (0.5 * (next - sigma))
                    } else {
                        ahead
                    }
                }
            };
            if !after(Step { number: step + 1, sigma, estimate: &estimate }) {
                return None;
            }
        }
        Some(x)
    }

    /// How much a noise level is raised before its step, as a share of it: γ of algorithm 2.
    fn added(&self, sigma: f64) -> f64 {
        let Churn { amount, from, to, .. } = self.churn;
        if self.method == Method::Dpmpp2m || !(from..=to).contains(&sigma) {
            return 0.0;
        }
        (amount / self.steps as f64).min(2f64.sqrt() - 1.0)
    }
}

/// A step of DPM-Solver++(2M) from the noise level `sigma` to `next`. `last`: noise level and
/// estimate of the step before.
fn multistep(
    x: Tensor<4>,
    (sigma, next): (f64, f64),
    estimate: Tensor<4>,
    last: Option<(f64, Tensor<4>)>,
) -> Tensor<4> {
    if next == 0.0 {
        return estimate;
    }
    let h = (sigma / next).ln();
    let ahead = match last {
        None => estimate,
        Some((before, last)) => {
            let share = 0.5 * h / (before / sigma).ln();
            estimate * (1.0 + share) - last * share
        }
    };
    x * (next / sigma) - ahead * (-h).exp_m1()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_fall_from_the_highest_to_the_lowest_and_end_at_zero() {
        let sigmas = Sampler::default().sigmas();
        assert_eq!(sigmas.len(), 19);
        assert!(
            (sigmas[0] - 80.0).abs() < 1e-9
                && (sigmas[17] - 0.002).abs() < 1e-12
                && sigmas[18] == 0.0
        );
        assert!(sigmas.windows(2).all(|pair| pair[0] > pair[1]));
        // (80^(1/7) + 9/17 (0.002^(1/7) - 80^(1/7)))^7
        assert!((sigmas[9] - 1.923_340).abs() < 1e-5, "{}", sigmas[9]);
    }

    #[test]
    fn one_step_is_possible() {
        assert_eq!(Sampler { steps: 1, ..Sampler::default() }.sigmas(), [80.0, 0.0]);
    }

    #[test]
    fn noise_is_added_inside_the_interval_and_never_more_than_doubles_the_variance() {
        let churn = Churn { amount: 40.0, from: 0.05, to: 50.0, noise: 1.003 };
        let of = |steps| Sampler { steps, churn, ..Sampler::default() };
        assert_eq!([80.0, 0.049].map(|sigma| of(256).added(sigma)), [0.0; 2]);
        assert_eq!([50.0, 1.0, 0.05].map(|sigma| of(256).added(sigma)), [40.0 / 256.0; 3]);
        assert!(((1.0 + of(18).added(1.0)).powi(2) - 2.0).abs() < 1e-12);
        assert_eq!(Sampler::default().added(1.0), 0.0);
    }
}

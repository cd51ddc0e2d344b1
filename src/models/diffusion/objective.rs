//! What a network is asked to learn: the registry of objectives.
//!
//! Each is written in the terms of Karras et al. 2022 (arXiv 2206.00364, equation 7), as a denoiser
//! of images with noise of a level σ: `D(x; σ) = c_skip x + c_out F(c_in x; c_noise)`. So one
//! sampler samples all of them. What tells them apart is the scaling, the noise levels of training
//! and the weight of the loss. Knows no networks.

use burn::tensor::Tensor;
use rand::{Rng, RngExt};
use rand_distr::StandardNormal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Times of training are drawn between this and one minus this, which is about what the sampler's
/// levels span.
const FIRST_TIME: f64 = 1e-3;

/// What the network is asked to learn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Objective {
    pub kind: ObjectiveKind,
    /// Of `edm` and `v`: standard deviation of the images; 0.5 and 1 if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = 0.5)]
    pub sigma_data: Option<f64>,
    /// Of `flow`: how the times of training are drawn; `uniform` if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<Times>,
    /// Of `edm` and of times that are `logit_normal`: mean of ln σ in training; -1.2 and 0 if
    /// unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-known-as" = ["P_mean"]))]
    pub p_mean: Option<f64>,
    /// Of the same: standard deviation of ln σ in training; 1.2 and 1 if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-known-as" = ["P_std"]))]
    pub p_std: Option<f64>,
    /// Weighs the squared error of the denoised image with 1 / σ², this at most, in the place of
    /// the objective's own weight (min-SNR-γ: Hang et al. 2023, arXiv 2303.09556); common: 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(example = 5.0)]
    #[schemars(extend("x-known-as" = ["snr_gamma", "min_snr"]))]
    pub min_snr_gamma: Option<f64>,
}

/// What the network's output means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ObjectiveKind {
    /// EDM's mixture of image and noise (Karras et al. 2022, arXiv 2206.00364, table 1).
    #[default]
    Edm,
    /// The velocity on the circle from image to noise, with cosine times (Salimans and Ho 2022,
    /// arXiv 2202.00512, section 4 and appendix D).
    V,
    /// The velocity on the straight line from image to noise (flow matching: Lipman et al. 2023,
    /// arXiv 2210.02747; rectified flow: Liu et al. 2023, arXiv 2209.03003).
    Flow,
}

/// How the times of `flow` are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Times {
    /// All alike.
    Uniform,
    /// Those in the middle more often (Esser et al. 2024, arXiv 2403.03206, section 3.1): ln σ is
    /// the logit of the time.
    LogitNormal,
}

/// A setting of an objective that cannot work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidObjective {
    pub key: &'static str,
    pub message: String,
}

/// `c_skip`, `c_out` and `c_in` of levels, each shaped as those are.
pub struct Scaling {
    pub skip: Tensor<4>,
    pub out: Tensor<4>,
    /// What `c_in` divides by.
    pub divisor: Tensor<4>,
}

impl ObjectiveKind {
    /// As settings spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Edm => "edm",
            Self::V => "v",
            Self::Flow => "flow",
        }
    }
}

impl Objective {
    /// Refuses values that cannot work, and those of other objectives.
    ///
    /// # Errors
    /// The first setting found that does not.
    pub fn validate(&self) -> Result<(), InvalidObjective> {
        let kind = self.kind;
        let refuse = |key, message: String| Err(InvalidObjective { key, message });
        let positive = |value: Option<f64>| value.is_none_or(|v| v > 0.0 && v.is_finite());
        if kind == ObjectiveKind::Flow && self.sigma_data.is_some() {
            return refuse("sigma_data", "a `flow` does not depend on it; leave it out".into());
        }
        if kind != ObjectiveKind::Flow && self.times.is_some() {
            return refuse("times", format!("only `flow` has them, not `{}`", kind.name()));
        }
        for (key, value) in [("p_mean", self.p_mean), ("p_std", self.p_std)] {
            if value.is_some() && !self.is_log_normal() {
                let text = "only `edm`, and `flow` with `times: logit_normal`, draw levels by it";
                return refuse(key, text.to_owned());
            }
        }
        if self.p_mean.is_some_and(|mean| !mean.is_finite()) {
            return refuse("p_mean", "expected a number".into());
        }
        for (key, value) in [
            ("sigma_data", self.sigma_data),
            ("p_std", self.p_std),
            ("min_snr_gamma", self.min_snr_gamma),
        ] {
            if !positive(value) {
                return refuse(key, "expected a number above 0".into());
            }
        }
        Ok(())
    }

    fn is_log_normal(&self) -> bool {
        self.kind == ObjectiveKind::Edm || self.times == Some(Times::LogitNormal)
    }

    /// Standard deviation of the images, σ_data, that the scaling supposes.
    pub fn sigma_data(&self) -> f64 {
        self.sigma_data.unwrap_or(if self.kind == ObjectiveKind::Edm { 0.5 } else { 1.0 })
    }

    /// Draws noise levels of training.
    pub fn draw_levels(&self, count: usize, rng: &mut impl Rng) -> Vec<f32> {
        if self.is_log_normal() {
            return (0..count).map(|_| self.log_normal_level(rng.sample(StandardNormal))).collect();
        }
        (0..count).map(|_| self.level_of_time(rng.random::<f64>())).collect()
    }

    /// The noise level below which a share of all lie that training draws, 0 to 1. `normal` is the
    /// standard normal of the same share.
    pub fn level_at(&self, share: f64, normal: f32) -> f32 {
        if self.is_log_normal() { self.log_normal_level(normal) } else { self.level_of_time(share) }
    }

    fn log_normal_level(&self, normal: f32) -> f32 {
        let (mean, std) = match self.kind {
            ObjectiveKind::Edm => (-1.2, 1.2),
            _ => (0.0, 1.0),
        };
        let (mean, std) = (self.p_mean.unwrap_or(mean), self.p_std.unwrap_or(std));
        (mean + std * f64::from(normal)).exp() as f32
    }

    fn level_of_time(&self, uniform: f64) -> f32 {
        let time = FIRST_TIME + (1.0 - 2.0 * FIRST_TIME) * uniform;
        let level = match self.kind {
            ObjectiveKind::Flow => time / (1.0 - time),
            _ => self.sigma_data() * (std::f64::consts::FRAC_PI_2 * time).tan(),
        };
        level as f32
    }

    /// The scaling at levels `[batch, 1, 1, 1]`.
    pub fn scaling(&self, sigma: Tensor<4>) -> Scaling {
        let data = self.sigma_data();
        match self.kind {
            // x = (1 + σ) x_t with t = σ / (1 + σ), and y = x_t - t u.
            ObjectiveKind::Flow => {
                let divisor = sigma.clone() + 1.0;
                let skip = divisor.clone().recip();
                Scaling { out: -sigma * skip.clone(), skip, divisor }
            }
            ObjectiveKind::Edm | ObjectiveKind::V => {
                let total = sigma.clone().square() + data.powi(2); // σ² + σ_data²
                let root = total.clone().sqrt();
                let out = sigma * data / root.clone();
                // v points from the image to the noise.
                let out = if self.kind == ObjectiveKind::V { -out } else { out };
                Scaling { skip: total.recip() * data.powi(2), out, divisor: root }
            }
        }
    }

    /// The weight of the squared error of the denoised image at levels `[batch, 1, 1, 1]`: 1 /
    /// c_out², so that every level has the network's own squared error, or min-SNR-γ's.
    pub fn weight(&self, sigma: Tensor<4>) -> Tensor<4> {
        match (self.min_snr_gamma, self.kind) {
            (Some(gamma), _) => sigma.square().recip().clamp_max(gamma),
            (None, ObjectiveKind::Flow) => ((sigma.clone() + 1.0) / sigma).square(),
            (None, ObjectiveKind::Edm | ObjectiveKind::V) => {
                let data = self.sigma_data();
                let total = sigma.clone().square() + data.powi(2);
                total / (sigma * data).square()
            }
        }
    }
}

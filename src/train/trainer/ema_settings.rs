//! The settings of averages of the weights.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// EMA weights: an exponential moving average of the weights, which samples better than the weights
/// themselves.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EmaSettings {
    pub enabled: bool,
    /// Share of the old average kept at each step; smaller in the first steps: at most (1 + step) /
    /// (10 + step).
    #[schemars(range(min = 0.0, max = 1.0))]
    #[schemars(extend("x-known-as" = ["ema_decay"]))]
    pub decay: f64,
    /// Averages by power functions besides, by their lengths: the standard deviation of the times
    /// that they are of, as a share of the training so far (σ_rel of Karras et al. 2024, arXiv
    /// 2312.02696). From snapshots of two of them `pipe ckpt ema` makes any other length.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(example = vec![0.05, 0.10])]
    #[schemars(extend("x-known-as" = ["sigma_rel", "ema_lengths"]))]
    pub lengths: Vec<f64>,
    /// Epochs between two snapshots of those averages; 1 if unset. All of them are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("x-class" = "runtime"))]
    pub snapshot_every_n_epochs: Option<u64>,
}

impl Default for EmaSettings {
    fn default() -> Self {
        Self { enabled: true, decay: 0.999, lengths: Vec::new(), snapshot_every_n_epochs: None }
    }
}

impl EmaSettings {
    /// The settings as they decide the average: a decay that is not used is the default.
    pub fn deciding(&self) -> Self {
        let decay = if self.enabled { self.decay } else { Self::default().decay };
        Self { decay, ..self.clone() }
    }
}

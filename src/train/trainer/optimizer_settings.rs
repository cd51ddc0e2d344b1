//! The settings of the optimizer.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Adam (Kingma and Ba 2015, arXiv 1412.6980) or AdamW (Loshchilov and Hutter 2019, arXiv
/// 1711.05101).
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerSettings {
    pub kind: OptimizerKind,
    /// Decay of the moving averages of gradients and squared gradients.
    pub betas: [f64; 2],
    /// Added to the denominator.
    pub eps: f64,
    /// Decoupled for AdamW, added to the gradient for Adam.
    #[schemars(extend("x-known-as" = ["wd"]))]
    pub weight_decay: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    Adam,
    Adamw,
}

impl Default for OptimizerSettings {
    fn default() -> Self {
        Self { kind: OptimizerKind::Adamw, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01 }
    }
}

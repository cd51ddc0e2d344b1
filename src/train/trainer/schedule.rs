//! The learning rate as a pure function of the step.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the learning rate changes over the steps: a linear warmup, then one of three courses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    pub kind: ScheduleKind,
    /// Optimizer steps in which the rate rises from 0 to its peak.
    #[schemars(extend("x-known-as" = ["warmup", "num_warmup_steps"]))]
    pub warmup_steps: u64,
    /// Where `cosine` and `linear` end, as a share of the peak.
    #[schemars(range(min = 0.0, max = 1.0))]
    #[schemars(extend("x-known-as" = ["min_lr"]))]
    pub min_lr_ratio: f64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// Stays at the peak, so that a finished run can be extended.
    #[default]
    Constant,
    /// Half a cosine (Loshchilov and Hutter 2017, arXiv 1608.03983, without restarts).
    Cosine,
    /// A straight line.
    Linear,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { kind: ScheduleKind::Constant, warmup_steps: 0, min_lr_ratio: 0.0 }
    }
}

impl Schedule {
    /// The rate of optimizer step `step` (counted from 0) of `total`. Past the end the last rate
    /// stays.
    pub fn rate(&self, peak: f64, step: u64, total: u64) -> f64 {
        if step < self.warmup_steps {
            return peak * (step + 1) as f64 / self.warmup_steps as f64;
        }
        let span = total.saturating_sub(self.warmup_steps).max(1);
        let progress = ((step - self.warmup_steps) as f64 / span as f64).min(1.0);
        let share = match self.kind {
            ScheduleKind::Constant => return peak,
            ScheduleKind::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
            ScheduleKind::Linear => 1.0 - progress,
        };
        peak * (self.min_lr_ratio + (1.0 - self.min_lr_ratio) * share)
    }

    /// Whether the rate of a step depends on how many steps there are in all.
    pub fn depends_on_horizon(&self) -> bool {
        self.kind != ScheduleKind::Constant
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(kind: ScheduleKind) -> Schedule {
        Schedule { kind, warmup_steps: 10, min_lr_ratio: 0.1 }
    }

    #[test]
    fn warmup_rises_to_the_peak() {
        let s = schedule(ScheduleKind::Constant);
        assert_eq!(
            [s.rate(2.0, 0, 100), s.rate(2.0, 9, 100), s.rate(2.0, 99, 100)],
            [0.2, 2.0, 2.0]
        );
    }

    #[test]
    fn cosine_and_linear_fall_to_the_floor() {
        for kind in [ScheduleKind::Cosine, ScheduleKind::Linear] {
            let s = schedule(kind);
            assert_eq!(s.rate(1.0, 10, 110), 1.0);
            assert!((s.rate(1.0, 60, 110) - 0.55).abs() < 1e-12, "half way between peak and floor");
            assert!((s.rate(1.0, 110, 110) - 0.1).abs() < 1e-12);
            assert!((s.rate(1.0, 500, 110) - 0.1).abs() < 1e-12, "stays there");
        }
    }
}

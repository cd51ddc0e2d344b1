//! The learning rate as a pure function of the step.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the learning rate changes over the steps: a linear warmup, then one of five courses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    pub kind: ScheduleKind,
    /// Optimizer steps in which the rate rises from 0 to its peak.
    #[schemars(extend("x-known-as" = ["warmup", "num_warmup_steps"]))]
    pub warmup_steps: u64,
    /// Where `cosine`, `linear` and `constant_then_decay` end, as a share of the peak.
    #[schemars(range(min = 0.0, max = 1.0))]
    #[schemars(extend("x-known-as" = ["min_lr"]))]
    pub min_lr_ratio: f64,
    /// Of `inverse_sqrt`: the optimizer step from which on the rate falls.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), example = 70_000)]
    #[schemars(extend("x-known-as" = ["t_ref", "ref_batches", "lr_ref"]))]
    pub reference_steps: Option<u64>,
    /// Of `constant_then_decay`: the share of all epochs in which the rate falls, rounded to whole
    /// epochs, of which there is one at least; 0.2 if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0), example = 0.2)]
    #[schemars(extend("x-known-as" = ["cooldown", "decay_ratio", "num_decay_steps"]))]
    pub decay_share: Option<f64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    /// Stays at the peak, so that a finished run can be extended.
    #[default]
    Constant,
    /// Half a cosine (Loshchilov and Hutter 2017, arXiv 1608.03983, without restarts).
    Cosine,
    /// A straight line.
    Linear,
    /// Falls with the square root of the step from `reference_steps` on (Karras et al. 2024, arXiv
    /// 2312.02696, equation 67). It has no end, so that a finished run can be extended.
    InverseSqrt,
    /// Stays at the peak, and falls in a straight line in the last epochs (Hägele et al. 2024, arXiv
    /// 2405.18392; also known as warmup-stable-decay). A longer training goes on from where the
    /// rate began to fall.
    ConstantThenDecay,
}

impl ScheduleKind {
    /// As settings spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Cosine => "cosine",
            Self::Linear => "linear",
            Self::InverseSqrt => "inverse_sqrt",
            Self::ConstantThenDecay => "constant_then_decay",
        }
    }
}

/// What a schedule spans: so many epochs of so many optimizer steps, or steps alone, as so many
/// epochs of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Horizon {
    pub epochs: u64,
    pub steps_per_epoch: u64,
}

impl Horizon {
    fn steps(self) -> u64 {
        self.epochs.saturating_mul(self.steps_per_epoch)
    }
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            kind: ScheduleKind::Constant,
            warmup_steps: 0,
            min_lr_ratio: 0.0,
            reference_steps: None,
            decay_share: None,
        }
    }
}

impl Schedule {
    /// The settings as they decide the rates: what another kind of schedule reads is the default.
    pub fn deciding(&self) -> Self {
        let unset = Self { kind: self.kind, warmup_steps: self.warmup_steps, ..Self::default() };
        match self.kind {
            ScheduleKind::Constant => unset,
            ScheduleKind::InverseSqrt => Self { reference_steps: self.reference_steps, ..unset },
            ScheduleKind::Cosine | ScheduleKind::Linear => {
                Self { min_lr_ratio: self.min_lr_ratio, ..unset }
            }
            ScheduleKind::ConstantThenDecay => Self { reference_steps: None, ..self.clone() },
        }
    }

    /// The rate of optimizer step `step`, counted from 0. Past the horizon the last rate of those
    /// that have an end stays.
    pub fn rate(&self, peak: f64, step: u64, horizon: Horizon) -> f64 {
        if step < self.warmup_steps {
            let risen = (step + 1) as f64 / self.warmup_steps as f64;
            // Of the others nothing has fallen yet.
            let fallen = if self.kind == ScheduleKind::InverseSqrt { self.root(step) } else { 1.0 };
            return peak * risen / fallen;
        }
        // Behind step `from` the rate falls.
        let progress = |from: u64| {
            let span = horizon.steps().saturating_sub(from).max(1);
            (step.saturating_sub(from) as f64 / span as f64).min(1.0)
        };
        let share = match self.kind {
            ScheduleKind::Constant => return peak,
            ScheduleKind::InverseSqrt => {
                return peak / self.root(step);
            }
            ScheduleKind::Cosine => {
                0.5 * (1.0 + (std::f64::consts::PI * progress(self.warmup_steps)).cos())
            }
            ScheduleKind::Linear => 1.0 - progress(self.warmup_steps),
            ScheduleKind::ConstantThenDecay => {
                let from = self.stable_epochs(horizon.epochs) * horizon.steps_per_epoch;
                1.0 - progress(from.max(self.warmup_steps))
            }
        };
        peak * (self.min_lr_ratio + (1.0 - self.min_lr_ratio) * share)
    }

    /// What `inverse_sqrt` divides by.
    fn root(&self, step: u64) -> f64 {
        let reference = self.reference_steps.unwrap_or(1).max(1);
        (step as f64 / reference as f64).max(1.0).sqrt()
    }

    /// Whether the rate of a step depends on how many steps there are in all.
    pub fn depends_on_horizon(&self) -> bool {
        !matches!(self.kind, ScheduleKind::Constant | ScheduleKind::InverseSqrt)
    }

    /// The epochs of so many in which the rate has not begun to fall: a training of any other
    /// length that has as many of them is the same up to there. 0 where the schedule has none.
    pub fn stable_epochs(&self, epochs: u64) -> u64 {
        if self.kind != ScheduleKind::ConstantThenDecay {
            return 0;
        }
        let falling = (epochs as f64 * self.decay_share.unwrap_or(0.2)).round() as u64;
        epochs - falling.clamp(1, epochs.max(1)).min(epochs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(kind: ScheduleKind) -> Schedule {
        Schedule { kind, warmup_steps: 10, min_lr_ratio: 0.1, ..Schedule::default() }
    }

    fn steps(epochs: u64) -> Horizon {
        Horizon { epochs, steps_per_epoch: 1 }
    }

    #[test]
    fn warmup_rises_to_the_peak() {
        let s = schedule(ScheduleKind::Constant);
        assert_eq!(
            [s.rate(2.0, 0, steps(100)), s.rate(2.0, 9, steps(100)), s.rate(2.0, 99, steps(100))],
            [0.2, 2.0, 2.0]
        );
    }

    #[test]
    fn cosine_and_linear_fall_to_the_floor() {
        for kind in [ScheduleKind::Cosine, ScheduleKind::Linear] {
            let s = schedule(kind);
            let at = |step| s.rate(1.0, step, Horizon { epochs: 11, steps_per_epoch: 10 });
            assert_eq!(at(10), 1.0);
            assert!((at(60) - 0.55).abs() < 1e-12, "half way between peak and floor");
            assert!((at(110) - 0.1).abs() < 1e-12);
            assert!((at(500) - 0.1).abs() < 1e-12, "stays there");
        }
    }

    #[test]
    fn the_inverse_square_root_is_the_papers() {
        let s = Schedule { reference_steps: Some(100), ..schedule(ScheduleKind::InverseSqrt) };
        let at = |step| s.rate(0.01, step, steps(7));
        assert_eq!([at(4), at(10), at(100)], [0.005, 0.01, 0.01]);
        for step in [101, 400, 1_000_000] {
            assert!((at(step) - 0.01 / (step as f64 / 100.0).sqrt()).abs() < 1e-15);
        }
        assert_eq!(at(400), 0.005);
        // The warmup is a factor of its own.
        let early = Schedule { reference_steps: Some(2), ..s };
        assert_eq!(early.rate(0.01, 8, steps(7)), 0.01 * 0.9 / 2.0);
    }

    #[test]
    fn a_constant_rate_falls_in_the_last_epochs() {
        let s = schedule(ScheduleKind::ConstantThenDecay);
        let at = |step| s.rate(1.0, step, Horizon { epochs: 10, steps_per_epoch: 20 });
        assert_eq!([at(10), at(159), at(160)], [1.0; 3], "8 of 10 epochs");
        assert!(at(161) < 1.0 && (at(180) - 0.55).abs() < 1e-12);
        assert!((at(200) - 0.1).abs() < 1e-12 && (at(999) - 0.1).abs() < 1e-12);
        let stable = |share, epochs| {
            Schedule { decay_share: Some(share), ..s.clone() }.stable_epochs(epochs)
        };
        assert_eq!([stable(0.0, 10), stable(0.01, 10), stable(0.25, 10)], [9, 9, 7]);
        assert_eq!([stable(1.0, 10), stable(0.5, 1), stable(0.2, 0)], [0, 0, 0]);
    }

    /// Of every kind, with drawn lengths: what a training of one length has in common with a longer
    /// one has the same rates, bit by bit.
    #[test]
    fn a_longer_training_begins_with_the_rates_of_a_shorter_one() {
        use pipe_core::rng::{Purpose, stream};
        use rand::RngExt;
        let mut rng = stream(7, Purpose::Shuffle, 0, 0);
        for _ in 0..300 {
            let (short, more) = (rng.random_range(1..30u64), rng.random_range(0..30u64));
            let steps_per_epoch = rng.random_range(1..20u64);
            let schedule = Schedule {
                warmup_steps: rng.random_range(0..40),
                min_lr_ratio: rng.random(),
                reference_steps: Some(rng.random_range(1..200)),
                decay_share: Some(rng.random()),
                ..Schedule::default()
            };
            let rates = |kind, epochs, upto: u64| -> Vec<u64> {
                let schedule = Schedule { kind, ..schedule.clone() };
                let horizon = Horizon { epochs, steps_per_epoch };
                (0..upto * steps_per_epoch)
                    .map(|s| schedule.rate(0.3, s, horizon).to_bits())
                    .collect()
            };
            for kind in [ScheduleKind::Constant, ScheduleKind::InverseSqrt] {
                assert_eq!(rates(kind, short, short), rates(kind, short + more, short));
            }
            let kind = ScheduleKind::ConstantThenDecay;
            let stable = Schedule { kind, ..schedule.clone() };
            let same = stable.stable_epochs(short).min(stable.stable_epochs(short + more));
            assert!(same < short);
            assert_eq!(rates(kind, short, same), rates(kind, short + more, same));
        }
    }
}

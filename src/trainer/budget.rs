//! Trainings that are to end in time: how many epochs fit, and when their number has to be fixed for
//! the learning rate to fall before the end. Pure but for the clock.
//!
//! Up to there every length is the same training, so that the one that comes out is, bit by bit, a
//! training with so many `epochs`. The number is noted in the run's metadata, and holds from then
//! on.

use std::time::{Duration, Instant};

use chrono::{DateTime, Local, Utc};
use pipe_engine::policy::{Span, Until};
use pipe_runs::Metadata;
use serde::{Deserialize, Serialize};

use crate::stopping::{Ending, Trained};

/// Key of a manifest: the epochs that the schedule spans.
pub const HORIZON: &str = "schedule horizon";
/// What stands there of a training whose schedule is to end in time: a number comes on the way.
pub const IN_TIME: &str = "in time";

/// The share of what is left that is planned with: no epoch takes exactly as long as the last ones.
const PLANNED: f64 = 0.96;

/// When a training is to have ended.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TimeLimits {
    /// Of training in all, whatever pieces it is done in.
    pub budget: Option<Span>,
    /// By the clock.
    pub until: Option<Until>,
    /// When that is, for this process.
    deadline: Option<Instant>,
}

/// What an epoch takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EpochTime {
    /// Seconds of training.
    pub trained: f64,
    /// Seconds by the clock, with all that is done between epochs.
    pub passed: f64,
}

impl TimeLimits {
    pub fn new(budget: Option<Span>, until: Option<Until>) -> Self {
        Self { budget, until, deadline: None }
    }

    /// The same for a process that begins now. `walltime`: when its job is told to stop, if it is
    /// in one.
    pub fn begun(self, now: DateTime<Local>, walltime: Option<DateTime<Utc>>) -> Self {
        let end = self.until.and_then(|until| until.after(now, walltime));
        let left = end.map(|end| (end - now.to_utc()).to_std().unwrap_or(Duration::ZERO));
        let deadline = left.and_then(|left| Instant::now().checked_add(left));
        Self { deadline, ..self }
    }

    /// Whether there is any.
    pub fn is_set(&self) -> bool {
        self.budget.is_some() || self.until.is_some()
    }

    /// How people are told of them: `budget of 8h`, `until 07:00`.
    pub fn words(&self) -> String {
        let words = [self.budget_words(), self.until_words()];
        words.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    fn budget_words(&self) -> Option<String> {
        self.budget.map(|budget| format!("budget of {budget}"))
    }

    fn until_words(&self) -> Option<String> {
        self.until.map(|until| format!("until {until}"))
    }

    /// Whether a training that had so many seconds has used what it may.
    pub fn is_used(&self, seconds: f64) -> bool {
        self.budget.is_some_and(|budget| seconds >= budget.0.as_secs_f64())
    }

    /// Why a training that is so far has to end, if it has.
    pub(crate) fn ending(&self, trained: Trained) -> Option<Ending> {
        if self.is_used(trained.seconds) {
            return self.of_budget();
        }
        self.deadline.filter(|deadline| Instant::now() >= *deadline).and_then(|_| self.of_clock())
    }

    /// What it is called that a training has come to its end in time.
    pub fn in_time(&self) -> Option<Ending> {
        self.endings().next()
    }

    pub(crate) fn endings(&self) -> impl Iterator<Item = Ending> {
        self.of_budget().into_iter().chain(self.of_clock())
    }

    fn of_budget(&self) -> Option<Ending> {
        let reason = format!("{} is used", self.budget_words()?);
        Some(Ending { rule: "budget", reason })
    }

    fn of_clock(&self) -> Option<Ending> {
        Some(Ending { rule: "until", reason: self.until_words()? })
    }

    /// Whole epochs that fit into what is left; `None` if nothing limits them.
    pub fn fit(&self, trained: Trained, epoch: EpochTime) -> Option<u64> {
        let epochs = |left: f64, each: f64| (left.max(0.0) * PLANNED / each.max(1e-9)) as u64;
        let budget =
            self.budget.map(|b| epochs(b.0.as_secs_f64() - trained.seconds, epoch.trained));
        let left = |end: Instant| end.saturating_duration_since(Instant::now()).as_secs_f64();
        let clock = self.deadline.map(|end| epochs(left(end), epoch.passed));
        [budget, clock].into_iter().flatten().min()
    }
}

/// How many epochs a training has, once that is fixed; `None` as long as one more can be trained
/// before.
///
/// `trained`: complete epochs. `fit`: further ones that fit. `most`: that there may be in all.
/// `constant`: of so many epochs those in which the rate has not begun to fall; it grows with them.
/// More epochs than fit come out where less time is left than the rate takes to fall.
pub fn planned_epochs(
    trained: u64,
    fit: u64,
    most: u64,
    constant: impl Fn(u64) -> u64,
) -> Option<u64> {
    // The shortest training that is the same up to there.
    let shortest = |same: u64| (same..).find(|epochs| constant(*epochs) >= same);
    let longest = trained.saturating_add(fit).min(most);
    if shortest(trained + 1)? <= longest {
        return None;
    }
    Some(longest.max(shortest(trained)?))
}

/// The length of a run that is to end in time, once it is fixed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedLength {
    pub epochs: u64,
    /// What it was planned for: the words of [`TimeLimits`].
    pub limit: String,
}

/// Where it stands in a run's metadata.
const KEY: &str = "planned_length";

impl PlannedLength {
    pub fn of(run: &Metadata) -> Option<Self> {
        serde_json::from_value(run.other.get(KEY)?.clone()).ok()
    }

    /// Notes it. From here on the run is one of a training with so many epochs.
    pub fn note(&self, run: &mut Metadata) {
        run.other.insert(KEY.to_owned(), serde_json::json!(self));
        run.manifest.insert(HORIZON.to_owned(), self.epochs.into());
        run.epochs = self.epochs;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `constant_then_decay` has it.
    fn constant(share: f64) -> impl Fn(u64) -> u64 {
        move |epochs| {
            let falling = (epochs as f64 * share).round() as u64;
            epochs - falling.clamp(1, epochs.max(1)).min(epochs)
        }
    }

    /// Trains by a drawn pace. Gives the epochs, those with the full rate, and the seconds.
    fn simulate(seed: u64, budget: f64, share: f64, most: u64) -> (u64, u64, f64) {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut draw = |from: f64, to: f64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            from + (to - from) * (state >> 11) as f64 / (1u64 << 53) as f64
        };
        let (mean, constant) = (draw(1.0, 3.0), constant(share));
        let limits = TimeLimits::new(Some(Span(Duration::from_secs_f64(budget))), None);
        let (mut seconds, mut epochs, mut planned): (f64, u64, Option<(u64, u64)>) = (0.0, 0, None);
        while planned.is_none_or(|(all, _)| epochs < all) {
            seconds += mean * draw(0.95, 1.05);
            epochs += 1;
            if planned.is_none() {
                let each = seconds / epochs as f64;
                let trained = Trained { epochs, steps: 0, seconds };
                let fit = limits.fit(trained, EpochTime { trained: each, passed: each }).unwrap();
                let all = planned_epochs(epochs, fit, most, &constant);
                planned = all.map(|all| (all, epochs));
            }
        }
        let (all, at) = planned.unwrap();
        assert!(constant(all) >= at, "seed {seed}: the rate had to have begun to fall");
        (all, at, seconds / budget)
    }

    #[test]
    fn a_training_ends_in_time_and_not_long_before() {
        for seed in 0..200 {
            for share in [0.1, 0.2, 0.5] {
                let (_, _, used) = simulate(seed, 120.0, share, u64::MAX);
                assert!((0.9..1.0).contains(&used), "seed {seed}, share {share}: {used}");
            }
        }
    }

    #[test]
    fn a_training_of_a_few_epochs_has_one_of_each_kind() {
        for seed in 0..50 {
            let (all, at, _) = simulate(seed, 0.5, 0.2, u64::MAX);
            assert_eq!((all, at), (2, 1), "nothing is known before the first epoch has ended");
        }
    }

    #[test]
    fn no_more_epochs_than_asked_for() {
        for seed in 0..50 {
            let (all, at, used) = simulate(seed, 1e6, 0.2, 10);
            assert_eq!((all, at), (10, 8));
            assert!(used < 0.001);
        }
    }

    #[test]
    fn the_shortest_limit_counts() {
        let hour = |hours: u64| Span(Duration::from_secs(3600 * hours));
        let limits = |budget, until| TimeLimits::new(budget, until).begun(Local::now(), None);
        let (trained, each) = (
            Trained { seconds: 3600.0, ..Trained::default() },
            EpochTime { trained: 60.0, passed: 90.0 },
        );
        assert_eq!(limits(Some(hour(2)), None).fit(trained, each), Some(57));
        assert_eq!(limits(Some(hour(1)), None).fit(trained, each), Some(0));
        assert_eq!(limits(None, None).fit(trained, each), None);
        let past: Until = serde_json::from_value("2020-01-01 07:00".into()).unwrap();
        let over = limits(Some(hour(9)), Some(past));
        assert_eq!(over.fit(trained, each), Some(0));
        assert_eq!(over.ending(trained).unwrap().rule, "until");
        assert_eq!(
            limits(Some(hour(1)), None).ending(trained).unwrap().reason,
            "budget of 1h is used"
        );
        assert_eq!(over.words(), "budget of 9h, until 2020-01-01 07:00");
    }
}

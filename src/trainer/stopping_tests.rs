//! Drawn trainings that end early: in one piece, killed anywhere, extended by other settings.

use std::collections::BTreeMap;
use std::time::Duration;

use pipe_engine::policy::Span;
use pipe_runs::EpochRecord;
use pipe_runs::policy::{CheckpointPolicy, EarlyStopping, Mode};

use crate::stopping::{Ending, StoppingRules, Trained};

/// Numbers that a seed decides.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % end
    }
}

/// Optimizer steps of an epoch.
const STEPS: u64 = 4;
/// Seconds of a step.
const SECONDS: f64 = 0.25;

/// What a training is to do.
#[derive(Debug, Clone)]
struct Wanted {
    epochs: u64,
    early_stopping: Option<EarlyStopping>,
    max_steps: Option<u64>,
    max_time: Option<Span>,
}

impl Wanted {
    fn drawn(numbers: &mut Numbers) -> Self {
        let rule = EarlyStopping {
            monitor: None,
            mode: [Some(Mode::Min), Some(Mode::Max), None][numbers.below(3) as usize],
            patience: 1 + numbers.below(4),
            min_delta: numbers.below(3) as f64 / 4.0,
        };
        let time = Span(Duration::from_millis(250 * (1 + numbers.below(60))));
        Self {
            epochs: 1 + numbers.below(14),
            early_stopping: (numbers.below(4) > 0).then_some(rule),
            max_steps: (numbers.below(3) == 0).then(|| 1 + numbers.below(60)),
            max_time: (numbers.below(3) == 0).then_some(time),
        }
    }

    fn rules(&self) -> StoppingRules {
        let policy = CheckpointPolicy::default();
        StoppingRules {
            early_stopping: self.early_stopping.as_ref().map(|rule| rule.resolved(&policy)),
            max_steps: self.max_steps,
            max_time: self.max_time,
            ..StoppingRules::default()
        }
    }
}

/// A run as its metadata have it.
#[derive(Debug, Clone, Default, PartialEq)]
struct Run {
    history: Vec<EpochRecord>,
    /// Steps of the newest checkpoint.
    saved: u64,
}

/// How an epoch goes: always the same, as in a training that is resumed to the bit.
fn epoch(seed: u64, epoch: u64) -> EpochRecord {
    let mut numbers = Numbers(seed.wrapping_mul(31).wrapping_add(epoch));
    let value = match numbers.below(12) {
        0 => None,
        1 => Some(f64::INFINITY),
        n => Some(n as f64 / 4.0),
    };
    let metrics = value.map(|value| ("train_loss".to_owned(), value)).into_iter().collect();
    EpochRecord {
        epoch,
        global_step: STEPS * epoch,
        metrics,
        learning_rate: 0.1,
        seconds: STEPS as f64 * SECONDS,
        images_per_second: 1.0,
        data_wait: 0.0,
        saved: None,
    }
}

impl Run {
    /// Goes on from the newest checkpoint, of which there is one every `every` steps and at the
    /// end, and is killed in step `killed`, before it could be saved.
    fn train(&mut self, seed: u64, wanted: &Wanted, every: u64, killed: Option<u64>) {
        let saved = self.saved;
        self.history.retain(|e| e.epoch <= saved / STEPS);
        if self.ended(wanted, saved).is_some() {
            return;
        }
        for step in saved + 1..=wanted.epochs * STEPS {
            if step.is_multiple_of(STEPS) {
                self.history.push(epoch(seed, step / STEPS));
            }
            if killed == Some(step) {
                return;
            }
            let ending = self.ending(wanted, step);
            if ending.is_some() || step == wanted.epochs * STEPS || step.is_multiple_of(every) {
                self.saved = step;
            }
            if ending.is_some() {
                return;
            }
        }
    }

    /// Why it ends with a step, which it has just done.
    fn ending(&self, wanted: &Wanted, step: u64) -> Option<Ending> {
        if step.is_multiple_of(STEPS) {
            self.ended(wanted, step)
        } else {
            wanted.rules().ending_inside(self.trained(step))
        }
    }

    /// Why it is at its end with a step that it did whenever.
    fn ended(&self, wanted: &Wanted, step: u64) -> Option<Ending> {
        wanted.rules().ending(&self.history, self.trained(step))
    }

    fn trained(&self, step: u64) -> Trained {
        let (epochs, inside) = (step / STEPS, step % STEPS);
        Trained::of(&self.history, epochs, step, inside as f64 * SECONDS)
    }
}

/// A training of its own, in one piece.
fn straight(seed: u64, wanted: &Wanted) -> Run {
    let mut run = Run::default();
    run.train(seed, wanted, STEPS, None);
    run
}

#[test]
fn pieces_end_where_one_piece_ends() {
    let mut early = 0;
    for seed in 0..3000 {
        let mut numbers = Numbers(seed);
        let wanted = Wanted::drawn(&mut numbers);
        let whole = straight(seed, &wanted);
        early += u64::from(whole.saved < wanted.epochs * STEPS);
        let (mut run, every) = (Run::default(), 1 + numbers.below(9));
        for _ in 0..numbers.below(6) {
            let killed = 1 + numbers.below(wanted.epochs * STEPS);
            run.train(seed, &wanted, every, Some(killed));
        }
        run.train(seed, &wanted, every, None);
        assert_eq!(run, whole, "{seed}: {wanted:?}");
    }
    assert!(early > 1000, "{early} ended early");
}

#[test]
fn other_settings_extend_to_what_they_would_have_done_at_once() {
    let (mut extended, mut left) = (0, 0);
    for seed in 0..3000 {
        let mut numbers = Numbers(seed);
        let mut run = Run::default();
        for _ in 0..1 + numbers.below(3) {
            let killed = (numbers.below(3) == 0).then(|| 1 + numbers.below(14 * STEPS));
            run.train(seed, &Wanted::drawn(&mut numbers), 1, killed);
        }
        let (before, wanted) = (run.clone(), Wanted::drawn(&mut numbers));
        let whole = straight(seed, &wanted);
        run.train(seed, &wanted, 1, None);
        if before.saved <= whole.saved {
            assert_eq!(run, whole, "{seed}: {wanted:?} after {} steps", before.saved);
            extended += 1;
        } else {
            assert_eq!(run.saved, before.saved, "{seed}: it is left as it is");
            let is_done = run.saved >= wanted.epochs * STEPS;
            let ending = run.ended(&wanted, run.saved);
            assert!(ending.is_some() || is_done, "{seed}: and it is done");
            left += 1;
        }
    }
    assert!(extended > 500 && left > 500, "{extended} and {left}");
}

#[test]
fn more_patience_never_ends_earlier() {
    for seed in 0..2000 {
        let mut numbers = Numbers(seed);
        let wanted = Wanted::drawn(&mut numbers);
        let Some(rule) = &wanted.early_stopping else { continue };
        let patient = EarlyStopping { patience: rule.patience + 1, ..rule.clone() };
        let patient = Wanted { early_stopping: Some(patient), ..wanted.clone() };
        assert!(straight(seed, &wanted).saved <= straight(seed, &patient).saved, "{seed}");
        let without = Wanted { early_stopping: None, max_steps: None, max_time: None, ..wanted };
        assert_eq!(straight(seed, &without).saved, without.epochs * STEPS);
    }
}

#[test]
fn what_is_not_trained_yet_ends_nothing() {
    let policy = CheckpointPolicy::default();
    let rule = EarlyStopping { patience: 1, ..EarlyStopping::default() };
    let rules =
        StoppingRules { early_stopping: Some(rule.resolved(&policy)), ..StoppingRules::default() };
    // Epochs that were told, and whose checkpoint a crash has taken.
    let mut history: Vec<EpochRecord> = (1..=3).map(|n| epoch(1, n)).collect();
    for record in &mut history {
        record.metrics = BTreeMap::from([("train_loss".to_owned(), 1.0)]);
    }
    assert_eq!(rules.ending(&history, Trained::of(&history, 1, 4, 0.0)), None);
    let ending = rules.ending(&history, Trained::of(&history, 2, 8, 0.0)).unwrap();
    assert_eq!(
        (ending.rule, &*ending.reason),
        ("early_stopping", "no gain in 1 epoch of train_loss")
    );
}

#[test]
fn the_time_of_all_pieces_counts() {
    let wanted = |seconds| Wanted {
        epochs: 10,
        early_stopping: None,
        max_steps: None,
        max_time: Some(Span(Duration::from_secs_f64(seconds))),
    };
    let mut run = Run::default();
    run.train(1, &wanted(2.5), 1, Some(3));
    assert_eq!(run.saved, 2);
    run.train(1, &wanted(2.5), 1, Some(7));
    run.train(1, &wanted(2.5), 1, None);
    assert_eq!(run.saved, 10, "two epochs, and two steps of the third");
    let ending = run.ending(&wanted(2.5), 10).unwrap();
    assert_eq!((ending.rule, &*ending.reason), ("max_time", "max_time of 2s 500ms is up"));
    run.train(1, &wanted(2.4), 1, None);
    assert_eq!(run.saved, 10);
    run.train(1, &wanted(4.0), 1, None);
    assert_eq!(run.saved, 16);
}

#[test]
fn a_rung_ends_a_training_for_now() {
    let rules = StoppingRules { max_steps: Some(100), ..StoppingRules::default() };
    let at = |epochs, steps| Trained { epochs, steps, seconds: 0.0 };
    let reason = |until, trained| rules.clone().until(until).ending(&[], trained).map(|e| e.rule);
    assert_eq!(reason(None, at(9, 9)), None);
    assert_eq!(reason(Some(5), at(4, 9)), None);
    assert_eq!(reason(Some(5), at(5, 9)), Some("epochs"));
    assert_eq!(reason(Some(5), at(5, 100)), Some("max_steps"), "it is over for good");
}

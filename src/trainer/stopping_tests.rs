//! Drawn trainings that end early: in one piece, killed anywhere, extended by other settings.

use std::collections::BTreeMap;

use pipe_runs::EpochRecord;
use pipe_runs::policy::{CheckpointPolicy, EarlyStopping, Mode};

use crate::stopping::{StoppingRules, Trained};

/// Numbers that a seed decides.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % end
    }
}

/// What a training is to do.
#[derive(Debug, Clone)]
struct Wanted {
    epochs: u64,
    early_stopping: Option<EarlyStopping>,
}

impl Wanted {
    fn drawn(numbers: &mut Numbers) -> Self {
        let rule = EarlyStopping {
            monitor: None,
            mode: [Some(Mode::Min), Some(Mode::Max), None][numbers.below(3) as usize],
            patience: 1 + numbers.below(4),
            min_delta: numbers.below(3) as f64 / 4.0,
        };
        Self {
            epochs: 1 + numbers.below(14),
            early_stopping: (numbers.below(5) > 0).then_some(rule),
        }
    }

    fn rules(&self) -> StoppingRules {
        StoppingRules::new(self.early_stopping.as_ref(), &CheckpointPolicy::default())
    }
}

/// A run as its metadata have it.
#[derive(Debug, Clone, Default, PartialEq)]
struct Run {
    history: Vec<EpochRecord>,
    /// Epochs of the newest checkpoint.
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
        global_step: 5 * epoch,
        metrics,
        learning_rate: 0.1,
        seconds: 1.0,
        images_per_second: 1.0,
        data_wait: 0.0,
    }
}

impl Run {
    /// Goes on from the newest checkpoint, of which there is one every `every` epochs and at the
    /// end, and is killed before the checkpoint of `killed`.
    fn train(&mut self, seed: u64, wanted: &Wanted, every: u64, killed: Option<u64>) {
        let saved = self.saved;
        self.history.retain(|e| e.epoch <= saved);
        let ending = |run: &Self, epochs| wanted.rules().ending(&run.history, Trained { epochs });
        for number in self.saved + 1..=wanted.epochs {
            if ending(self, number - 1).is_some() {
                return;
            }
            self.history.retain(|e| e.epoch < number);
            self.history.push(epoch(seed, number));
            if killed == Some(number) {
                return;
            }
            let is_final = number == wanted.epochs || ending(self, number).is_some();
            if is_final || number.is_multiple_of(every) {
                self.saved = number;
            }
        }
    }

    fn epochs(&self) -> u64 {
        self.saved
    }
}

/// A training of its own, in one piece.
fn straight(seed: u64, wanted: &Wanted) -> Run {
    let mut run = Run::default();
    run.train(seed, wanted, 1, None);
    run
}

#[test]
fn pieces_end_where_one_piece_ends() {
    let mut early = 0;
    for seed in 0..3000 {
        let mut numbers = Numbers(seed);
        let wanted = Wanted::drawn(&mut numbers);
        let whole = straight(seed, &wanted);
        early += u64::from(whole.epochs() < wanted.epochs);
        let (mut run, every) = (Run::default(), 1 + numbers.below(3));
        for _ in 0..numbers.below(6) {
            let killed = 1 + numbers.below(wanted.epochs);
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
            let killed = (numbers.below(3) == 0).then(|| 1 + numbers.below(14));
            run.train(seed, &Wanted::drawn(&mut numbers), 1, killed);
        }
        let (before, wanted) = (run.clone(), Wanted::drawn(&mut numbers));
        let whole = straight(seed, &wanted);
        run.train(seed, &wanted, 1, None);
        if before.epochs() <= whole.epochs() {
            assert_eq!(run, whole, "{seed}: {wanted:?} after {} epochs", before.epochs());
            extended += 1;
        } else {
            assert_eq!(run.saved, before.saved, "{seed}: it is left as it is");
            let ending = wanted.rules().ending(&run.history, Trained { epochs: run.saved });
            assert!(ending.is_some() || run.saved >= wanted.epochs, "{seed}: and it is done");
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
        assert!(straight(seed, &wanted).epochs() <= straight(seed, &patient).epochs(), "{seed}");
        let without = Wanted { early_stopping: None, ..wanted };
        assert_eq!(straight(seed, &without).epochs(), without.epochs);
    }
}

#[test]
fn what_is_not_trained_yet_ends_nothing() {
    let policy = CheckpointPolicy::default();
    let rule = EarlyStopping { patience: 1, ..EarlyStopping::default() };
    let rules = StoppingRules::new(Some(&rule), &policy);
    // Epochs that were told, and whose checkpoint a crash has taken.
    let mut history: Vec<EpochRecord> = (1..=3).map(|n| epoch(1, n)).collect();
    for record in &mut history {
        record.metrics = BTreeMap::from([("train_loss".to_owned(), 1.0)]);
    }
    assert_eq!(rules.ending(&history, Trained { epochs: 1 }), None);
    let ending = rules.ending(&history, Trained { epochs: 2 }).unwrap();
    assert_eq!(
        (ending.rule, &*ending.reason),
        ("early_stopping", "no gain in 1 epoch of train_loss")
    );
}

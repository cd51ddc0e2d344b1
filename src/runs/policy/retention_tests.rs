//! What stays of drawn trainings, compared with a count over all their epochs.

use std::collections::BTreeMap;

use super::Action::{Delete, LinkBest};
use super::{CheckpointPolicy, KnownCheckpoint, Mode};

/// Metrics in which equal, missing and infinite ones are frequent.
fn sampled(seed: u64, epochs: u64) -> Vec<BTreeMap<String, f64>> {
    let mut state = seed;
    let mut next = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        state >> 33
    };
    let value = |drawn: u64| match drawn % 10 {
        0 => None,
        1 => Some(f64::NAN),
        2 => Some(f64::NEG_INFINITY),
        3 => Some(-0.0),
        n => Some((n as f64 - 6.0) / 2.0),
    };
    let metrics = |value: Option<f64>| {
        value.into_iter().map(|value| ("train_loss".to_owned(), value)).collect()
    };
    (0..epochs).map(|_| metrics(value(next()))).collect()
}

/// The `k` best of all epochs so far, found by counting how many are better.
fn top_by_counting(policy: &CheckpointPolicy, all: &[KnownCheckpoint]) -> Vec<u64> {
    let finite = |k: &KnownCheckpoint| {
        k.metrics.get("train_loss").copied().filter(|value| value.is_finite())
    };
    let is_before = |a: &KnownCheckpoint, b: &KnownCheckpoint| match (finite(a), finite(b)) {
        (Some(x), Some(y)) if x == y => a.epoch < b.epoch,
        (Some(x), Some(y)) => policy.mode.is_better(x, y),
        (a, _) => a.is_some(),
    };
    let is_among = |one: &&KnownCheckpoint| {
        let better = all.iter().filter(|other| is_before(other, one)).count() as u64;
        finite(one).is_some() && better < policy.keep_top_k.unwrap_or(1)
    };
    all.iter().filter(is_among).map(|k| k.epoch).collect()
}

#[test]
fn what_stays_is_the_newest_and_the_best_of_all_epochs_and_nothing_else() {
    for seed in 0..2000 {
        let policy = CheckpointPolicy {
            keep_last_n: Some(seed % 4).filter(|n| *n > 0),
            keep_top_k: Some(seed / 4 % 5).filter(|k| *k > 0),
            mode: if seed % 3 == 0 { Mode::Max } else { Mode::Min },
            ..Default::default()
        };
        let (mut all, mut standing) = (Vec::new(), Vec::<KnownCheckpoint>::new());
        for (epoch, metrics) in (1..).zip(sampled(seed, 12)) {
            let actions = policy.after_epoch(&standing, epoch, &metrics, false);
            let one = KnownCheckpoint { epoch, metrics, is_pinned: false };
            all.push(one.clone());
            standing.push(one);
            standing.retain(|k| !actions.contains(&Delete(k.epoch)));

            let newest = policy.keep_last_n.unwrap_or(u64::MAX);
            let best = top_by_counting(&policy, &all);
            let expected: Vec<u64> =
                (1..=epoch).filter(|e| epoch - e < newest || best.contains(e)).collect();
            let kept: Vec<u64> = standing.iter().map(|k| k.epoch).collect();
            assert_eq!(kept, expected, "seed {seed}, epoch {epoch}: {policy:?}");
            let first =
                top_by_counting(&CheckpointPolicy { keep_top_k: None, ..policy.clone() }, &all);
            let linked = policy.best(&standing).map(|k| k.epoch);
            assert_eq!(linked, first.first().copied(), "seed {seed}, epoch {epoch}");
            assert_eq!(actions.contains(&LinkBest), linked == Some(epoch));
        }
    }
}

#[test]
fn the_best_is_the_first_that_no_other_one_beats() {
    for seed in 0..2000 {
        let mode = if seed % 2 == 0 { Mode::Min } else { Mode::Max };
        let all: Vec<Option<f64>> =
            sampled(seed, seed % 7).iter().map(|m| m.get("train_loss").copied()).collect();
        let finite = |value: &Option<f64>| value.filter(|value| value.is_finite());
        let is_unbeaten =
            |value: f64| all.iter().filter_map(finite).all(|other| !mode.is_better(other, value));
        let expected = all.iter().position(|value| finite(value).is_some_and(is_unbeaten));
        let best = mode.best(all.iter().copied().enumerate());
        assert_eq!(best.map(|(place, _)| place), expected, "seed {seed}: {all:?}");
    }
}

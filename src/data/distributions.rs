//! Integers, fractions and permutations out of a random stream.
//!
//! Written here rather than taken from a library, because a new version of one may draw other
//! numbers, and then no run could be resumed.

use rand::Rng;

/// Uniform in `0..n`, for `n > 0`, by the high half of a 64 x 64-bit product (Lemire 2019, "Fast
/// Random Integer Generation in an Interval", without the rejection: its bias is below n / 2^64).
pub(crate) fn uniform_below(rng: &mut impl Rng, n: usize) -> usize {
    ((u128::from(rng.next_u64()) * n as u128) >> 64) as usize
}

/// Uniform in `[0, 1)`, a multiple of 2^-24.
pub(crate) fn standard_uniform(rng: &mut impl Rng) -> f32 {
    (rng.next_u32() >> 8) as f32 / (1u32 << 24) as f32
}

/// Uniform in `[low, high)`.
pub(crate) fn uniform(rng: &mut impl Rng, low: f32, high: f32) -> f32 {
    low + (high - low) * standard_uniform(rng)
}

/// Standard normal (Box and Muller 1958), from the next two numbers of the stream.
pub(crate) fn standard_normal(rng: &mut impl Rng) -> f32 {
    let radius = (-2.0 * (1.0 - standard_uniform(rng)).ln()).sqrt();
    radius * (std::f32::consts::TAU * standard_uniform(rng)).cos()
}

/// Puts `items` into a random order, each order equally likely (Fisher-Yates).
pub(crate) fn shuffle<T>(rng: &mut impl Rng, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        items.swap(last, uniform_below(rng, last + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipe_core::rng::{Purpose, stream};

    #[test]
    fn a_shuffle_keeps_every_item_and_moves_most() {
        let mut items: Vec<usize> = (0..1000).collect();
        shuffle(&mut stream(1, Purpose::Shuffle, 0, 0), &mut items);
        assert!(items.iter().enumerate().filter(|(i, item)| i == *item).count() < 10);
        items.sort();
        assert_eq!(items, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn the_order_never_changes() {
        // A change here would break the resume of every existing run.
        let mut items: Vec<usize> = (0..8).collect();
        shuffle(&mut stream(42, Purpose::Shuffle, 3, 0), &mut items);
        assert_eq!(items, [6, 7, 3, 5, 0, 2, 1, 4]);
        let mut rng = stream(42, Purpose::Augment, 3, 17);
        assert_eq!(
            (standard_uniform(&mut rng), uniform(&mut rng, -1.0, 1.0)),
            (0.8746148, 0.88259375)
        );
    }

    #[test]
    fn numbers_fill_their_range() {
        let mut rng = stream(1, Purpose::Shuffle, 0, 0);
        let mut seen = [0; 5];
        for _ in 0..5000 {
            seen[uniform_below(&mut rng, 5)] += 1;
        }
        assert!(seen.iter().all(|n| (850..1150).contains(n)), "{seen:?}");
        let (low, high) =
            (0..5000).map(|_| uniform(&mut rng, -2.0, 3.0)).fold((9.0f32, -9.0f32), |(l, h), x| {
                assert!((-2.0..3.0).contains(&x));
                (l.min(x), h.max(x))
            });
        assert!(low < -1.9 && high > 2.9);
    }
}

//! The step at which a loss jumped, by a rule that outliers do not spoil. Pure.
//!
//! A loss of small batches is noisy and falls slowly, so that neither its mean nor its last value says
//! what to expect. What is expected of a step is the median of the [`WINDOW`] losses before it; how far
//! losses usually lie from that is the median absolute deviation (MAD; Hampel 1974, "The influence
//! curve and its role in robust estimation") of all those differences, times 1.4826, which for a
//! normal distribution is its standard deviation. The largest rise in these units is the jump.
//!
//! Only the [`WINDOW`] losses before the range are looked at besides, so that what is found does not
//! depend on where a replay began.

/// Losses that say what is expected of the next one.
pub const WINDOW: usize = 32;
/// Fewer of them say nothing.
const LEAST: usize = 8;
/// Of fewer differences nobody knows how far losses usually lie from what is expected.
const FEWEST: usize = 16;
/// From this many deviations on a rise is taken for no noise: of normal noise one step in a thousand
/// million is so far off.
pub const THRESHOLD: f64 = 6.0;
/// Of a normal distribution, standard deviation over MAD.
const NORMAL: f64 = 1.4826;

/// The largest rise of a loss.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Jump {
    pub step: u64,
    pub loss: f64,
    /// The median of the losses before it.
    pub expected: f64,
    /// How much more it was, in deviations.
    pub deviations: f64,
}

impl Jump {
    /// Whether it is more than noise.
    pub fn is_certain(&self) -> bool {
        self.deviations >= THRESHOLD
    }
}

/// The largest rise among the steps from `from` on; those before it say what was expected. `losses`:
/// step and loss, in their order. `None` where there are too few to expect anything.
pub fn jump(losses: &[(u64, f64)], from: u64) -> Option<Jump> {
    let first = losses.partition_point(|(step, _)| step + (WINDOW as u64) < from);
    let losses = &losses[first..];
    let values: Vec<f64> = losses.iter().map(|(_, loss)| *loss).collect();
    let expected = |at: usize| {
        let before = &values[at.saturating_sub(WINDOW)..at];
        (before.len() >= LEAST).then(|| median(before.to_vec()))
    };
    let rises: Vec<(usize, f64, f64)> = (0..values.len())
        .filter_map(|at| expected(at).map(|expected| (at, expected, values[at] - expected)))
        .collect();
    if rises.len() < FEWEST {
        return None;
    }
    let middle = median(rises.iter().map(|(.., rise)| *rise).collect());
    let far = median(rises.iter().map(|(.., rise)| (rise - middle).abs()).collect());
    let largest = rises
        .into_iter()
        .filter(|(at, ..)| losses[*at].0 >= from)
        .max_by(|(.., a), (.., b)| a.total_cmp(b).then(std::cmp::Ordering::Greater))?;
    let (at, expected, rise) = largest;
    // Where most losses are equal, any other one is far off.
    let unit = (NORMAL * far).max(1e-9 * expected.abs()).max(f64::MIN_POSITIVE);
    let (step, loss) = losses[at];
    Some(Jump { step, loss, expected, deviations: (rise / unit).min(1e9) })
}

/// The middle of some numbers, or the mean of the two in the middle; 0 of none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[odd / 2],
        even => (values[even / 2 - 1] + values[even / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use rand::RngExt;
    use rand_distr::StandardNormal;

    use super::*;
    use crate::rng::{Purpose, stream};

    /// A falling loss with normal noise, of so many steps.
    fn falling(seed: u64, steps: u64) -> Vec<(u64, f64)> {
        let mut rng = stream(seed, Purpose::Noise, 0, 0);
        let mut noise = move || rng.sample::<f64, _>(StandardNormal);
        (1..=steps).map(|s| (s, 2.0 / (1.0 + 0.01 * s as f64) + 0.05 * noise())).collect()
    }

    #[test]
    fn a_spike_is_found_wherever_it_is_and_noise_is_none() {
        for seed in 0..200 {
            let mut losses = falling(seed, 300);
            let none = jump(&losses, 1).unwrap();
            assert!(!none.is_certain(), "seed {seed}: {none:?}");
            let at = 20 + (seed as usize * 37) % 270;
            losses[at].1 += 0.8;
            let found = jump(&losses, 1).unwrap();
            assert!(found.is_certain() && found.step == losses[at].0, "seed {seed}: {found:?}");
            assert!(found.deviations < 40.0, "{found:?}");
        }
    }

    #[test]
    fn of_a_loss_that_stays_high_the_first_step_is_the_jump() {
        let mut losses = falling(1, 200);
        losses.iter_mut().skip(120).for_each(|(_, loss)| *loss = 5.0);
        assert_eq!(jump(&losses, 1).unwrap().step, 121);
    }

    #[test]
    fn steps_before_the_range_say_only_what_is_expected() {
        let mut losses = falling(2, 200);
        losses[50].1 = 9.0;
        losses[150].1 = 4.0;
        assert_eq!(jump(&losses, 1).unwrap().step, 51);
        assert_eq!(jump(&losses, 100).unwrap().step, 151);
        // Where the replay began changes nothing.
        assert_eq!(jump(&losses[67..], 100), jump(&losses, 100));
        // Of few steps nothing is known.
        assert_eq!(jump(&losses[..LEAST + FEWEST - 1], 1), None);
        assert!(jump(&losses[..LEAST + FEWEST], 1).is_some());
    }

    #[test]
    fn of_equal_losses_any_other_one_is_a_jump() {
        let mut losses: Vec<(u64, f64)> = (1..=40).map(|step| (step, 1.0)).collect();
        assert_eq!(jump(&losses, 1).unwrap().deviations, 0.0);
        losses[30].1 = 1.1;
        assert!(jump(&losses, 1).unwrap().is_certain());
    }
}

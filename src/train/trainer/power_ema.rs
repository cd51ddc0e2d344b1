//! EMA weights by power functions, and any length of them afterwards.
//!
//! Source: Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models",
//! arXiv 2312.02696, section 3 and appendix C. A length is σ_rel: the standard deviation of the times
//! that an average is of, as a share of the training so far. Knows nothing of tensors.

/// Lengths that make sense: below, an average is of the last steps alone; above, of nearly all.
pub const LENGTHS: std::ops::RangeInclusive<f64> = 0.005..=0.28;

/// The exponent γ of the power function of a length: the largest root of `σ_rel² (γ + 2)²
/// (γ + 3) = γ + 1`.
pub fn exponent(length: f64) -> f64 {
    let above = |gamma: f64| (gamma + 1.0) / ((gamma + 2.0).powi(2) * (gamma + 3.0));
    // What is searched for falls in γ from 0 on.
    let (mut low, mut high) = (0.0f64, 1e6f64);
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if above(middle) > length * length { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// The share of the old average that step `step` keeps, counted from 1.
pub fn decay(gamma: f64, step: u64) -> f64 {
    (1.0 - 1.0 / step.max(1) as f64).powf(gamma + 1.0)
}

/// An average of the weights: its exponent, and the step that it was taken at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Profile {
    pub gamma: f64,
    pub step: f64,
}

impl Profile {
    /// The inner product with another one, in closed form.
    fn dot(self, other: Self) -> f64 {
        let (a, b) = (self.gamma, other.gamma);
        let ratio = self.step / other.step;
        let power = if self.step < other.step { b } else { -a };
        (a + 1.0) * (b + 1.0) * ratio.powf(power) / ((a + b + 1.0) * self.step.max(other.step))
    }
}

/// The factor of each snapshot in the sum that comes nearest to `wanted`, and how far
/// that is from it, as a share of it. `None` where the snapshots do not suffice to tell.
pub fn combination(snapshots: &[Profile], wanted: Profile) -> Option<(Vec<f64>, f64)> {
    let rows = snapshots.iter().map(|a| {
        let row = snapshots.iter().map(|b| a.dot(*b));
        row.chain([a.dot(wanted)]).collect::<Vec<f64>>()
    });
    let factors = solved(rows.collect())?;
    // At the least squares the rest is at right angles to what was found.
    let found: f64 = factors.iter().zip(snapshots).map(|(x, p)| x * p.dot(wanted)).sum();
    let rest = 1.0 - found / wanted.dot(wanted);
    Some((factors, rest.max(0.0).sqrt()))
}

/// Solves linear equations, each a row of factors and its right side, by elimination.
fn solved(mut rows: Vec<Vec<f64>>) -> Option<Vec<f64>> {
    let n = rows.len();
    for column in 0..n {
        let pivot =
            (column..n).max_by(|a, b| rows[*a][column].abs().total_cmp(&rows[*b][column].abs()))?;
        rows.swap(column, pivot);
        let top = rows[column].clone();
        if top[column].is_nan() || top[column].abs() <= 1e-300 {
            return None;
        }
        for row in rows.iter_mut().skip(column + 1) {
            let factor = row[column] / top[column];
            row.iter_mut().zip(&top).skip(column).for_each(|(x, t)| *x -= factor * t);
        }
    }
    let mut found = vec![0.0; n];
    for row in (0..n).rev() {
        let known: f64 = (row + 1..n).map(|at| rows[row][at] * found[at]).sum();
        found[row] = (rows[row][n] - known) / rows[row][row];
    }
    found.iter().all(|factor| factor.is_finite()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_the_relative_deviation_of_the_times_that_an_average_is_of() {
        for length in [0.01, 0.05, 0.1, 0.2, 0.28] {
            let gamma = exponent(length);
            // Moments of (γ + 1) τ^γ on [0, 1].
            let (mean, square) = ((gamma + 1.0) / (gamma + 2.0), (gamma + 1.0) / (gamma + 3.0));
            let deviation = (square - mean * mean).sqrt();
            assert!((deviation - length).abs() < 1e-9, "{length}: {deviation}");
        }
        // The paper's section 3.1: σ_rel of 0.05 and 0.10 are γ of 16.97 and 6.94.
        assert!((exponent(0.05) - 16.97).abs() < 0.01, "{}", exponent(0.05));
        assert!((exponent(0.10) - 6.94).abs() < 0.01, "{}", exponent(0.10));
    }

    /// Averages of a sequence, as a training makes them: after each step, by exponent.
    fn averages(values: &[f64], gamma: f64) -> Vec<f64> {
        let mut mean = 0.0;
        let step = |(at, value): (usize, &f64)| {
            let keep = decay(gamma, at as u64 + 1);
            mean = keep * mean + (1.0 - keep) * value;
            mean
        };
        values.iter().enumerate().map(step).collect()
    }

    #[test]
    fn the_average_of_a_training_is_that_of_the_power_function() {
        // Of τ^2 up to t it is (γ + 1) / (γ + 3) t², but for the steps' size.
        let values: Vec<f64> = (1..=4000).map(|t| f64::from(t).powi(2)).collect();
        for gamma in [6.94, 16.97] {
            let expected = (gamma + 1.0) / (gamma + 3.0) * 4000.0f64.powi(2);
            let found = *averages(&values, gamma).last().unwrap();
            assert!((found / expected - 1.0).abs() < 3e-3, "{found} {expected}");
        }
    }

    #[test]
    fn the_inner_product_is_the_integral() {
        let profile = |p: Profile, at: f64| {
            if at > p.step { 0.0 } else { (p.gamma + 1.0) * (at / p.step).powf(p.gamma) / p.step }
        };
        let all = [(6.9, 80.0), (16.9, 80.0), (6.9, 50.0), (11.0, 100.0)];
        let all = all.map(|(gamma, step)| Profile { gamma, step });
        for a in all {
            for b in all {
                let parts = 200_000;
                let each = 100.0 / f64::from(parts);
                let sum: f64 = (0..parts)
                    .map(|i| (f64::from(i) + 0.5) * each)
                    .map(|at| profile(a, at) * profile(b, at) * each)
                    .sum();
                assert!((a.dot(b) / sum - 1.0).abs() < 1e-3, "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn any_length_comes_out_of_snapshots_of_two() {
        // A walk, as weights make one.
        let mut state = 1u64;
        let mut walk = 0.0;
        let values: Vec<f64> = (0..2000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                walk += (state >> 33) as f64 / f64::from(1u32 << 31) - 0.5;
                walk
            })
            .collect();
        let lengths = [0.05, 0.10].map(exponent);
        let kept: Vec<_> = lengths.map(|gamma| averages(&values, gamma)).into();
        let mut snapshots = Vec::new();
        let mut means = Vec::new();
        for step in (125..=2000).step_by(125) {
            for (gamma, kept) in lengths.iter().zip(&kept) {
                snapshots.push(Profile { gamma: *gamma, step: f64::from(step) });
                means.push(kept[step as usize - 1]);
            }
        }
        let at = |gamma: f64| {
            let wanted = Profile { gamma, step: 2000.0 };
            let (factors, error) = combination(&snapshots, wanted).unwrap();
            assert!(error < 0.1, "{gamma}: {error}");
            assert!((factors.iter().sum::<f64>() - 1.0).abs() < 5e-3);
            factors.iter().zip(&means).map(|(factor, mean)| factor * mean).sum::<f64>()
        };
        let spread = values.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        for length in [0.03, 0.05, 0.075, 0.1, 0.15, 0.2] {
            let gamma = exponent(length);
            let (found, own) = (at(gamma), *averages(&values, gamma).last().unwrap());
            assert!((found - own).abs() < 2e-3 * spread, "{length}: {found}, not {own}");
        }
        // What was kept comes out as itself.
        assert!((at(lengths[0]) - kept[0][1999]).abs() < 1e-6 * spread);
    }

    #[test]
    fn the_same_snapshot_twice_tells_nothing_more() {
        let one = Profile { gamma: 7.0, step: 10.0 };
        let found = combination(&[one, one], one);
        assert!(found.is_none_or(|(factors, _)| (factors.iter().sum::<f64>() - 1.0).abs() < 1e-6));
    }
}

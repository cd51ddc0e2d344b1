//! Searches: what is written in the file, and what they come to.

use std::collections::BTreeMap;

use super::trained::value;
use crate::random::Random;

/// A pipeline with one.
pub fn pipeline(rates: &[u64], halving: &str) -> String {
    format!(
        "name: p\nstages:\n  base: {{ kind: train, matrix: {{ rate: {rates:?} }}, halving: {halving} }}\n  all: {{ kind: gather, over: base }}\n"
    )
}

/// What a search comes to: epochs of each rate. Written down anew, without the code that is tested.
pub fn expected(
    rates: &[u64],
    rungs: &[u64],
    (parts, of): (usize, usize),
    max: bool,
) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    let mut left: Vec<u64> = rates.to_vec();
    for &rung in rungs {
        all.extend(left.iter().map(|rate| (format!("base@rate={rate}"), rung)));
        let mut ranked: Vec<(usize, u64)> = left.iter().copied().enumerate().collect();
        let key = |rate: u64| if max { -value(rate, rung) } else { value(rate, rung) };
        ranked.sort_by(|a, b| key(a.1).total_cmp(&key(b.1)));
        ranked.truncate((left.len() * parts / of).max(1));
        ranked.sort_unstable();
        left = ranked.into_iter().map(|(_, rate)| rate).collect();
    }
    all
}

/// A search, and changes of it that come one after the other.
pub struct Search {
    pub rates: Vec<u64>,
    pub rungs: Vec<u64>,
    pub keep: (usize, usize),
    pub max: bool,
    pub asynchronous: bool,
}

impl Search {
    pub fn drawn(random: &mut Random) -> Self {
        let mut rungs = vec![1 + random.below(3) as u64];
        for _ in 0..1 + random.below(3) {
            let last = rungs.last().copied().unwrap();
            rungs.push(last + 1 + random.below(4) as u64);
        }
        let keep = [(1, 2), (1, 3), (2, 5), (3, 4)][random.below(4)];
        let rates = (0..2 + random.below(9) as u64).map(|i| 10 + i).collect();
        Self { rates, rungs, keep, max: random.below(2) == 0, asynchronous: false }
    }

    /// One that asks for more: nothing that was trained is in vain.
    pub fn change(&mut self, random: &mut Random) {
        match random.below(3) {
            0 => self.rates.extend([100 + self.rates.len() as u64]),
            1 => self.keep = (3, 4),
            _ => self.rungs.push(self.rungs.last().unwrap() + 1 + random.below(3) as u64),
        }
    }

    pub fn text(&self) -> String {
        let (parts, of) = self.keep;
        let mode = if self.max { "max" } else { "min" };
        pipeline(
            &self.rates,
            &format!(
                "{{ rungs: {:?}, keep: {parts}/{of}, monitor: loss, mode: {mode}, asynchronous: {} }}",
                self.rungs, self.asynchronous
            ),
        )
    }
}

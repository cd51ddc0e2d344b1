//! How often a progress line is renewed.

use std::time::{Duration, Instant};

/// Renews the progress line often enough to look alive, too seldom to cost anything.
#[derive(Default)]
pub(super) struct Throttle(Option<Instant>);

impl Throttle {
    pub fn due(&mut self) -> bool {
        let due = self.0.is_none_or(|at| at.elapsed() > Duration::from_millis(100));
        if due {
            self.0 = Some(Instant::now());
        }
        due
    }
}

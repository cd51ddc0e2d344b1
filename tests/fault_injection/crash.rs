//! The process ends, as by SIGKILL, at every change of the disk in turn and at random moments.

use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::project::Project;
use crate::results::{Options, Results, ensure};
use crate::state::{
    RUN, chain, changes, goes_on, nothing_reported_is_missing, run_with, text, undisturbed,
};

pub fn section(options: &Options, results: &mut Results) {
    let expected = undisturbed();
    let last = changes();
    let all: Vec<usize> = (1..=last).collect();
    results.each("killed at each change of the disk", &all, |at| {
        let project = chain();
        killed(&project, *at)?;
        goes_on(&project, &expected)
    });
    // A crash while the first one is being put in order.
    let twice: Vec<(usize, usize)> =
        options.some_of(last).into_iter().map(|at| (at, 1 + at * 7919 % 40)).collect();
    results.each("killed again while putting that in order", &twice, |(first, second)| {
        let project = chain();
        killed(&project, *first)?;
        let again = run_with(&project, &format!("kill@{second}"));
        nothing_reported_is_missing(&project, &again.stderr)?;
        goes_on(&project, &expected)
    });
    let (kills, rounds) = (AtomicUsize::new(0), options.rounds);
    results.each("killed at random moments", &(0..rounds).collect::<Vec<_>>(), |round| {
        // Several kills make one training, so that there are fewer trainings than rounds.
        if kills.load(Ordering::Relaxed) >= rounds {
            return Ok(());
        }
        let project = chain();
        let mut random = Random(0x9e37_79b9 + *round as u64);
        loop {
            let mut child = project.start(&RUN);
            std::thread::sleep(Duration::from_millis(random.below(300)));
            let _ = child.kill();
            let ended = child.wait().map_err(|e| e.to_string())?;
            kills.fetch_add(1, Ordering::Relaxed);
            match ended.signal() {
                Some(9) => {}
                _ => {
                    ensure(ended.success(), || format!("ended with {ended}"))?;
                    return goes_on(&project, &expected);
                }
            }
        }
    });
    results.tried(kills.into_inner());
}

fn killed(project: &Project, at: usize) -> Result<(), String> {
    let output = run_with(project, &format!("kill@{at}"));
    ensure(output.status.signal() == Some(9), || {
        format!("it was to be killed, and ended with {}: {}", output.status, text(&output.stderr))
    })?;
    nothing_reported_is_missing(project, &output.stderr)
}

/// Numbers that look random (xorshift64, Marsaglia 2003), the same in each run of the test.
pub struct Random(pub u64);

impl Random {
    /// Less than `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end.max(1)
    }
}

//! How a running stage tells how far it is, and ends early.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use pipe_core::progress::{Event, Unit};
use pipe_core::stop::Signal;
use pipe_engine::kind::{Failure, RunContext, StageError};

use crate::data::Progress;

/// Tells how many of how many items are done, and whether to go on.
pub(super) fn tell(context: &RunContext, what: &str, done: u64, total: u64) -> bool {
    tell_in(Unit::Items, context, what, done, total)
}

/// Tells how many of how many steps of the sampler are done, and whether to go on.
pub(super) fn tell_sampling(context: &RunContext, done: u64, total: u64) -> bool {
    tell_in(Unit::Steps, context, "sampling", done, total)
}

fn tell_in(unit: Unit, context: &RunContext, what: &str, done: u64, total: u64) -> bool {
    let (what, total) = (what.to_owned(), Some(total));
    context.event(Event::Preparing { what, done, total, unit });
    context.stop.requested().is_none()
}

/// What was found; none is a stage that was stopped.
pub(super) fn unless_stopped<T>(context: &RunContext, found: Option<T>) -> Result<T, StageError> {
    let stopped = || {
        let signal = context.stop.requested().unwrap_or(Signal::Terminate);
        StageError::new(Failure::Interrupted(signal), format!("stopped by {}", signal.name()))
    };
    found.ok_or_else(stopped)
}

/// Passes progress on a few times a second.
pub(super) struct Throttled<'a, 'b> {
    context: &'a RunContext<'b>,
    last: Mutex<Option<Instant>>,
}

impl<'a, 'b> Throttled<'a, 'b> {
    pub fn new(context: &'a RunContext<'b>) -> Self {
        Self { context, last: Mutex::new(None) }
    }

    fn report(&self, what: String, done: u64, total: Option<u64>, unit: Unit) {
        let Ok(mut last) = self.last.lock() else { return };
        let due =
            last.is_none_or(|at| at.elapsed() > Duration::from_millis(100)) || total == Some(done);
        if due {
            *last = Some(Instant::now());
            self.context.event(Event::Preparing { what, done, total, unit });
        }
    }
}

impl Progress for Throttled<'_, '_> {
    fn downloaded(&self, name: &str, done: u64, total: Option<u64>) {
        self.report(format!("downloading {name}"), done, total, Unit::Bytes);
    }

    fn indexed(&self, done: usize) {
        self.report("reading images".to_owned(), done as u64, None, Unit::Items);
    }

    fn decoded(&self, done: usize, total: usize) {
        self.report("preparing images".to_owned(), done as u64, Some(total as u64), Unit::Items);
    }

    fn stopped(&self) -> bool {
        self.context.stop.requested().is_some()
    }
}

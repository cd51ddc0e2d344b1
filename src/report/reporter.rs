//! What is told of the work of stages while it goes on.

use pipe_core::progress::EventListener;

/// A report that can be closed, so that a progress bar leaves no half line.
pub trait Reporter: EventListener {
    fn finish(&self) {}
}

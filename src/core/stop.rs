//! The wish to stop, set by a signal handler and read by running stages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// The signals that end a run with a checkpoint saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Signal {
    /// Ctrl-C
    #[serde(rename = "SIGINT")]
    Interrupt,
    /// What schedulers and service managers send
    #[serde(rename = "SIGTERM")]
    Terminate,
    /// The terminal was closed
    #[serde(rename = "SIGHUP")]
    HangUp,
    /// The stage's own time limit
    #[serde(rename = "timeout")]
    Timeout,
}

impl Signal {
    /// As messages name it: `SIGTERM`, `Ctrl-C`.
    pub fn name(self) -> &'static str {
        match self {
            Signal::Interrupt => "Ctrl-C",
            Signal::Terminate => "SIGTERM",
            Signal::HangUp => "SIGHUP (its terminal was closed)",
            Signal::Timeout => "its timeout",
        }
    }

    /// Exit code of the process: 130 after Ctrl-C, 75 (try again later) after SIGTERM or SIGHUP, 1
    /// otherwise.
    pub fn exit_code(self) -> u8 {
        match self {
            Signal::Interrupt => 130,
            Signal::Terminate | Signal::HangUp => 75,
            Signal::Timeout => 1,
        }
    }
}

/// A flag shared by the signal thread and the stages.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    flag: Arc<AtomicU8>,
    deadline: Option<Instant>,
}

impl Stop {
    /// The same flag, raised besides when the time is over.
    pub fn within(&self, limit: Option<Duration>) -> Self {
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        Self { flag: self.flag.clone(), deadline }
    }

    /// Asks to stop. The first signal counts.
    pub fn request(&self, signal: Signal) {
        let code = match signal {
            Signal::Interrupt => 1,
            Signal::Terminate => 2,
            Signal::Timeout => 3,
            Signal::HangUp => 4,
        };
        let _ = self.flag.compare_exchange(0, code, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// The reason to stop, once there is one. The first one stays.
    pub fn requested(&self) -> Option<Signal> {
        match self.flag.load(Ordering::SeqCst) {
            1 => Some(Signal::Interrupt),
            2 => Some(Signal::Terminate),
            3 => Some(Signal::Timeout),
            4 => Some(Signal::HangUp),
            _ => self.deadline.is_some_and(|at| Instant::now() >= at).then_some(Signal::Timeout),
        }
    }

    /// Waits, and comes back early when asked to stop: `false` then.
    pub fn sleep(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        while self.requested().is_none() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
        false
    }
}

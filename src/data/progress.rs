//! How long work on data reports where it stands. Knows nothing of terminals.

/// Receives progress; every method does nothing unless overridden, and `()` ignores all of it.
pub trait Progress: Sync {
    /// `done` bytes of the file `name` have arrived; `total` when the server says how many there
    /// are.
    fn downloaded(&self, name: &str, done: u64, total: Option<u64>) {
        let _ = (name, done, total);
    }

    /// The content of `done` files is known.
    fn indexed(&self, done: usize) {
        let _ = done;
    }

    /// `done` of `total` images are drawn, read or decoded.
    fn decoded(&self, done: usize, total: usize) {
        let _ = (done, total);
    }

    /// Whether the work is to end early.
    fn stopped(&self) -> bool {
        false
    }
}

impl Progress for () {}

//! Who sends events to addresses: this crate opens no connection.

use std::time::Duration;

/// Sends events to addresses.
pub trait HookClient: Send + Sync {
    /// Sends `body`, a JSON object, to `url` by a POST. Comes back within `limit`.
    ///
    /// # Errors
    ///
    /// Why it did not arrive, in words.
    fn post(&self, url: &str, body: &str, limit: Duration) -> Result<(), String>;
}

//! What a run writes down while it goes: metrics as text and for TensorBoard.

mod metrics;
mod tensorboard;

pub use metrics::MetricsFile;
pub use tensorboard::EventFile;

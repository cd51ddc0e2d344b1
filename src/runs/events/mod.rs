//! What a run writes down while it goes: metrics as text and for TensorBoard, and what it takes of
//! its machine.

mod metrics;
mod tensorboard;
mod usage;

pub use metrics::MetricsFile;
pub use tensorboard::EventFile;
pub use usage::{Usage, UsageMeter};

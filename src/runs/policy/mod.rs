//! Which checkpoints are kept, decided purely: a policy returns actions, and
//! [`CheckpointManager`](crate::CheckpointManager) carries them out. When a training ends early.

mod checkpoint;
mod early_stopping;
pub mod metric;
#[cfg(test)]
mod retention_tests;

pub use checkpoint::{Action, CheckpointPolicy, InvalidPolicy, KnownCheckpoint, Mode};
pub use early_stopping::EarlyStopping;

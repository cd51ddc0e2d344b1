//! Which checkpoints are kept, decided purely: a policy returns actions, and
//! [`CheckpointManager`](crate::CheckpointManager) carries them out.

mod checkpoint;
pub mod metric;
#[cfg(test)]
mod retention_tests;

pub use checkpoint::{Action, CheckpointPolicy, InvalidPolicy, KnownCheckpoint, Mode};

//! Which checkpoints are kept, decided purely: a policy returns actions, and
//! [`CheckpointManager`](crate::CheckpointManager) carries them out.

mod checkpoint;

pub use checkpoint::{Action, CheckpointPolicy, InvalidPolicy, KnownCheckpoint, MONITORS, Mode};

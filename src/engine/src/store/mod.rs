//! What stands on disk: checkpoints, run directories, metadata, records.

pub mod tensor;

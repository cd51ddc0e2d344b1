//! Policies: what to keep, decided purely. The store carries the decisions out.

pub mod checkpoint;

pub use checkpoint::{Action, CheckpointPolicy, InvalidPolicy, Known, Mode};

//! Policies: what to keep, decided purely. The store carries the decisions out.

pub mod checkpoint;
mod execution_options;
mod slurm;

pub use checkpoint::{Action, CheckpointPolicy, InvalidPolicy, KnownCheckpoint, MONITORS, Mode};
pub use execution_options::{
    Adjustment, ExecutionOptions, OnFailure, Resources, Resume, Retry, RetryChange, RetryDecision,
    Retryable, Span,
};
pub use slurm::{Slurm, Walltime};

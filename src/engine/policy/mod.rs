//! Policies: what to keep, decided purely. The store carries the decisions out.

pub mod checkpoint;
mod conduct;
mod slurm;

pub use checkpoint::{Action, CheckpointPolicy, InvalidPolicy, Known, MONITORS, Mode};
pub use conduct::{
    Adjustment, Again, Change, Conduct, OnFailure, Resources, Resume, Retry, Retryable, Span,
};
pub use slurm::{Slurm, Walltime};

//! Policies of stages: what follows a failure, what a job asks for. Pure.

mod conduct;
mod slurm;

pub use conduct::{
    Adjustment, Again, Change, Conduct, OnFailure, Resources, Resume, Retry, Retryable, Span,
};
pub use slurm::{Slurm, Walltime};

pub use pipe_runs::policy::{Action, CheckpointPolicy, InvalidPolicy, Known, MONITORS, Mode};

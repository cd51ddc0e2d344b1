//! Policies of stages: what follows a failure, what a job asks for. Pure.

mod execution_options;
mod slurm;
mod span;

pub use execution_options::{
    Adjustment, ExecutionOptions, OnFailure, Resources, Resume, Retry, RetryChange, RetryDecision,
    Retryable,
};
pub use slurm::{Slurm, Walltime};
pub use span::Span;

//! Policies of stages: what follows a failure, what a job asks for. Pure.

mod execution_options;
mod halving;
mod hook_list;
mod hook_url;
mod hooks;
mod share;
mod slurm;
mod span;
mod until;

pub use execution_options::{
    Adjustment, ExecutionOptions, OnFailure, Resources, Resume, Retry, RetryChange, RetryDecision,
    Retryable,
};
pub use halving::{Better, Course, Halving, MemberProgress, Place};
pub use hook_list::HookList;
pub use hooks::{Hook, Hooks};
pub(crate) use hooks::{HookAction, HookEvent};
pub use share::Share;
pub use slurm::{Slurm, Tasks, Walltime};
pub use span::Span;
pub use until::{Moment, Until};

//! Stages as jobs of Slurm. Each stage that the plan would run becomes one job, which runs this
//! same program on a node for that stage alone; what is up to date is known there from the same
//! records and content digests.
//!
//! Slurm itself is reached only through [`Cluster`]. What is kept about jobs is in `state::Jobs`,
//! and whether a stage was done is said by its record, not by Slurm.

mod cluster;
mod command;
mod current_job;
mod executor;
mod follow;
mod outcome;
mod queue;
mod script;
mod submit;
mod tail;

pub use cluster::{Cluster, SlurmError};
pub use command::Slurm;
pub use current_job::{AfterStop, CurrentJob, after_stop};
pub use executor::SlurmExecutor;
pub use follow::{JobMonitor, follow};
pub use queue::{JobDetails, JobState};
pub use script::Invocation;
pub use submit::{Submission, submit};
pub use tail::last_lines;

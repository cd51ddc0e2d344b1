//! Where the stages of a plan run: in this process, or as jobs of a cluster.

use std::collections::HashMap;

use pipe_core::ids::StageId;
use pipe_fs::FileError;

use super::execution::{Execution, InspectedStage, Summary};
use super::scheduler::execute;
use super::slurm::SlurmError;
use crate::plan::Plan;

/// Carries a plan out.
pub trait Executor {
    /// Runs the stages that the plan says, each after those that it needs. How they ended is in
    /// the summary.
    ///
    /// # Errors
    ///
    /// The state of the project could not be written, or the cluster could not be reached.
    fn run(
        &self,
        execution: &Execution,
        plan: &Plan,
        inspected: HashMap<StageId, InspectedStage>,
    ) -> Result<Summary, ExecutorError>;
}

/// What ends a run as a whole.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Slurm(#[from] SlurmError),
}

/// In threads of this process.
pub struct LocalExecutor;

impl Executor for LocalExecutor {
    fn run(
        &self,
        execution: &Execution,
        plan: &Plan,
        inspected: HashMap<StageId, InspectedStage>,
    ) -> Result<Summary, ExecutorError> {
        Ok(execute(execution, plan, inspected)?)
    }
}

//! How a process leaves a run.

use super::CheckpointManager;
use crate::{Metadata, Run, Status, StoreError};

impl CheckpointManager {
    /// Notes in a run that its start failed, where it says that it is running and nobody holds it.
    pub fn record_failed_start(run: &Run, why: &str) -> Result<(), StoreError> {
        let _lock = run.lock()?;
        let mut metadata = Metadata::load(&run.metadata_path())?;
        if metadata.status == Status::Running {
            (metadata.status, metadata.message) = (Status::Failed, Some(why.to_owned()));
            metadata.save(run.disk(), &run.metadata_path())?;
        }
        Ok(())
    }

    /// How the run ended.
    pub fn end(&mut self, status: Status, message: Option<String>) -> Result<(), StoreError> {
        self.update(|m| {
            m.status = status;
            m.message = message;
        })
    }
}

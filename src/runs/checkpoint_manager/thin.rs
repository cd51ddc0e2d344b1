//! Gives up checkpoints of a completed run that a person does not want to keep any longer.

use super::CheckpointManager;
use crate::{Metadata, Run, StoreError, checkpoint};

impl CheckpointManager {
    /// Removes the checkpoints of some epochs from a run which is still as it was when they were
    /// chosen: `false` if somebody has it, or went on with it since.
    ///
    /// The metadata list them no longer before the first file goes, so that they never name a file
    /// that is not there. What a crash leaves is a file that no metadata list.
    pub fn thin(run: &Run, then: &Metadata, epochs: &[u64]) -> Result<bool, StoreError> {
        let _lock = match run.lock() {
            Err(StoreError::Held { .. }) => return Ok(false),
            taken => taken?,
        };
        if run.metadata()? != *then {
            return Ok(false);
        }
        let mut metadata = Metadata::load(&run.metadata_path())?;
        let gone: Vec<_> =
            metadata.checkpoints.extract_if(.., |c| epochs.contains(&c.epoch)).collect();
        metadata.forget_recomputed(epochs);
        metadata.save(run.disk(), &run.metadata_path())?;
        for record in gone {
            checkpoint::remove(run.disk(), &run.folder.join(record.path))?;
        }
        Ok(true)
    }
}

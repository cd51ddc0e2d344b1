//! What ends a training before its last epoch.

use pipe_engine::kind::StageError;
use pipe_trainer::{Ending, Trained};

use super::{Epoch, Trainer};

impl Trainer<'_, '_> {
    /// Why the training has come to its end before its last epoch, if it has.
    pub(super) fn ending(&mut self) -> Result<Option<Ending>, StageError> {
        let (trained, ending) = self.recorder.ending(&self.position, &self.stopping)?;
        let seconds = trained.seconds - self.position.seconds_in_epoch;
        self.trained_before = Trained { seconds, ..trained };
        Ok(ending)
    }

    /// The same between two steps of an epoch.
    pub(super) fn ending_inside(&self, epoch: &Epoch) -> Option<Ending> {
        let seconds = self.trained_before.seconds + epoch.seconds();
        let steps = self.position.global_step;
        self.stopping.ending_inside(Trained { seconds, steps, ..self.trained_before })
    }
}

//! A new run that does not begin at its first step: another run of the stage is the same training
//! up to some epoch, and has a checkpoint of it. What comes out is, bit by bit, what a training
//! from the first step would give. Looks at the disk and changes nothing.

use std::path::PathBuf;

use pipe_engine::kind::StageId;
use pipe_fs::ProjectRoot;
use pipe_runs::{
    Checkpoint, CheckpointError, CheckpointManager, Loaded, Metadata, Run, StoreError,
};

use crate::run_catalog::RunCatalog;
use crate::run_match::RunCriteria;
use crate::stopping::{Trained, note_seconds_before, seconds_before};
use crate::training::Training;

/// What a run has in common with the training that is wanted.
pub struct Branch {
    pub run: Run,
    /// The last epoch that both have in common.
    pub until: u64,
    /// The newest checkpoint up to there that is kept, with its epoch.
    checkpoint: Option<(u64, PathBuf)>,
}

impl Branch {
    /// For the plan, behind what differs.
    pub fn in_words(&self) -> String {
        let (number, until) = (self.run.number, self.until);
        match &self.checkpoint {
            Some((epoch, _)) => {
                format!("goes on from epoch {epoch} of run {number}, up to which both are the same")
            }
            None => format!(
                "begins at its first epoch: run {number} is the same up to epoch {until}, and has no checkpoint of that \
                 any more"
            ),
        }
    }

    /// Seconds that were trained up to its checkpoint.
    fn seconds(&self, of: &Metadata) -> f64 {
        let until = self.checkpoint.as_ref().map_or(0, |(epoch, _)| *epoch);
        Trained::of(&of.history, until, 0, 0.0).seconds + seconds_before(of)
    }

    /// Notes in a run that it goes on from there: the time that was trained before counts.
    ///
    /// # Errors
    /// The metadata of one of both cannot be read or written.
    pub fn note(&self, keeper: &mut CheckpointManager, file: String) -> Result<(), StoreError> {
        let seconds = self.seconds(&self.run.metadata()?);
        keeper.update(|m| {
            m.resumed_from = Some(file);
            note_seconds_before(m, seconds);
        })
    }

    /// Reads the checkpoint, if one is kept.
    ///
    /// # Errors
    /// It is damaged.
    pub fn load(&self) -> Option<Result<Loaded, CheckpointError>> {
        let (_, path) = self.checkpoint.as_ref()?;
        Some(Checkpoint::open(path).and_then(Checkpoint::load))
    }
}

impl Training<'_> {
    /// The run of this stage that has most in common with a new one; the newest of equals.
    pub fn branch(
        &self,
        pipeline: &str,
        stage: &StageId,
        root: &ProjectRoot,
        criteria: &RunCriteria,
    ) -> Option<Branch> {
        let runs = self.runs(root);
        self.branch_of(&RunCatalog::of(&runs, pipeline, stage.as_str()), criteria)
    }

    pub(crate) fn branch_of(&self, catalog: &RunCatalog, criteria: &RunCriteria) -> Option<Branch> {
        let of_run = |(run, metadata): &(Run, Metadata)| {
            let different = criteria.settings_changed(metadata);
            if !metadata.changes.is_empty() || criteria.data_changed(metadata).is_some() {
                return None;
            }
            let until = (self.same_until)(&different, metadata)?;
            let kept = metadata.checkpoints.iter().filter(|c| c.epoch <= until);
            let kept = kept.filter(|c| run.file_of(c).exists()).max_by_key(|c| c.epoch);
            let checkpoint = kept.map(|c| (c.epoch, run.file_of(c)));
            Some(Branch { run: run.clone(), until, checkpoint })
        };
        let epoch = |branch: &Branch| branch.checkpoint.as_ref().map_or(0, |(epoch, _)| *epoch);
        catalog.own().iter().filter_map(of_run).max_by_key(epoch)
    }
}

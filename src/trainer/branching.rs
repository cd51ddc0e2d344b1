//! A new run that does not begin at its first step: another run of the stage is the same training
//! up to some epoch, and has a checkpoint of it. What comes out is, bit by bit, what a training
//! from the first step would give. Looks at the disk and changes nothing.

use std::path::PathBuf;

use pipe_engine::kind::{Request, StageId};
use pipe_fs::ProjectRoot;
use pipe_runs::{
    Checkpoint, CheckpointError, CheckpointRecord, EpochRecord, Loaded, Metadata, Run,
};

use crate::run_catalog::{RunCatalog, completed_epochs};
use crate::run_match::RunCriteria;
use crate::stopping::Trained;
use crate::training::Training;

/// What a run has in common with the training that is wanted.
pub struct Branch {
    pub run: Run,
    /// The last epoch of the run that both have in common.
    pub until: u64,
    /// The newest checkpoint up to there that is kept, with its epoch.
    checkpoint: Option<(u64, PathBuf)>,
    /// Up to that checkpoint.
    history: Vec<EpochRecord>,
}

impl Branch {
    /// For the plan, behind what differs.
    pub fn in_words(&self) -> String {
        let (number, until) = (self.run.number, self.until);
        let epochs = if until == 1 { "epoch 1".to_owned() } else { format!("epochs 1-{until}") };
        match &self.checkpoint {
            Some((epoch, _)) if *epoch == until => format!("shares {epochs} with run {number}"),
            Some((epoch, _)) => format!(
                "shares {epochs} with run {number}, which keeps the checkpoint of epoch {epoch} of them"
            ),
            None => format!(
                "begins at its first epoch: run {number} is the same up to epoch {until}, and has no checkpoint of that \
                 any more"
            ),
        }
    }

    /// Whether a checkpoint is kept.
    pub(crate) fn stands(&self) -> bool {
        self.checkpoint.is_some()
    }

    /// Reads the checkpoint, if one is kept.
    ///
    /// # Errors
    /// It is damaged.
    pub fn load(&self) -> Option<Result<Loaded, CheckpointError>> {
        let (_, path) = self.checkpoint.as_ref()?;
        Some(Checkpoint::open(path).and_then(Checkpoint::load))
    }

    /// The epochs up to the checkpoint, as far as the run knows them. It has their checkpoints.
    pub fn history(&self) -> Vec<EpochRecord> {
        let without_file = |epoch: &EpochRecord| EpochRecord { saved: None, ..epoch.clone() };
        self.history.iter().map(without_file).collect()
    }
}

impl Training<'_> {
    /// The run that has most in common with a new one of a stage; the newest of equals.
    pub fn branch(
        &self,
        request: &Request,
        (pipeline, stage): (&str, &StageId),
        root: &ProjectRoot,
        criteria: &RunCriteria,
    ) -> Option<Branch> {
        let runs = self.runs(root);
        let catalog = RunCatalog::of(&runs, pipeline, stage.as_str());
        self.branch_of(&catalog, criteria, request)
    }

    pub(crate) fn branch_of(
        &self,
        catalog: &RunCatalog,
        criteria: &RunCriteria,
        request: &Request,
    ) -> Option<Branch> {
        let epoch = |branch: &Branch| branch.checkpoint.as_ref().map_or(0, |(epoch, _)| *epoch);
        let of = |(run, metadata): &(Run, Metadata)| {
            self.branch_from(run, metadata, criteria, request.until)
        };
        catalog.related().filter_map(of).max_by_key(epoch)
    }

    /// `to`: how far the new run is carried now, where that is not its whole length.
    fn branch_from(
        &self,
        run: &Run,
        metadata: &Metadata,
        criteria: &RunCriteria,
        to: Option<u64>,
    ) -> Option<Branch> {
        let different = criteria.settings_changed(metadata);
        if !metadata.changes.is_empty() || criteria.data_changed(metadata).is_some() {
            return None;
        }
        // One epoch at least is the new run's own, whose checkpoint it ends with.
        let length = self.epochs.on(&metadata.dataset).min(to.unwrap_or(u64::MAX));
        let until = (self.same_until)(&different, metadata)?
            .min(completed_epochs(run, metadata))
            .min(length.saturating_sub(1));
        let history = &metadata.history;
        let looks_back = self.stopping.early_stopping.is_some() || self.stopping.max_time.is_some();
        let can_begin = |c: &&CheckpointRecord| {
            // What ends a training early looks back at all its epochs.
            let known = history.iter().filter(|e| e.epoch <= c.epoch).count() as u64;
            let trained = Trained::of(history, c.epoch, c.global_step, 0.0);
            c.epoch <= until
                && run.file_of(c).exists()
                && (!looks_back || known == c.epoch)
                && self.stopping.ending(history, trained).is_none()
        };
        let kept = metadata.checkpoints.iter().filter(can_begin).max_by_key(|c| c.epoch);
        let epoch = kept.map_or(0, |c| c.epoch);
        let history = history.iter().filter(|e| e.epoch <= epoch).cloned().collect();
        let checkpoint = kept.map(|c| (c.epoch, run.file_of(c)));
        (until > 0).then(|| Branch { run: run.clone(), until, checkpoint, history })
    }
}

//! A checkpoint that retention removed and that was made again: how it comes back into its run, and
//! what is remembered of each that was saved, so that it can be compared.

use std::path::Path;

use pipe_fs::atomic;
use serde_json::Value;

use super::settling::recorded_policy;
use super::{CheckpointManager, record, sweep};
use crate::checkpoint::{self, Checkpoint, Header, header_beside};
use crate::checkpoint_path::Name;
use crate::{CheckpointRecord, Metadata, Run, SavedState, StoreError};

/// Key of a run's metadata: epochs whose checkpoints were made again, and stay.
const RECOMPUTED: &str = "recomputed";

impl Metadata {
    /// Epochs whose checkpoints were made again. Retention leaves them alone.
    pub fn recomputed(&self) -> Vec<u64> {
        let listed = self.other.get(RECOMPUTED).and_then(Value::as_array);
        listed.into_iter().flatten().filter_map(Value::as_u64).collect()
    }

    /// What is remembered of the checkpoint that ended an epoch.
    pub fn saved(&self, epoch: u64) -> Option<&SavedState> {
        self.history.iter().find(|e| e.epoch == epoch)?.saved.as_ref()
    }

    /// These are kept no longer.
    pub(super) fn forget_recomputed(&mut self, epochs: &[u64]) {
        let mut left = self.recomputed();
        left.retain(|epoch| !epochs.contains(epoch));
        self.set_recomputed(&left);
    }

    fn set_recomputed(&mut self, epochs: &[u64]) {
        if epochs.is_empty() {
            self.other.remove(RECOMPUTED);
        } else {
            self.other.insert(RECOMPUTED.to_owned(), epochs.into());
        }
    }
}

impl CheckpointManager {
    /// Remembers what was saved at an epoch's end, where that epoch is in the history.
    pub(super) fn note_saved(&mut self, header: &Header, digest: &str, state_digest: String) {
        let (saved_at, digest) = (header.saved_at, digest.to_owned());
        if let Some(epoch) = self.metadata.history.iter_mut().find(|e| e.epoch == header.epoch) {
            epoch.saved = Some(SavedState { saved_at, digest, state_digest });
        }
    }

    /// Puts the checkpoint of an epoch that was made again back into its run, under its own name, and
    /// keeps it whatever the policy says. Nothing else of the run changes: neither its last nor its
    /// best checkpoint, nor its history.
    ///
    /// `made`: a checkpoint of this run's identity outside of it; one that a program wrote is moved.
    /// The file stands before the metadata list it, so that what a crash leaves is the run as it was,
    /// and a whole file that opening the run again removes.
    ///
    /// # Errors
    /// Somebody holds the run, `made` is not whole, or the disk refused.
    pub fn put_back(run: &Run, made: &Path) -> Result<CheckpointRecord, StoreError> {
        let lock = run.lock()?;
        sweep(run);
        let metadata = Metadata::load(&run.metadata_path())?;
        let file = Checkpoint::open(made)?;
        file.verify()?;
        let (header, digest) = (file.header().clone(), file.head_digest().to_owned());
        let name = Name::Epoch(header.epoch);
        let record = record(&header, name, file.bytes(), digest);
        let policy = recorded_policy(&metadata);
        let mut manager = Self { run: run.clone(), policy, metadata, _lock: lock };
        let (path, disk) = (run.checkpoints().join(name.file()), run.disk());
        atomic::create_folder(disk, &run.checkpoints())?;
        manager.set_aside(&path)?;
        if file.is_of_program() {
            checkpoint::take_in(disk, made, &path, &header)?;
        } else {
            if header_beside(&path).exists() {
                checkpoint::remove(disk, &path)?;
            }
            atomic::link(disk, made, &path)?;
        }
        let metadata = &mut manager.metadata;
        metadata.checkpoints.retain(|c| c.epoch != header.epoch);
        metadata.checkpoints.push(record.clone());
        metadata.checkpoints.sort_by_key(|c| c.epoch);
        let mut kept = metadata.recomputed();
        kept.push(header.epoch);
        kept.sort_unstable();
        kept.dedup();
        metadata.set_recomputed(&kept);
        manager.write_metadata()?;
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{begin, files, header, policy, save, tensors};
    use super::*;
    use crate::checkpoint::write;
    use crate::policy::CheckpointPolicy;
    use crate::{EpochRecord, Runs};
    use pipe_fs::Disk;

    fn epoch(number: u64) -> EpochRecord {
        EpochRecord {
            epoch: number,
            global_step: 10 * number,
            metrics: Default::default(),
            learning_rate: 0.0,
            seconds: 0.0,
            images_per_second: 0.0,
            data_wait: 0.0,
            saved: None,
        }
    }

    /// A run of four epochs that keeps the last and the first, which is the best.
    fn trained(folder: &Path) -> Run {
        let mut keeper = begin(folder);
        keeper.policy = CheckpointPolicy { keep_last_n: Some(1), ..policy() };
        let settings = serde_json::json!({"checkpoint": keeper.policy.clone()});
        keeper.update(|m| m.settings = settings).unwrap();
        for (number, loss) in [(1, 0.1), (2, 0.5), (3, 0.4), (4, 0.3)] {
            keeper.record_epoch(epoch(number));
            save(&mut keeper, number, loss);
        }
        keeper.run().clone()
    }

    #[test]
    fn a_removed_checkpoint_is_remembered_and_comes_back_to_stay() {
        let folder = tempfile::tempdir().unwrap();
        let run = trained(folder.path());
        let before = run.metadata().unwrap();
        assert_eq!(files(&run), ["best.ckpt", "epoch_001.ckpt", "epoch_004.ckpt", "last.ckpt"]);
        let saved = before.saved(2).unwrap().clone();

        // The same header and tensors give the same file.
        let aside = folder.path().join("aside.ckpt");
        let same = Header { saved_at: saved.saved_at, ..header(2, 0, 0.5) };
        let written = write(&Disk::default(), &aside, &same, &tensors(2.0)).unwrap();
        assert_eq!(written.state_digest, Checkpoint::open(&aside).unwrap().state_digest().unwrap());
        let record = CheckpointManager::put_back(&run, &aside).unwrap();
        assert_eq!(record.epoch, 2);

        let after = run.metadata().unwrap();
        assert_eq!((&after.history, after.recomputed()), (&before.history, vec![2]));
        assert_eq!(after.best_checkpoint, before.best_checkpoint);
        let listed: Vec<u64> = after.checkpoints.iter().map(|c| c.epoch).collect();
        assert_eq!(listed, [1, 2, 4]);

        // Neither opening the run nor a further epoch takes it away.
        let policy = CheckpointPolicy { keep_last_n: Some(1), ..policy() };
        let mut keeper = CheckpointManager::reopen(run.clone(), policy).unwrap();
        keeper.record_epoch(epoch(5));
        save(&mut keeper, 5, 0.2);
        drop(keeper);
        let listed: Vec<u64> =
            run.metadata().unwrap().checkpoints.iter().map(|c| c.epoch).collect();
        assert_eq!(listed, [1, 2, 5]);

        // A person can give it up.
        let now = run.metadata().unwrap();
        assert!(CheckpointManager::thin(&run, &now, &[2]).unwrap());
        assert!(run.metadata().unwrap().recomputed().is_empty());
    }

    #[test]
    fn a_crash_before_the_metadata_leaves_the_run_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let run = trained(folder.path());
        let before = run.metadata().unwrap();
        // The file stands, and the process ended there.
        let path = run.checkpoints().join("epoch_002.ckpt");
        write(&Disk::default(), &path, &header(2, 0, 0.5), &tensors(2.0)).unwrap();
        let policy = CheckpointPolicy { keep_last_n: Some(1), ..policy() };
        drop(CheckpointManager::reopen(run.clone(), policy).unwrap());
        assert!(!path.exists());
        let after = run.metadata().unwrap();
        assert_eq!((after.checkpoints, after.history), (before.checkpoints, before.history));
    }

    #[test]
    fn a_run_that_somebody_holds_takes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let run = trained(folder.path());
        let aside = folder.path().join("aside.ckpt");
        write(&Disk::default(), &aside, &header(2, 0, 0.5), &tensors(2.0)).unwrap();
        let held = Runs::at(&Disk::default(), folder.path()).find(run.number.0).unwrap();
        let _lock = held.lock().unwrap();
        let error = CheckpointManager::put_back(&run, &aside).unwrap_err().to_string();
        assert!(error.contains("is being trained"), "{error}");
    }
}

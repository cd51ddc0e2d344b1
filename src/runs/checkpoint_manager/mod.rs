//! Checkpoints and retention: what a run keeps, and in which order that changes on disk.
//!
//! # Who decides
//!
//! `CheckpointPolicy` is pure: it gets the checkpoints that stand and the metrics of the epoch that
//! ended, and returns actions (save, link `last`, link `best`, delete). [`CheckpointManager`] is
//! the only code that carries them out. The training loop hands it tensors and knows no file.
//!
//! # Files
//!
//! | file | what it is |
//! |---|---|
//! | `metadata.json` | identity, settings, history of every epoch, the list of checkpoints; with a checksum, and its version before as `metadata.json.previous` |
//! | `checkpoints/epoch_NNN.ckpt` | the state at the end of an epoch |
//! | `checkpoints/step_N.ckpt` | the state inside an epoch, after a signal or by `save_every_n_steps`; at most one |
//! | `best.ckpt`, `last.ckpt` | hard links of those: no second copy |
//! | `each_checkpoint/STAGE.json` | what a stage found out about each checkpoint: see [`CheckpointResults`](crate::CheckpointResults) |
//! | `run.lock` | held while a process has the run |
//!
//! # Order of a save
//!
//! 1. `metadata.json` gets the metrics of the epoch.
//! 2. The checkpoint is written: temporary file, fsync, rename, fsync of the folder. Its logs were
//!    synced before it.
//! 3. The links `last` and `best` are renewed, each in one rename.
//! 4. `metadata.json` lists the new checkpoint and no longer lists those that go.
//! 5. Those are removed.
//!
//! So `metadata.json` never names a file that is not there. What a crash leaves is a good
//! checkpoint that is not listed yet, or an old one that is not listed any more. Opening the run
//! again (`reconcile`) lists the first, removes the second, renews the links, and gives files that
//! a person deleted back from the links that still hold them.
//!
//! # Retention
//!
//! The newest `keep_last_n` checkpoints stay, and the `keep_top_k` best besides (the best, if it is
//! unset). The best has the lowest (or highest) value of `monitor`; of equal ones the earlier, so
//! that a later tie changes nothing behind it. A metric that is missing or not finite is never the
//! best. A checkpoint that a stage has yet to look at stays besides (`CheckpointPolicy::followed_by`),
//! and which one is the best is decided again when such a stage has looked ([`CheckpointManager::settle`]).
//! Since the best so far always stays, the best of all is found however late it is looked at.
//!
//! Nothing is removed before what replaces it stands, but on a full disk: there those that
//! would go anyway are removed first, and neither the newest nor the best so far.
//!
//! # What counts as good
//!
//! A checkpoint belongs to the run if its header has the run's identity, and is good if its content
//! has the digest in its header. Resume takes the newest good one and names those that it passed
//! over. A checkpoint of another run that stands under a name to be written is given a name of its
//! own, and is not lost.

mod changed;
mod ending;
#[cfg(test)]
mod program_tests;
mod recomputed;
mod reconcile;
mod settling;
#[cfg(test)]
mod settling_tests;
#[cfg(test)]
mod tests;
mod thin;

pub use settling::kept_epochs;

use std::path::{Path, PathBuf};
use std::time::Instant;

use pipe_fs::atomic::WriteError;
use pipe_fs::{Disk, Lock, atomic, disk_space, sync};

use super::checkpoint::{self, Header, Written};
use super::checkpoint_path::Name;
use super::found::{self, CheckpointScan};
use super::tensor::HostTensor;
use super::{
    CheckpointPath, CheckpointRecord, EpochRecord, Metadata, PartialRecord, Run, StoreError,
};
use crate::policy::{Action, CheckpointPolicy};

/// A run that this process trains in.
pub struct CheckpointManager {
    run: Run,
    policy: CheckpointPolicy,
    metadata: Metadata,
    _lock: Lock,
}

/// What a checkpoint is made of.
pub enum Content {
    /// Tensors, for a file of this program's form.
    Tensors(Vec<HostTensor>),
    /// A file or folder that a program wrote in a form of its own. It is moved into the run.
    Program(PathBuf),
}

impl Content {
    fn write(&self, disk: &Disk, path: &Path, header: &Header) -> Result<Written, WriteError> {
        match self {
            Self::Tensors(tensors) => checkpoint::write(disk, path, header, tensors),
            Self::Program(written) => checkpoint::take_in(disk, written, path, header),
        }
    }

    /// About how much room it takes that is not taken yet.
    fn needed(&self) -> u64 {
        const HEADER: u64 = 1 << 20;
        match self {
            Self::Tensors(tensors) => {
                tensors.iter().map(|t| t.bytes.len() as u64).sum::<u64>() + HEADER
            }
            Self::Program(_) => HEADER,
        }
    }
}

/// A checkpoint that stands on disk now.
#[derive(Debug, Clone, PartialEq)]
pub struct Saved {
    /// File name.
    pub file: String,
    pub bytes: u64,
    pub seconds: f64,
    pub is_best: bool,
}

impl CheckpointManager {
    /// Starts a new run: writes its first `metadata.json`.
    pub fn begin(
        run: Run,
        policy: CheckpointPolicy,
        metadata: Metadata,
    ) -> Result<Self, StoreError> {
        // Whoever removed it as one that was never begun has left it by now.
        atomic::create_folder(run.disk(), &run.folder)?;
        let lock = match run.lock() {
            Err(error) if !run.folder.is_dir() => {
                tracing::debug!("{error}: it was removed meanwhile, and is made anew");
                atomic::create_folder(run.disk(), &run.folder)?;
                run.lock()?
            }
            taken => taken?,
        };
        if run.is_started() {
            // Begun, and perhaps ended, by another process since this one looked.
            return Err(StoreError::Held { run: run.number, holder: "another process".to_owned() });
        }
        sweep(&run);
        atomic::create_folder(run.disk(), &run.checkpoints())?;
        let mut keeper = Self { run, policy, metadata, _lock: lock };
        keeper.note_kept_epochs();
        keeper.write_metadata()?;
        Ok(keeper)
    }

    /// Opens a run to go on with it: takes its lock, removes what a dead writer left, lists
    /// checkpoints that a crash kept out of `metadata.json`, and renews links.
    pub fn reopen(run: Run, policy: CheckpointPolicy) -> Result<Self, StoreError> {
        let lock = run.lock()?;
        let metadata = Metadata::load(&run.metadata_path())?;
        sweep(&run);
        // A copy of a run may lack its empty folders.
        atomic::create_folder(run.disk(), &run.checkpoints())?;
        // A process that was killed may have left names that the disk does not know yet.
        sync::names(run.disk(), &run.folder)?;
        sync::names(run.disk(), &run.checkpoints())?;
        let mut keeper = Self { run, policy, metadata, _lock: lock };
        keeper.note_kept_epochs();
        keeper.reconcile()?;
        Ok(keeper)
    }

    /// The run that it holds.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// The run's metadata, as they were last written or about to be.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Changes the metadata and writes it.
    pub fn update(&mut self, change: impl FnOnce(&mut Metadata)) -> Result<(), StoreError> {
        change(&mut self.metadata);
        self.write_metadata()
    }

    /// The newest checkpoint of this run whose content has its digest.
    pub fn newest_good(&self) -> CheckpointScan {
        found::newest_good(&self.run, &self.metadata.identity)
    }

    /// Notes the metrics of an epoch; forgets those of a later one, which is being done again.
    pub fn record_epoch(&mut self, record: EpochRecord) {
        self.metadata.history.retain(|e| e.epoch < record.epoch);
        self.metadata.history.push(record);
    }

    /// Whether the policy wants a checkpoint after the epoch of `header`.
    pub fn wants(&self, header: &Header, is_final: bool) -> bool {
        !self.policy.after_epoch(&self.known(), header.epoch, &header.metrics, is_final).is_empty()
    }

    /// Does what the policy says after an epoch. `content` is asked for only if something is to be
    /// saved.
    pub fn save_epoch<E: From<StoreError>>(
        &mut self,
        header: &Header,
        is_final: bool,
        content: impl FnOnce() -> Result<Content, E>,
    ) -> Result<Option<Saved>, E> {
        let actions =
            self.policy.after_epoch(&self.known(), header.epoch, &header.metrics, is_final);
        // A checkpoint that a crash keeps out of the metadata has its metrics there all the same.
        self.write_metadata()?;
        if actions.is_empty() {
            return Ok(None);
        }
        let content = content()?;
        if let Some(free) = disk_space::free(&self.run.folder) {
            self.make_room(&actions, header.epoch, content.needed(), free)?;
        }
        let before = self.metadata.clone();
        let saved = self.carry_out(actions, header, &content);
        if saved.is_err() {
            // Half of it done: the list stays as it was, and opening the run again puts the files
            // in order.
            self.metadata = before;
        }
        let saved = saved?;
        self.settle()?;
        Ok(Some(saved))
    }

    /// Removes what will not be kept before the new checkpoint is written, if it would not fit
    /// otherwise. The newest and the best so far stay until the new one stands.
    fn make_room(
        &mut self,
        actions: &[Action],
        epoch: u64,
        needed: u64,
        free: u64,
    ) -> Result<(), StoreError> {
        let mut known = self.known();
        known.retain(|k| k.epoch != epoch);
        let needless = |epoch: &u64| {
            let newest = known.last().map(|k| k.epoch);
            let best = self.policy.best(&known).map(|k| k.epoch);
            ![newest, best].contains(&Some(*epoch))
        };
        let epochs = actions.iter().filter_map(|action| match action {
            Action::Delete(epoch) => Some(*epoch).filter(needless),
            _ => None,
        });
        let epochs: Vec<u64> = if free < needed { epochs.collect() } else { Vec::new() };
        if epochs.is_empty() {
            return Ok(());
        }
        let gone: Vec<PathBuf> =
            epochs.into_iter().flat_map(|epoch| self.strike_off(epoch)).collect();
        self.write_metadata()?;
        for path in gone {
            checkpoint::remove(self.run.disk(), &path)?;
        }
        Ok(())
    }

    fn carry_out(
        &mut self,
        actions: Vec<Action>,
        header: &Header,
        content: &Content,
    ) -> Result<Saved, StoreError> {
        let started = Instant::now();
        let name = Name::Epoch(header.epoch);
        let file = name.file();
        let path = self.run.checkpoints().join(&file);
        let mut saved = Saved { file: file.clone(), bytes: 0, seconds: 0.0, is_best: false };
        let mut gone = Vec::new();
        for action in actions {
            match action {
                Action::Save => {
                    self.set_aside(&path)?;
                    let written = content.write(self.run.disk(), &path, header)?;
                    self.note_saved(header, &written.file_digest, written.state_digest);
                    let record = record(header, name, written.bytes, written.file_digest);
                    saved.bytes = written.bytes;
                    self.metadata.checkpoints.retain(|c| c.epoch != header.epoch);
                    self.metadata.checkpoints.push(record);
                    self.metadata.checkpoints.sort_by_key(|c| c.epoch);
                }
                Action::LinkLast => {
                    checkpoint::link(self.run.disk(), &path, &self.run.last())?;
                    gone.extend(self.strike_off_partial());
                }
                Action::LinkBest => {
                    self.link_best(header.epoch)?;
                    saved.is_best = true;
                }
                Action::Delete(epoch) => gone.extend(self.strike_off(epoch)),
            }
        }
        self.write_metadata()?;
        for path in gone {
            checkpoint::remove(self.run.disk(), &path)?;
        }
        saved.seconds = started.elapsed().as_secs_f64();
        Ok(saved)
    }

    /// Saves a state that is not at a saved epoch's end; it takes the place of an earlier one of
    /// this sort.
    pub fn save_partial(
        &mut self,
        header: &Header,
        content: &Content,
    ) -> Result<Saved, StoreError> {
        let started = Instant::now();
        let name = Name::Step(header.global_step);
        let file = name.file();
        let path = self.run.checkpoints().join(&file);
        self.set_aside(&path)?;
        let written = content.write(self.run.disk(), &path, header)?;
        checkpoint::link(self.run.disk(), &path, &self.run.last())?;
        let record = PartialRecord::of(header, written.bytes, written.file_digest);
        let old = self.metadata.partial_checkpoint.replace(record);
        self.write_metadata()?;
        if let Some(old) = old.filter(|o| o.global_step != header.global_step) {
            checkpoint::remove(self.run.disk(), &self.run.folder.join(old.path))?;
        }
        Ok(Saved {
            file,
            bytes: written.bytes,
            seconds: started.elapsed().as_secs_f64(),
            is_best: false,
        })
    }

    fn write_metadata(&mut self) -> Result<(), StoreError> {
        Ok(self.metadata.save(self.run.disk(), &self.run.metadata_path())?)
    }

    /// Takes an epoch's checkpoint off the list; returns the files to remove once the metadata
    /// stands.
    fn strike_off(&mut self, epoch: u64) -> Vec<PathBuf> {
        let gone = self.metadata.checkpoints.extract_if(.., |c| c.epoch == epoch);
        gone.map(|c| self.run.folder.join(c.path)).collect()
    }

    fn strike_off_partial(&mut self) -> Option<PathBuf> {
        self.metadata.partial_checkpoint.take().map(|p| self.run.folder.join(p.path))
    }

    /// Makes the checkpoint of an epoch, which is listed, the best one.
    fn link_best(&mut self, epoch: u64) -> Result<(), StoreError> {
        let listed = self.metadata.checkpoints.iter().find(|c| c.epoch == epoch);
        let Some(record) = listed.cloned() else { return Ok(()) };
        let path = self.run.folder.join(&record.path);
        checkpoint::link(self.run.disk(), &path, &self.run.best())?;
        self.metadata.best_checkpoint =
            Some(CheckpointRecord { path: CheckpointPath::best(), ..record });
        Ok(())
    }
}

/// Removes what a writer that died left in a run's folders.
fn sweep(run: &Run) {
    atomic::remove_temporary_files(run.disk(), &run.folder);
    for entry in std::fs::read_dir(&run.folder).into_iter().flatten().flatten() {
        // There other processes and threads write beside the training, each its own file.
        if entry.file_name() != crate::results::FOLDER {
            atomic::remove_temporary_files(run.disk(), &entry.path());
        }
    }
}

fn record(header: &Header, name: Name, bytes: u64, digest: String) -> CheckpointRecord {
    CheckpointRecord {
        epoch: header.epoch,
        global_step: header.global_step,
        path: CheckpointPath::new(name),
        metrics: header.metrics.clone(),
        saved_at: header.saved_at,
        bytes,
        digest,
    }
}

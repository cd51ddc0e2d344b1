//! Keeps a run's checkpoints: carries out what the policy decides, in the order that survives a crash at any
//! instant, and puts things right when a run is opened again.
//!
//! Order: the epoch's figures in `metadata.json`, the checkpoint file, the links to it, `metadata.json` (which does not name what will go), the removals.
//! So `metadata.json` never names a file that is not there, and what a crash can leave is a good checkpoint that is
//! not listed yet, or an old one that is not listed any more.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::checkpoint::{self, Checkpoint, Header};
use super::found::{self, Found, Name, checkpoint_files, is_same_file};
use super::tensor::HostTensor;
use super::{
    CheckpointRecord, EpochRecord, Lock, Metadata, PartialRecord, Run, Status, StoreError, atomic, room,
};
use crate::policy::{Action, CheckpointPolicy};

/// A run that this process trains in.
pub struct Keeper {
    run: Run,
    policy: CheckpointPolicy,
    metadata: Metadata,
    _lock: Lock,
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

impl Keeper {
    /// Starts a new run: writes its first `metadata.json`.
    pub fn begin(run: Run, policy: CheckpointPolicy, metadata: Metadata) -> Result<Self, StoreError> {
        let lock = run.lock()?;
        if run.is_begun() {
            // Begun, and perhaps ended, by another process since this one looked.
            return Err(StoreError::Held { run: run.number, holder: "another process".to_owned() });
        }
        sweep(&run);
        atomic::create_folder(&run.checkpoints())?;
        let mut keeper = Self { run, policy, metadata, _lock: lock };
        keeper.write_metadata()?;
        Ok(keeper)
    }

    /// Opens a run to go on with it: takes its lock, removes what a dead writer left, lists checkpoints that a crash
    /// kept out of `metadata.json`, and renews links.
    pub fn reopen(run: Run, policy: CheckpointPolicy) -> Result<Self, StoreError> {
        let lock = run.lock()?;
        let metadata = run.metadata()?;
        sweep(&run);
        // A copy of a run may lack its empty folders.
        atomic::create_folder(&run.checkpoints())?;
        let mut keeper = Self { run, policy, metadata, _lock: lock };
        keeper.reconcile()?;
        Ok(keeper)
    }

    pub fn run(&self) -> &Run {
        &self.run
    }

    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Changes the metadata and writes it.
    pub fn update(&mut self, change: impl FnOnce(&mut Metadata)) -> Result<(), StoreError> {
        change(&mut self.metadata);
        self.write_metadata()
    }

    /// The newest checkpoint of this run whose content has its digest.
    pub fn newest_good(&self) -> Found {
        found::newest_good(&self.run, &self.metadata.identity)
    }

    /// Notes the figures of an epoch; forgets those of a later one, which is being done again.
    pub fn note_epoch(&mut self, record: EpochRecord) {
        self.metadata.history.retain(|e| e.epoch < record.epoch);
        self.metadata.history.push(record);
    }

    /// Whether the policy wants a checkpoint after the epoch of `header`.
    pub fn wants(&self, header: &Header, is_final: bool) -> bool {
        !self.policy.after_epoch(&self.metadata.known(), header.epoch, &header.metrics, is_final).is_empty()
    }

    /// Does what the policy says after an epoch. `tensors` is asked for only if something is to be saved.
    pub fn save_epoch<E: From<StoreError>>(
        &mut self,
        header: &Header,
        is_final: bool,
        tensors: impl FnOnce() -> Result<Vec<HostTensor>, E>,
    ) -> Result<Option<Saved>, E> {
        let actions =
            self.policy.after_epoch(&self.metadata.known(), header.epoch, &header.metrics, is_final);
        // A checkpoint that a crash keeps out of the metadata has its figures there all the same.
        self.write_metadata()?;
        if actions.is_empty() {
            return Ok(None);
        }
        let tensors = tensors()?;
        if let Some(free) = room::free(&self.run.folder) {
            self.make_room(&actions, header.epoch, bytes_of(&tensors), free)?;
        }
        let before = self.metadata.clone();
        let saved = self.carry_out(actions, header, &tensors);
        if saved.is_err() {
            // Half of it done: the list stays as it was, and opening the run again puts the files in order.
            self.metadata = before;
        }
        Ok(Some(saved?))
    }

    /// Removes what will not be kept before the new checkpoint is written, if it would not fit otherwise. The newest
    /// and the best so far stay until the new one stands.
    fn make_room(
        &mut self,
        actions: &[Action],
        epoch: u64,
        needed: u64,
        free: u64,
    ) -> Result<(), StoreError> {
        let mut known = self.metadata.known();
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
        let gone: Vec<PathBuf> = epochs.into_iter().flat_map(|epoch| self.strike_off(epoch)).collect();
        self.write_metadata()?;
        for path in gone {
            atomic::remove(&path)?;
        }
        Ok(())
    }

    fn carry_out(
        &mut self,
        actions: Vec<Action>,
        header: &Header,
        tensors: &[HostTensor],
    ) -> Result<Saved, StoreError> {
        let started = Instant::now();
        let file = Name::Epoch(header.epoch).file();
        let path = self.run.checkpoints().join(&file);
        let mut saved = Saved { file: file.clone(), bytes: 0, seconds: 0.0, is_best: false };
        let mut gone = Vec::new();
        for action in actions {
            match action {
                Action::Save => {
                    self.set_aside(&path)?;
                    let written = checkpoint::write(&path, header, tensors)?;
                    let record = record(header, &file, written.bytes, written.file_digest);
                    saved.bytes = written.bytes;
                    self.metadata.checkpoints.retain(|c| c.epoch != header.epoch);
                    self.metadata.checkpoints.push(record);
                    self.metadata.checkpoints.sort_by_key(|c| c.epoch);
                }
                Action::LinkLast => {
                    atomic::link(&path, &self.run.last())?;
                    gone.extend(self.strike_off_partial());
                }
                Action::LinkBest => {
                    atomic::link(&path, &self.run.best())?;
                    saved.is_best = true;
                    self.metadata.best_checkpoint = self.best_record(header.epoch);
                }
                Action::Delete(epoch) => gone.extend(self.strike_off(epoch)),
            }
        }
        self.write_metadata()?;
        for path in gone {
            atomic::remove(&path)?;
        }
        saved.seconds = started.elapsed().as_secs_f64();
        Ok(saved)
    }

    /// Saves a state that is not at a saved epoch's end; it takes the place of an earlier one of this sort.
    pub fn save_partial(&mut self, header: &Header, tensors: &[HostTensor]) -> Result<Saved, StoreError> {
        let started = Instant::now();
        let file = Name::Step(header.global_step).file();
        let path = self.run.checkpoints().join(&file);
        self.set_aside(&path)?;
        let written = checkpoint::write(&path, header, tensors)?;
        atomic::link(&path, &self.run.last())?;
        let record = PartialRecord {
            epoch: header.epoch,
            step_in_epoch: header.step_in_epoch,
            global_step: header.global_step,
            path: format!("checkpoints/{file}"),
            saved_at: header.saved_at,
            bytes: written.bytes,
            digest: written.file_digest,
        };
        let old = self.metadata.partial_checkpoint.replace(record);
        self.write_metadata()?;
        if let Some(old) = old.filter(|o| o.global_step != header.global_step) {
            atomic::remove(&self.run.folder.join(old.path))?;
        }
        Ok(Saved { file, bytes: written.bytes, seconds: started.elapsed().as_secs_f64(), is_best: false })
    }

    fn write_metadata(&mut self) -> Result<(), StoreError> {
        Ok(self.metadata.save(&self.run.metadata_path())?)
    }

    /// Takes an epoch's checkpoint off the list; returns the files to remove once the metadata stands.
    fn strike_off(&mut self, epoch: u64) -> Vec<PathBuf> {
        let gone = self.metadata.checkpoints.extract_if(.., |c| c.epoch == epoch);
        gone.map(|c| self.run.folder.join(c.path)).collect()
    }

    fn strike_off_partial(&mut self) -> Option<PathBuf> {
        self.metadata.partial_checkpoint.take().map(|p| self.run.folder.join(p.path))
    }

    fn best_record(&self, epoch: u64) -> Option<CheckpointRecord> {
        let record = self.metadata.checkpoints.iter().find(|c| c.epoch == epoch)?;
        Some(CheckpointRecord { path: "checkpoints/best.ckpt".into(), ..record.clone() })
    }

    /// Whether a checkpoint stands there that is none of this run's, or not the one of that name.
    fn is_foreign(&self, path: &Path) -> bool {
        let (own, name) = (&self.metadata.identity, Name::of_file(path));
        let fits = |header: &Header| header.identity == *own && name.is_none_or(|name| name.fits(header));
        Checkpoint::open(path).is_ok_and(|file| !fits(file.header()) && file.verify().is_ok())
    }

    /// Gives a foreign checkpoint that stands under the name of one to be written a name of its own.
    fn set_aside(&self, path: &Path) -> Result<(), StoreError> {
        if self.is_foreign(path) {
            let name = |n: u32| path.with_extension(format!("of_another_run_{n}.ckpt"));
            let free = (1..).map(name).find(|path| !path.exists());
            free.map_or(Ok(()), |free| atomic::link(path, &free))?;
        }
        Ok(())
    }

    /// Gives the checkpoints that `best.ckpt` and `last.ckpt` hold their own names back where those are gone or damaged:
    /// they are checkpoints like others, and are listed, kept and compared by those names.
    fn restore_names(&mut self) -> Result<(), StoreError> {
        for link in [self.run.best(), self.run.last()] {
            let Ok(file) = Checkpoint::open(&link) else { continue };
            let header = file.header().clone();
            let name = Name::of(&header);
            let own = self.run.checkpoints().join(name.file());
            if header.identity != self.metadata.identity || is_same_file(&link, &own) {
                continue;
            }
            let good = || Checkpoint::open(&own).is_ok_and(|file| file.verify().is_ok());
            let stands = || !self.is_foreign(&own) && good();
            if stands() || file.verify().is_err() {
                continue;
            }
            self.set_aside(&own)?;
            atomic::link(&link, &own)?;
            if name.is_epoch() && self.metadata.checkpoints.iter().all(|c| c.epoch != header.epoch) {
                let bytes = std::fs::metadata(&own).map(|m| m.len()).unwrap_or_default();
                let digest = file.head_digest().to_owned();
                self.metadata.checkpoints.push(record(&header, &name.file(), bytes, digest));
                self.metadata.checkpoints.sort_by_key(|c| c.epoch);
            }
        }
        Ok(())
    }

    /// Makes `metadata.json` and the links agree with the checkpoint files that stand on disk.
    fn reconcile(&mut self) -> Result<(), StoreError> {
        let folder = self.run.folder.clone();
        self.restore_names()?;
        let stands = |path: &str| folder.join(path).is_file() && !self.is_foreign(&folder.join(path));
        let standing: Vec<bool> = self.metadata.checkpoints.iter().map(|c| stands(&c.path)).collect();
        let mut standing = standing.into_iter();
        self.metadata.checkpoints.retain(|_| standing.next().unwrap_or(false));
        if self.metadata.partial_checkpoint.as_ref().is_some_and(|p| !folder.join(&p.path).is_file()) {
            self.metadata.partial_checkpoint = None;
        }
        let mut gone = Vec::new();
        for (name, path) in checkpoint_files(&self.run) {
            let Ok(found) = Checkpoint::open(&path) else { continue };
            let relative = format!("checkpoints/{}", path.file_name().unwrap_or_default().to_string_lossy());
            let header = found.header().clone();
            if header.identity != self.metadata.identity || !name.fits(&header) {
                continue;
            }
            let listed = self.metadata.checkpoints.iter().any(|c| c.path == relative)
                || self.metadata.partial_checkpoint.as_ref().is_some_and(|p| p.path == relative);
            if listed || found.verify().is_err() {
                continue;
            }
            let newest = self.metadata.checkpoints.last().map_or(0, |c| c.global_step);
            let bytes = std::fs::metadata(&path).map(|m| m.len()).unwrap_or_default();
            let digest = found.head_digest().to_owned();
            if name.is_epoch() && header.global_step > newest {
                // Written, and the process ended before the metadata was.
                let name = relative.trim_start_matches("checkpoints/").to_owned();
                self.metadata.checkpoints.push(record(&header, &name, bytes, digest));
                self.metadata.checkpoints.sort_by_key(|c| c.epoch);
                // It has just been verified, so what it makes needless can go.
                if self
                    .metadata
                    .partial_checkpoint
                    .as_ref()
                    .is_some_and(|p| p.global_step <= header.global_step)
                {
                    gone.extend(self.strike_off_partial());
                }
                for epoch in self.policy.surplus(&self.metadata.known()) {
                    gone.extend(self.strike_off(epoch));
                }
            } else if !name.is_epoch()
                && header.global_step
                    > newest.max(self.metadata.partial_checkpoint.as_ref().map_or(0, |p| p.global_step))
            {
                gone.extend(self.strike_off_partial());
                self.metadata.partial_checkpoint = Some(PartialRecord {
                    epoch: header.epoch,
                    step_in_epoch: header.step_in_epoch,
                    global_step: header.global_step,
                    path: relative,
                    saved_at: header.saved_at,
                    bytes,
                    digest,
                });
            } else {
                // Taken off the list, and the process ended before the file was removed.
                gone.push(path);
            }
        }
        let known = self.metadata.known();
        let best = self.policy.best(&known).map(|k| k.epoch);
        self.metadata.best_checkpoint = best.and_then(|epoch| self.best_record(epoch));
        if let Some(record) =
            best.and_then(|epoch| self.metadata.checkpoints.iter().find(|c| c.epoch == epoch))
        {
            atomic::link(&folder.join(&record.path), &self.run.best())?;
        }
        let last_epoch = self.metadata.checkpoints.last().map(|c| (c.global_step, c.path.clone()));
        let partial = self.metadata.partial_checkpoint.as_ref().map(|p| (p.global_step, p.path.clone()));
        if let Some((_, path)) = last_epoch.into_iter().chain(partial).max() {
            atomic::link(&folder.join(path), &self.run.last())?;
        }
        self.write_metadata()?;
        for path in gone {
            atomic::remove(&path)?;
        }
        Ok(())
    }
}

/// Removes what a writer that died left in a run's folders.
fn sweep(run: &Run) {
    atomic::sweep(&run.folder);
    for entry in std::fs::read_dir(&run.folder).into_iter().flatten().flatten() {
        atomic::sweep(&entry.path());
    }
}

/// About how large the file of some tensors is.
fn bytes_of(tensors: &[HostTensor]) -> u64 {
    const HEADER: u64 = 1 << 20;
    tensors.iter().map(|tensor| tensor.bytes.len() as u64).sum::<u64>() + HEADER
}

fn record(header: &Header, file: &str, bytes: u64, digest: String) -> CheckpointRecord {
    CheckpointRecord {
        epoch: header.epoch,
        global_step: header.global_step,
        path: format!("checkpoints/{file}"),
        metrics: header.metrics.clone(),
        saved_at: header.saved_at,
        bytes,
        digest,
    }
}

impl Keeper {
    /// Notes in a run that its start failed, where it says that it is running and nobody holds it.
    pub fn note_failed_start(run: &Run, why: &str) -> Result<(), StoreError> {
        let _lock = run.lock()?;
        let mut metadata = run.metadata()?;
        if metadata.status == Status::Running {
            (metadata.status, metadata.message) = (Status::Failed, Some(why.to_owned()));
            metadata.save(&run.metadata_path())?;
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::store::{DatasetRecord, Runs, SCHEMA_VERSION};
    use serde_json::{Map, Value, json};

    fn header(epoch: u64, step_in_epoch: u64, loss: f64) -> Header {
        Header {
            epoch,
            global_step: 10 * epoch + step_in_epoch,
            step_in_epoch,
            metrics: BTreeMap::from([("train_loss".into(), loss)]),
            scheduler_state_dict: json!({}),
            loop_state: json!({}),
            saved_at: chrono::Utc::now(),
            identity: "sha256:1".into(),
            seed: 1,
            model_config: json!({}),
            extra: BTreeMap::new(),
        }
    }

    fn tensors(value: f32) -> Vec<HostTensor> {
        vec![HostTensor::f32("state_dict.a", vec![2], &[value, 1.0])]
    }

    fn metadata() -> Metadata {
        let now = chrono::Utc::now();
        Metadata {
            schema_version: SCHEMA_VERSION,
            run_number: 1,
            experiment_name: "x".into(),
            pipeline: "p".into(),
            stage: "base".into(),
            status: Status::Running,
            message: None,
            created_at: now,
            updated_at: now,
            version: "0".into(),
            git_commit: None,
            device: "cpu".into(),
            seed: 1,
            epochs: 5,
            identity: "sha256:1".into(),
            manifest: BTreeMap::new(),
            settings: Value::Null,
            dataset: DatasetRecord {
                source: "shapes".into(),
                digest: String::new(),
                classes: vec![],
                train_images: 1,
                validation_images: 0,
            },
            resumed_from: None,
            checkpoints: vec![],
            best_checkpoint: None,
            partial_checkpoint: None,
            history: vec![],
            other: Map::from_iter([("note".to_owned(), json!("kept"))]),
        }
    }

    fn policy() -> CheckpointPolicy {
        CheckpointPolicy { keep_last_n: Some(2), ..Default::default() }
    }

    fn begin(folder: &Path) -> Keeper {
        Keeper::begin(Runs::at(folder).create().unwrap(), policy(), metadata()).unwrap()
    }

    fn files(run: &Run) -> Vec<String> {
        let entries = std::fs::read_dir(run.checkpoints()).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn save(keeper: &mut Keeper, epoch: u64, loss: f64) -> Saved {
        let tensors = || Ok::<_, StoreError>(tensors(epoch as f32));
        keeper.save_epoch(&header(epoch, 0, loss), false, tensors).unwrap().unwrap()
    }

    #[test]
    fn the_best_and_the_newest_stay_and_share_their_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let mut keeper = begin(folder.path());
        let best: Vec<bool> =
            [0.5, 0.1, 0.4, 0.3].iter().zip(1..).map(|(l, e)| save(&mut keeper, e, *l).is_best).collect();
        assert_eq!(best, [true, true, false, false]);
        let expected = ["best.ckpt", "epoch_002.ckpt", "epoch_003.ckpt", "epoch_004.ckpt", "last.ckpt"];
        assert_eq!(files(keeper.run()), expected);
        let metadata = keeper.run().metadata().unwrap();
        assert_eq!(metadata.checkpoints.iter().map(|c| c.epoch).collect::<Vec<_>>(), [2, 3, 4]);
        assert_eq!(metadata.best_checkpoint.as_ref().unwrap().path, "checkpoints/best.ckpt");
        assert_eq!(metadata.other["note"], "kept");
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let inode = |name: &str| std::fs::metadata(keeper.run().checkpoints().join(name)).unwrap().ino();
            assert_eq!(inode("best.ckpt"), inode("epoch_002.ckpt"));
            assert_eq!(inode("last.ckpt"), inode("epoch_004.ckpt"));
        }
    }

    #[test]
    fn a_checkpoint_inside_an_epoch_goes_when_a_newer_one_stands() {
        let folder = tempfile::tempdir().unwrap();
        let mut keeper = begin(folder.path());
        save(&mut keeper, 1, 0.5);
        keeper.save_partial(&header(1, 3, 0.0), &tensors(1.3)).unwrap();
        keeper.save_partial(&header(1, 6, 0.0), &tensors(1.6)).unwrap();
        assert_eq!(files(keeper.run()), ["best.ckpt", "epoch_001.ckpt", "last.ckpt", "step_00000016.ckpt"]);
        assert_eq!(keeper.newest_good().checkpoint.unwrap().header().global_step, 16);
        save(&mut keeper, 2, 0.4);
        assert_eq!(files(keeper.run()), ["best.ckpt", "epoch_001.ckpt", "epoch_002.ckpt", "last.ckpt"]);
    }

    #[test]
    fn where_there_is_no_room_what_is_not_kept_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let mut keeper = begin(folder.path());
        [0.1, 0.5, 0.4].iter().zip(1..).for_each(|(loss, epoch)| drop(save(&mut keeper, epoch, *loss)));
        let epochs = |keeper: &Keeper| -> Vec<u64> {
            keeper.run().metadata().unwrap().checkpoints.iter().map(|c| c.epoch).collect()
        };
        assert_eq!(epochs(&keeper), [1, 2, 3]);
        let actions = |keeper: &Keeper, loss| {
            keeper.policy.after_epoch(&keeper.metadata.known(), 4, &header(4, 0, loss).metrics, false)
        };
        let planned = actions(&keeper, 0.3);
        assert!(planned.contains(&Action::Delete(2)));
        keeper.make_room(&planned, 4, 100, 100).unwrap();
        assert_eq!(epochs(&keeper), [1, 2, 3], "there is room");
        keeper.make_room(&planned, 4, 100, 99).unwrap();
        assert_eq!(epochs(&keeper), [1, 3]);
        // A new best makes the old one needless, but only once it stands.
        let planned = actions(&keeper, 0.01);
        assert!(planned.contains(&Action::LinkBest));
        keeper.make_room(&planned, 4, 100, 0).unwrap();
        assert_eq!(epochs(&keeper), [1, 3]);
        assert_eq!(files(keeper.run()), ["best.ckpt", "epoch_001.ckpt", "epoch_003.ckpt", "last.ckpt"]);
    }

    #[test]
    fn a_checkpoint_that_a_crash_kept_out_of_the_metadata_is_taken_in() {
        let folder = tempfile::tempdir().unwrap();
        let mut keeper = begin(folder.path());
        save(&mut keeper, 1, 0.5);
        let run = keeper.run().clone();
        let before = std::fs::read(run.metadata_path()).unwrap();
        save(&mut keeper, 2, 0.4);
        drop(keeper);
        // As if the process had ended between the rename of epoch 2 and everything after it.
        std::fs::write(run.metadata_path(), before).unwrap();
        atomic::link(&run.checkpoints().join("epoch_001.ckpt"), &run.last()).unwrap();
        atomic::link(&run.checkpoints().join("epoch_001.ckpt"), &run.best()).unwrap();
        std::fs::write(run.checkpoints().join(".epoch_003.ckpt.tmp-1-1"), "half").unwrap();
        let keeper = Keeper::reopen(run.clone(), policy()).unwrap();
        assert_eq!(keeper.metadata().checkpoints.iter().map(|c| c.epoch).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(keeper.metadata().best_checkpoint.as_ref().unwrap().epoch, 2);
        assert_eq!(files(&run), ["best.ckpt", "epoch_001.ckpt", "epoch_002.ckpt", "last.ckpt"]);
        for link in [run.best(), run.last()] {
            assert_eq!(Checkpoint::open(&link).unwrap().header().epoch, 2);
        }
    }

    #[test]
    fn a_file_that_a_crash_kept_from_being_removed_goes() {
        let folder = tempfile::tempdir().unwrap();
        let mut keeper = begin(folder.path());
        save(&mut keeper, 1, 0.5);
        let old = std::fs::read(keeper.run().checkpoints().join("epoch_001.ckpt")).unwrap();
        for epoch in 2..=3 {
            save(&mut keeper, epoch, 0.5 - 0.1 * epoch as f64);
        }
        let run = keeper.run().clone();
        drop(keeper);
        assert_eq!(files(&run), ["best.ckpt", "epoch_002.ckpt", "epoch_003.ckpt", "last.ckpt"]);
        std::fs::write(run.checkpoints().join("epoch_001.ckpt"), old).unwrap();
        Keeper::reopen(run.clone(), policy()).unwrap();
        assert_eq!(files(&run), ["best.ckpt", "epoch_002.ckpt", "epoch_003.ckpt", "last.ckpt"]);
    }

    #[test]
    fn a_checkpoint_that_is_taken_in_makes_the_same_ones_needless() {
        let folder = tempfile::tempdir().unwrap();
        let mut keeper = begin(folder.path());
        save(&mut keeper, 1, 0.5);
        save(&mut keeper, 2, 0.4);
        keeper.save_partial(&header(2, 3, 0.0), &tensors(2.3)).unwrap();
        let run = keeper.run().clone();
        drop(keeper);
        // As if the process had ended right after the rename of epoch 3.
        checkpoint::write(&run.checkpoints().join("epoch_003.ckpt"), &header(3, 0, 0.3), &tensors(3.0))
            .unwrap();
        let keeper = Keeper::reopen(run.clone(), policy()).unwrap();
        let expected = ["best.ckpt", "epoch_002.ckpt", "epoch_003.ckpt", "last.ckpt"];
        assert_eq!(files(&run), expected);
        assert_eq!(keeper.metadata().checkpoints.iter().map(|c| c.epoch).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(keeper.metadata().partial_checkpoint, None);
    }

    #[test]
    fn of_two_checkpoints_inside_an_epoch_the_newer_one_stays() {
        let folder = tempfile::tempdir().unwrap();
        let mut keeper = begin(folder.path());
        save(&mut keeper, 1, 0.5);
        keeper.save_partial(&header(1, 3, 0.0), &tensors(1.3)).unwrap();
        let run = keeper.run().clone();
        drop(keeper);
        // As if the process had ended right after the rename of the next one.
        let next = run.checkpoints().join("step_00000016.ckpt");
        checkpoint::write(&next, &header(1, 6, 0.0), &tensors(1.6)).unwrap();
        let keeper = Keeper::reopen(run.clone(), policy()).unwrap();
        assert_eq!(files(&run), ["best.ckpt", "epoch_001.ckpt", "last.ckpt", "step_00000016.ckpt"]);
        assert_eq!(keeper.metadata().partial_checkpoint.as_ref().unwrap().global_step, 16);
    }

    #[test]
    fn an_epoch_has_its_figures_before_its_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let mut keeper = begin(folder.path());
        keeper.note_epoch(EpochRecord {
            epoch: 1,
            global_step: 10,
            metrics: BTreeMap::from([("train_loss".into(), 0.5)]),
            learning_rate: 0.001,
            seconds: 1.0,
            images_per_second: 1.0,
            data_wait: 0.0,
        });
        let run = keeper.run().clone();
        let refused = keeper.save_epoch(&header(1, 0, 0.5), false, || {
            assert_eq!(run.metadata()?.history.len(), 1);
            Err(StoreError::Held { run: run.number, holder: "the test".into() })
        });
        assert!(refused.is_err());
    }

    /// The losses of some epochs, the best in the middle.
    const LOSSES: [f64; 4] = [0.5, 0.1, 0.4, 0.3];

    #[test]
    fn whatever_names_are_deleted_the_best_and_the_newest_stay_what_they_are() {
        let names = ["epoch_001.ckpt", "epoch_002.ckpt", "epoch_003.ckpt", "epoch_004.ckpt", "last.ckpt"];
        for deleted in 0..1u32 << names.len() {
            let folder = tempfile::tempdir().unwrap();
            let policy = CheckpointPolicy { keep_last_n: None, ..Default::default() };
            let run = Runs::at(folder.path()).create().unwrap();
            let mut keeper = Keeper::begin(run.clone(), policy.clone(), metadata()).unwrap();
            LOSSES.iter().zip(1..).for_each(|(loss, epoch)| drop(save(&mut keeper, epoch, *loss)));
            drop(keeper);
            let gone = names.iter().enumerate().filter(|(bit, _)| deleted >> bit & 1 == 1);
            gone.for_each(|(_, name)| std::fs::remove_file(run.checkpoints().join(name)).unwrap());
            let left = run.epochs_on_disk(&run.metadata().unwrap());

            let mut keeper = Keeper::reopen(run.clone(), policy).unwrap();
            let newest = keeper.newest_good().checkpoint.unwrap().header().epoch;
            let still_there = |epoch: u64| match epoch {
                2 => true,
                4 => deleted & 0b11000 != 0b11000,
                epoch => deleted >> (epoch - 1) & 1 == 0,
            };
            let expected = (1..=4).rev().find(|epoch| still_there(*epoch)).unwrap();
            assert_eq!((newest, left), (expected, expected), "{deleted:#b}");
            assert!(!save(&mut keeper, newest + 1, 0.2).is_best, "{deleted:#b}");
            assert_eq!(Checkpoint::open(&run.best()).unwrap().header().epoch, 2, "{deleted:#b}");
            assert_eq!(keeper.metadata().best_checkpoint.as_ref().unwrap().epoch, 2, "{deleted:#b}");
            assert_eq!(Checkpoint::open(&run.last()).unwrap().header().epoch, newest + 1);
        }
    }

    #[test]
    fn a_damaged_file_comes_back_from_a_copy_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut keeper = begin(folder.path());
        save(&mut keeper, 1, 0.5);
        let run = keeper.run().clone();
        drop(keeper);
        let file = run.checkpoints().join("epoch_001.ckpt");
        let good = std::fs::read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, &good[..good.len() - 1]).unwrap();
        let keeper = Keeper::reopen(run, policy()).unwrap();
        assert_eq!(keeper.newest_good().passed_over, [""; 0]);
        assert_eq!(std::fs::read(&file).unwrap(), good);
    }

    #[test]
    fn a_checkpoint_of_another_run_is_neither_used_nor_lost() {
        let folder = tempfile::tempdir().unwrap();
        let mut keeper = begin(folder.path());
        save(&mut keeper, 1, 0.5);
        let foreign = keeper.run().checkpoints().join("epoch_002.ckpt");
        let other = Header { identity: "sha256:2".into(), ..header(2, 0, 0.1) };
        checkpoint::write(&foreign, &other, &tensors(9.0)).unwrap();
        let bytes = std::fs::read(&foreign).unwrap();
        let run = keeper.run().clone();
        drop(keeper);
        let mut keeper = Keeper::reopen(run.clone(), policy()).unwrap();
        let found = keeper.newest_good();
        assert_eq!(found.checkpoint.unwrap().header().epoch, 1);
        assert_eq!(found.foreign, std::slice::from_ref(&foreign));
        save(&mut keeper, 2, 0.4);
        assert_eq!(Checkpoint::open(&foreign).unwrap().header().identity, "sha256:1");
        let aside = run.checkpoints().join("epoch_002.of_another_run_1.ckpt");
        assert_eq!(std::fs::read(aside).unwrap(), bytes);
        assert_eq!(keeper.metadata().best_checkpoint.as_ref().unwrap().epoch, 2);
    }

    #[test]
    fn files_that_a_person_put_beside_the_checkpoints_stay() {
        let folder = tempfile::tempdir().unwrap();
        let mut keeper = begin(folder.path());
        save(&mut keeper, 1, 0.5);
        let run = keeper.run().clone();
        drop(keeper);
        let own = ["epoch_001_my_favourite.ckpt", "epoch_007.ckpt", "step_backup.ckpt"];
        for name in own {
            std::fs::copy(run.checkpoints().join("epoch_001.ckpt"), run.checkpoints().join(name)).unwrap();
        }
        let mut keeper = Keeper::reopen(run.clone(), policy()).unwrap();
        assert_eq!(keeper.newest_good().checkpoint.unwrap().path(), run.checkpoints().join("epoch_001.ckpt"));
        save(&mut keeper, 2, 0.4);
        own.iter().for_each(|name| assert!(run.checkpoints().join(name).is_file(), "{name}"));
    }

    #[test]
    fn a_run_whose_metadata_is_missing_has_the_one_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut keeper = begin(folder.path());
        save(&mut keeper, 1, 0.5);
        save(&mut keeper, 2, 0.4);
        let run = keeper.run().clone();
        drop(keeper);
        std::fs::remove_file(run.metadata_path()).unwrap();
        assert!(Keeper::begin(run.clone(), policy(), metadata()).is_err(), "it was begun");
        let keeper = Keeper::reopen(run, policy()).unwrap();
        assert_eq!(keeper.metadata().checkpoints.iter().map(|c| c.epoch).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn a_run_that_nobody_holds_is_not_running() {
        let folder = tempfile::tempdir().unwrap();
        let keeper = begin(folder.path());
        let run = keeper.run().clone();
        assert_eq!(run.as_it_stands().unwrap().status, Status::Running);
        drop(keeper);
        let found = run.as_it_stands().unwrap();
        assert_eq!(
            (found.status, found.message.as_deref()),
            (Status::Interrupted, Some("ended without a word"))
        );
        Keeper::note_failed_start(&run, "no room").unwrap();
        let found = run.as_it_stands().unwrap();
        assert_eq!((found.status, found.message.as_deref()), (Status::Failed, Some("no room")));
    }

    #[test]
    fn a_damaged_checkpoint_is_passed_over_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut keeper = begin(folder.path());
        save(&mut keeper, 1, 0.5);
        save(&mut keeper, 2, 0.4);
        let path = keeper.run().checkpoints().join("epoch_002.ckpt");
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        // Through all its names.
        std::fs::write(&path, bytes).unwrap();
        let found = keeper.newest_good();
        assert_eq!(found.checkpoint.unwrap().header().epoch, 1);
        let [passed_over] = &found.passed_over[..] else { panic!("{:?}", found.passed_over) };
        assert!(passed_over.contains("epoch_002.ckpt"), "{passed_over}");
    }
}

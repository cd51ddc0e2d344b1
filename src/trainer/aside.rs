//! A part of a run that is done once more, in a folder aside: how that folder is prepared, from which
//! kept checkpoint it begins, and what it refuses. The run itself is only read.
//!
//! # Files
//!
//! | file | what it is |
//! |---|---|
//! | `.pipe/again/N.lock` | held by the process that has the folder `N` |
//! | `.pipe/again/N/run_NNN` | a run that begins as the one did that is repeated; removed in the end |
//!
//! What a process left that was killed is removed by the next one.

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use pipe_core::progress::Event;
use pipe_engine::identity::in_words;
use pipe_engine::kind::{Aside, Failure, RunContext, StageError};
use pipe_fs::{Disk, Lock, ProjectRoot, STATE_FOLDER, atomic};
use pipe_runs::changes::Place;
use pipe_runs::checkpoint::{self, header_beside};
use pipe_runs::{
    Checkpoint, CheckpointRecord, Header, Metadata, Run, Runs, Status, StoreError,
    file_digest_like, number_of,
};

use crate::run_match::RunCriteria;
use crate::selection::RunSelection;
use crate::training::Training;

/// Below the state's folder.
const FOLDER: &str = "again";
/// Key of a run's metadata: micro-batches of a batch, where memory was short.
const PIECES: &str = "pieces_per_batch";

/// A folder that is this process's own, and goes with it.
pub struct Slot {
    pub folder: PathBuf,
    pub lock: Lock,
    disk: Disk,
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Err(error) = atomic::remove_tree(&self.disk, &self.folder) {
            tracing::debug!("{error}");
        }
    }
}

impl Slot {
    /// An empty folder of a project. Removes those that nobody has any more.
    ///
    /// # Errors
    /// The disk's.
    pub fn take(root: &ProjectRoot) -> Result<Self, StageError> {
        let all = root.join(STATE_FOLDER).join(FOLDER);
        let storage = |e: std::io::Error| {
            let text = format!("failed to make {}: {e}", all.display());
            StageError::new(Failure::Storage, text)
        };
        atomic::create_needless_folder(root.disk(), &all).map_err(storage)?;
        atomic::remove_temporary_files(root.disk(), &all);
        let mut own = None;
        for number in 1u32.. {
            if let Some(lock) = take_lock(root.disk(), &all.join(number.to_string()))? {
                own = Some((all.join(number.to_string()), lock));
                break;
            }
        }
        let Some((folder, lock)) = own else {
            return Err(StageError::new(Failure::Storage, "no folder is free"));
        };
        for entry in std::fs::read_dir(&all).into_iter().flatten().flatten() {
            let left = entry.path();
            let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
            if left == folder || is_hidden || !left.is_dir() {
                continue;
            }
            if let Some(_free) = take_lock(root.disk(), &left)? {
                atomic::remove_tree(root.disk(), &left)?;
            }
        }
        if folder.exists() {
            atomic::remove_tree(root.disk(), &folder)?;
        }
        atomic::create_needless_folder(root.disk(), &folder).map_err(storage)?;
        Ok(Self { folder, lock, disk: root.disk().clone() })
    }
}

/// The lock of a folder, if nobody has it.
fn take_lock(disk: &Disk, folder: &Path) -> Result<Option<Lock>, StageError> {
    let taken = Lock::take(disk, &folder.with_added_extension("lock"));
    let taken = taken.map_err(|e| StageError::new(Failure::Storage, e.to_string()))?;
    Ok(taken.ok())
}

/// A part of a run, ready to be done once more.
pub struct Repeat {
    /// Aside.
    pub run: Run,
    /// The kept checkpoint that it goes on from; `None` for the run's beginning.
    pub start: Option<CheckpointRecord>,
    /// See [`Aside::micro_batch_splits`].
    pub micro_batch_splits: u32,
    /// Kept checkpoints that cannot be gone on from, each with the reason.
    pub passed_over: Vec<String>,
}

impl Repeat {
    /// Prepares what comes behind the newest kept checkpoint that `may_begin` allows, in `folder`.
    /// Neither the run nor its checkpoint is changed by what is done there.
    ///
    /// # Errors
    /// The settings were changed inside the run behind all that could be gone on from, or the disk
    /// refused.
    pub fn prepare(
        run: &Run,
        metadata: &Metadata,
        folder: &Path,
        may_begin: &dyn Fn(&CheckpointRecord) -> bool,
    ) -> Result<Self, StageError> {
        let mut passed_over = Vec::new();
        let resumes = metadata.settings.get("resumable") != Some(&false.into());
        let mut start = None;
        for record in metadata.checkpoints.iter().rev().filter(|c| resumes && may_begin(c)) {
            match is_as_recorded(run, metadata, record) {
                Ok(()) => {
                    start = Some(record.clone());
                    break;
                }
                Err(why) => passed_over.push(why),
            }
        }
        let begins = Place { epoch: start.as_ref().map_or(0, |c| c.epoch), step_in_epoch: 0 };
        if let Some(change) = metadata.changes.last().filter(|change| change.place() > begins) {
            let text = format!(
                "run {} went on with changed settings {}. What was trained before cannot be done with those of \
                 now, and no kept checkpoint lies between",
                run.number,
                change.in_words()
            );
            return Err(StageError::setting(text));
        }
        let disk = run.disk();
        let made = Runs::at(disk, folder).create_numbered(run.number.0)?.ok_or_else(|| {
            StageError::new(Failure::Bug, format!("{} is not empty", folder.display()))
        })?;
        atomic::create_folder(disk, &made.checkpoints())?;
        if let Some(record) = &start {
            hand_over(disk, &run.file_of(record), &made.folder.join(&record.path))?;
        }
        let mut begun = Metadata {
            status: Status::Interrupted,
            message: None,
            checkpoints: start.iter().cloned().collect(),
            best_checkpoint: None,
            partial_checkpoint: None,
            ..metadata.clone()
        };
        begun.history.retain(|e| e.epoch <= begins.epoch);
        begun.save(disk, &made.metadata_path())?;
        let pieces = metadata.other.get(PIECES).and_then(serde_json::Value::as_u64).unwrap_or(1);
        Ok(Self { run: made, start, micro_batch_splits: pieces.max(1).ilog2(), passed_over })
    }

    /// The checkpoint that it ended with, of an epoch. Where it is known when the run `saved` its own,
    /// it says that it was saved then: the same state is the same file, byte for byte.
    ///
    /// # Errors
    /// It made none of that epoch, or the disk refused.
    pub fn recomputed(
        &self,
        epoch: u64,
        saved: Option<DateTime<Utc>>,
    ) -> Result<Checkpoint, StageError> {
        let metadata = self.run.metadata()?;
        let found = metadata.checkpoints.iter().find(|c| c.epoch == epoch).ok_or_else(|| {
            let text = format!("it came to its end without a checkpoint of epoch {epoch}");
            StageError::new(Failure::Bug, text)
        })?;
        let (disk, path) = (self.run.disk(), self.run.file_of(found));
        let open = |path: &Path| Checkpoint::open(path).map_err(StoreError::from);
        let file = open(&path)?;
        let Some(saved_at) = saved else { return Ok(file) };
        let header = Header { saved_at, ..file.header().clone() };
        let target = self.run.folder.join("made.ckpt");
        if file.is_of_program() {
            checkpoint::take_in(disk, &path, &target, &header)?;
        } else {
            let mut loaded = file.load().map_err(StoreError::from)?;
            let names: Vec<String> = loaded.names().map(str::to_owned).collect();
            let tensors: Vec<_> = names.iter().filter_map(|name| loaded.take(name)).collect();
            checkpoint::write(disk, &target, &header, &tensors)?;
        }
        Ok(open(&target)?)
    }
}

/// Whether a kept checkpoint is still the file that its run recorded.
///
/// # Errors
/// What it is in its place, in words.
pub fn is_as_recorded(
    run: &Run,
    metadata: &Metadata,
    record: &CheckpointRecord,
) -> Result<(), String> {
    let path = run.file_of(record);
    let file = Checkpoint::open(&path).map_err(|e| e.to_string())?;
    file.verify().map_err(|e| e.to_string())?;
    let shown = path.display();
    if file.header().identity != metadata.identity {
        return Err(format!("{shown}: it is a checkpoint of another run"));
    }
    match file_digest_like(&path, &record.digest) {
        Ok(digest) if digest == record.digest => Ok(()),
        Ok(_) => Err(format!("{shown}: it is whole, and not the file that the run recorded")),
        Err(error) => Err(format!("{shown}: {error}")),
    }
}

/// Gives what is done aside its own name of a checkpoint; a copy of what a program wrote, which may
/// change it.
fn hand_over(disk: &Disk, from: &Path, to: &Path) -> Result<(), StageError> {
    if header_beside(from).exists() {
        copy_checkpoint(disk, from, to)
    } else {
        Ok(atomic::link(disk, from, to)?)
    }
}

/// Copies a checkpoint, whatever it is made of, to where nothing stands or a file of one's own does.
///
/// # Errors
/// The disk's.
pub fn copy_checkpoint(disk: &Disk, from: &Path, to: &Path) -> Result<(), StageError> {
    let file = Checkpoint::open(from).map_err(StoreError::from)?;
    if file.is_of_program() {
        atomic::copy(disk, &header_beside(from), &header_beside(to))?;
    }
    for path in file.files() {
        let inside = path.strip_prefix(from).unwrap_or(Path::new(""));
        let target = if inside.as_os_str().is_empty() { to.to_owned() } else { to.join(inside) };
        if let Some(above) = target.parent().filter(|_| target != to) {
            atomic::create_folder(disk, above)?;
        }
        atomic::copy(disk, &path, &target)?;
    }
    Ok(())
}

impl Training<'_> {
    /// The run that is prepared aside. `device`: what it is done on, where that is known.
    ///
    /// # Errors
    /// The settings or the data are others than the run's, or so is the device and nobody said that
    /// it may be.
    pub fn select_aside(
        &self,
        context: &RunContext,
        aside: &Aside,
        criteria: &RunCriteria,
        device: Option<&str>,
    ) -> Result<RunSelection, StageError> {
        let name = aside.folder.file_name().and_then(|name| number_of(name.to_str()?));
        let runs = aside.folder.parent().map(|above| Runs::at(context.root.disk(), above));
        let run = name.and_then(|number| runs?.find(number.0));
        let run = run.ok_or_else(|| StageError::new(Failure::Bug, "no run was prepared aside"))?;
        let metadata = run.metadata()?;
        let number = run.number;
        let changed = criteria.settings_changed(&metadata);
        if !changed.is_empty() {
            let words = in_words(&changed);
            let text = format!(
                "run {number} was trained with other settings than its config.yaml tells now: {words}"
            );
            return Err(StageError::setting(text));
        }
        if let Some(data) = criteria.data_changed(&metadata) {
            let (_, words) = criteria.changes(&metadata);
            let (what, back) = data.other();
            let text = format!("run {number} was trained {what}: {words}; {back}");
            return Err(StageError::new(Failure::Input, text));
        }
        if let Some(now) = device.filter(|now| *now != metadata.device) {
            let then = &metadata.device;
            if !aside.any_device {
                let text = format!(
                    "run {number} was trained on {then}, and this is {now}: another device computes other bits. \
                     --any-device goes on all the same"
                );
                return Err(StageError::setting(text));
            }
            let text = format!("it was trained on {then}, and this is {now}: the bits may differ");
            context.event(Event::Warning { text });
        }
        Ok(RunSelection::Existing(Box::new((run, metadata))))
    }
}

//! Numbered runs: `run_001`, `run_002`, … in a folder. A number is given out by creating its
//! folder, so that two processes never share one.

use std::path::{Path, PathBuf};

use pipe_fs::{Disk, Holder, Lock, host};

use super::checkpoint_path::{BEST, CHECKPOINTS, LAST, Name};
use super::run_number::number_of;
use super::{
    Checkpoint, CheckpointRecord, Metadata, RunNumber, Status, StoreError, found, metadata,
};
use pipe_fs::atomic::{self, WriteError};

/// The folder that holds numbered runs.
#[derive(Debug, Clone)]
pub struct Runs {
    folder: PathBuf,
    disk: Disk,
}

/// One run's folder.
#[derive(Debug, Clone)]
pub struct Run {
    pub number: RunNumber,
    pub folder: PathBuf,
    disk: Disk,
}

impl PartialEq for Run {
    fn eq(&self, other: &Self) -> bool {
        (self.number, &self.folder) == (other.number, &other.folder)
    }
}

impl Eq for Run {}

impl Runs {
    /// The runs of that folder, which need not be there yet, whose files are written as `disk` says.
    pub fn at(disk: &Disk, folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), disk: disk.clone() }
    }

    /// The folder that holds them.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// All runs, by number. Other files and folders are none of our business.
    pub fn list(&self) -> Vec<Run> {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return Vec::new() };
        let mut runs: Vec<Run> = entries
            .flatten()
            .filter_map(|entry| {
                let number = number_of(entry.file_name().to_str()?)?;
                entry.path().is_dir().then(|| self.run(number, entry.path()))
            })
            .collect();
        runs.sort_by_key(|r| r.number);
        runs
    }

    /// The run of that number, if there is one.
    pub fn find(&self, number: u32) -> Option<Run> {
        self.list().into_iter().find(|r| r.number.0 == number)
    }

    /// A new run with the next free number.
    pub fn create(&self) -> Result<Run, WriteError> {
        atomic::create_folder(&self.disk, &self.folder)?;
        let mut number = self.list().last().map_or(1, |r| r.number.0 + 1);
        loop {
            let run = self.numbered(number);
            if atomic::claim_folder(&self.disk, &run.folder)? {
                return Ok(run);
            }
            number += 1;
        }
    }

    /// A new run with a number of one's own; `None` if it exists.
    pub fn create_numbered(&self, number: u32) -> Result<Option<Run>, WriteError> {
        atomic::create_folder(&self.disk, &self.folder)?;
        let run = self.numbered(number);
        Ok(atomic::claim_folder(&self.disk, &run.folder)?.then_some(run))
    }

    fn numbered(&self, number: u32) -> Run {
        let number = RunNumber(number);
        self.run(number, self.folder.join(format!("run_{number}")))
    }

    fn run(&self, number: RunNumber, folder: PathBuf) -> Run {
        Run { number, folder, disk: self.disk.clone() }
    }
}

impl Run {
    /// How the run's files are written.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Where `metadata.json` is.
    pub fn metadata_path(&self) -> PathBuf {
        self.folder.join("metadata.json")
    }

    /// Where `config.yaml` is: the settings of the run as a pipeline file.
    pub fn config_path(&self) -> PathBuf {
        self.folder.join("config.yaml")
    }

    /// The folder of `metrics.jsonl` and TensorBoard's event files.
    pub fn logs(&self) -> PathBuf {
        self.folder.join("logs")
    }

    /// The folder of its checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.folder.join(CHECKPOINTS)
    }

    /// A hard link to the best checkpoint.
    pub fn best(&self) -> PathBuf {
        self.checkpoints().join(BEST)
    }

    /// A hard link to the newest checkpoint.
    pub fn last(&self) -> PathBuf {
        self.checkpoints().join(LAST)
    }

    /// Whether the run has metadata, readable or not.
    pub fn is_started(&self) -> bool {
        self.metadata_path().exists() || metadata::previous(&self.metadata_path()).exists()
    }

    /// Whether nothing is in the run's folder but what stands there before the first metadata: the
    /// lock, empty folders, temporary files. Anything else is worth something to somebody.
    pub fn is_empty(&self) -> bool {
        let lock = self.lock_path();
        is_empty(&self.folder, &|path| path == lock)
    }

    /// The metadata as it is true now: a run that says that it is running, and that nobody holds,
    /// was cut off.
    pub fn current_metadata(&self) -> Result<Metadata, StoreError> {
        if self.metadata()?.status != Status::Running || self.holder().is_some() {
            return self.metadata();
        }
        // Read again, since its process can have come to its end between the two looks.
        let mut metadata = self.metadata()?;
        if metadata.status == Status::Running {
            metadata.status = Status::Interrupted;
            metadata.message = metadata.message.or_else(|| Some("ended without a word".to_owned()));
        }
        Ok(metadata)
    }

    /// The most completed epochs that a checkpoint stands for which is on disk, as far as sizes and
    /// headers tell.
    pub fn epochs_on_disk(&self, metadata: &Metadata) -> u64 {
        found::epochs_on_disk(self, metadata)
    }

    /// The epochs that it has begun: those, one that is trained in part, and those of files that a
    /// crash kept out of the metadata.
    pub fn begun_epochs(&self, metadata: &Metadata) -> u64 {
        found::begun_epochs(self, metadata)
    }

    /// The file of a checkpoint: under its own name, or as `best.ckpt` or `last.ckpt` where that
    /// name is gone.
    pub fn file_of(&self, record: &CheckpointRecord) -> PathBuf {
        let own = self.folder.join(&record.path);
        let of_epoch = self.checkpoints().join(Name::Epoch(record.epoch).file());
        // The link to a folder does not come along into a store or an archive.
        for path in [&own, &of_epoch] {
            if path.exists() {
                return path.clone();
            }
        }
        let same = |path: &PathBuf| {
            let header = Checkpoint::open(path).ok().map(|file| file.header().clone());
            header.is_some_and(|h| {
                (h.global_step, h.saved_at) == (record.global_step, record.saved_at)
            })
        };
        [self.last(), self.best()].into_iter().find(same).unwrap_or(own)
    }

    /// Who has the run now, if anybody.
    pub fn holder(&self) -> Option<Holder> {
        Lock::holder(&self.disk, &self.lock_path())
    }

    /// The file that whoever has the run holds.
    pub fn lock_path(&self) -> PathBuf {
        self.folder.join("run.lock")
    }

    /// Takes the run for this process. Fails at once when another process has it, naming that one.
    pub fn lock(&self) -> Result<Lock, StoreError> {
        let taken = Lock::take(&self.disk, &self.lock_path())?;
        taken.map_err(|holder| StoreError::Held { run: self.number, holder: holder.0 })
    }
}

/// Whether a folder is that of a numbered run.
pub fn is_run_folder(path: &Path) -> bool {
    let number = path.file_name().and_then(|name| number_of(name.to_str()?));
    number.is_some() && path.join("metadata.json").exists()
}

fn is_empty(folder: &Path, is_ours: &dyn Fn(&Path) -> bool) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    entries.flatten().map(|entry| entry.path()).all(|path| {
        let temporary =
            path.file_name().is_some_and(|name| atomic::is_temporary(&name.to_string_lossy()));
        temporary || is_ours(&path) || (path.is_dir() && is_empty(&path, is_ours))
    })
}

/// The machine's name in characters that a file's name can hold.
pub(crate) fn host_in_file_name() -> String {
    pipe_core::names::plain_name(&host().replace('.', "-")).chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_never_shared() {
        let folder = tempfile::tempdir().unwrap();
        let mut numbers: Vec<u32> = std::thread::scope(|scope| {
            let start = || {
                scope.spawn(|| Runs::at(&Disk::default(), folder.path()).create().unwrap().number.0)
            };
            let threads: Vec<_> = (0..32).map(|_| start()).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        numbers.sort();
        assert_eq!(numbers, (1..=32).collect::<Vec<_>>());
    }

    #[test]
    fn only_runs_are_listed() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["run_001", "run_1", "run_0012", "run_1000", "other", "run_abc"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        std::fs::write(folder.path().join("run_007"), "a file").unwrap();
        let runs = Runs::at(&Disk::default(), folder.path());
        assert_eq!(runs.list().iter().map(|r| r.number.0).collect::<Vec<_>>(), [1, 1000]);
        assert_eq!(runs.create().unwrap().number.0, 1001);
        assert!(runs.create_numbered(1).unwrap().is_none());
        assert_eq!(runs.create_numbered(5).unwrap().unwrap().folder, folder.path().join("run_005"));
    }

    #[test]
    fn a_folder_with_anything_in_it_is_not_empty() {
        let folder = tempfile::tempdir().unwrap();
        let run = Runs::at(&Disk::default(), folder.path()).create().unwrap();
        drop(run.lock().unwrap());
        std::fs::create_dir(run.checkpoints()).unwrap();
        std::fs::write(run.folder.join(".metadata.json.tmp-1-1"), "half").unwrap();
        assert!(run.is_empty() && !run.is_started());
        let file = run.checkpoints().join("epoch_001.ckpt");
        std::fs::write(&file, "").unwrap();
        assert!(!run.is_empty());
        std::fs::remove_file(file).unwrap();
        std::fs::write(run.folder.join("metadata.json.previous"), "{}").unwrap();
        assert!(!run.is_empty() && run.is_started());
    }

    #[test]
    fn a_machine_s_name_is_no_path() {
        let name = host_in_file_name();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        assert!(!name.is_empty() && name.len() <= 64 && name.chars().all(plain), "{name}");
    }

    #[test]
    fn a_held_run_names_its_holder() {
        let folder = tempfile::tempdir().unwrap();
        let run = Runs::at(&Disk::default(), folder.path()).create().unwrap();
        let lock = run.lock().unwrap();
        let error = run.lock().unwrap_err().to_string();
        assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
        drop(lock);
        run.lock().unwrap();
    }
}

//! Puts a run's folder in order when the run is opened again: what a crash left, what a person
//! deleted or put there.

use std::path::{Path, PathBuf};

use pipe_fs::{atomic, is_same_file};

use super::{CheckpointManager, record};
use crate::checkpoint::{self, Checkpoint, Header, header_beside};
use crate::checkpoint_path::Name;
use crate::found::checkpoint_files;
use crate::{CheckpointPath, PartialRecord, StoreError};

impl CheckpointManager {
    /// Whether a checkpoint stands there that is none of this run's, or not the one of that name.
    fn is_foreign(&self, path: &Path) -> bool {
        let (own, name) = (&self.metadata.identity, Name::of_file(path));
        let fits =
            |header: &Header| header.identity == *own && name.is_none_or(|name| name.fits(header));
        Checkpoint::open(path).is_ok_and(|file| !fits(file.header()) && file.verify().is_ok())
    }

    /// Gives a foreign checkpoint that stands under the name of one to be written a name of its
    /// own.
    pub(super) fn set_aside(&self, path: &Path) -> Result<(), StoreError> {
        if self.is_foreign(path) {
            let name = |n: u32| path.with_extension(format!("of_another_run_{n}.ckpt"));
            let free = (1..).map(name).find(|path| !path.exists());
            free.map_or(Ok(()), |free| checkpoint::rename(self.run.disk(), path, &free))?;
        }
        Ok(())
    }

    /// Gives the checkpoints that `best.ckpt` and `last.ckpt` hold their own names back where those
    /// are gone or damaged: they are checkpoints like others, and are listed, kept and compared by
    /// those names.
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
            checkpoint::link(self.run.disk(), &link, &own)?;
            if name.is_epoch() && self.metadata.checkpoints.iter().all(|c| c.epoch != header.epoch)
            {
                let bytes = file.bytes();
                let digest = file.head_digest().to_owned();
                self.metadata.checkpoints.push(record(&header, name, bytes, digest));
                self.metadata.checkpoints.sort_by_key(|c| c.epoch);
            }
        }
        Ok(())
    }

    /// Makes `metadata.json` and the links agree with the checkpoint files that stand on disk.
    pub(super) fn reconcile(&mut self) -> Result<(), StoreError> {
        self.restore_names()?;
        self.strike_off_missing();
        let mut gone = Vec::new();
        for (name, path) in checkpoint_files(&self.run) {
            gone.extend(self.adopt(name, path));
        }
        self.remove_lone_headers()?;
        self.renew_links()?;
        self.write_metadata()?;
        for path in gone {
            checkpoint::remove(self.run.disk(), &path)?;
        }
        Ok(())
    }

    /// Removes headers of programs' checkpoints that are not there: not moved in yet, or removed
    /// already.
    fn remove_lone_headers(&self) -> Result<(), StoreError> {
        for entry in std::fs::read_dir(self.run.checkpoints()).into_iter().flatten().flatten() {
            let path = entry.path();
            let whose = path.with_extension("");
            let is_header = header_beside(&whose) == path && Name::of_file(&whose).is_some();
            if is_header && !whose.exists() {
                atomic::remove(self.run.disk(), &path)?;
            }
        }
        Ok(())
    }

    /// Takes checkpoints off the list that are not there any more, or are another run's.
    fn strike_off_missing(&mut self) {
        let folder = self.run.folder.clone();
        let stands = |path: &CheckpointPath| {
            folder.join(path).exists() && !self.is_foreign(&folder.join(path))
        };
        let standing: Vec<bool> =
            self.metadata.checkpoints.iter().map(|c| stands(&c.path)).collect();
        let mut standing = standing.into_iter();
        self.metadata.checkpoints.retain(|_| standing.next().unwrap_or(false));
        if self.metadata.partial_checkpoint.as_ref().is_some_and(|p| !folder.join(&p.path).exists())
        {
            self.metadata.partial_checkpoint = None;
        }
    }

    /// Lists a checkpoint of this run that is not listed. Gives the files that are not needed then,
    /// which may be this one.
    fn adopt(&mut self, name: Name, path: PathBuf) -> Vec<PathBuf> {
        let Ok(found) = Checkpoint::open(&path) else { return Vec::new() };
        let relative = CheckpointPath::new(name);
        let header = found.header().clone();
        if header.identity != self.metadata.identity || !name.fits(&header) {
            return Vec::new();
        }
        let partial = self.metadata.partial_checkpoint.as_ref();
        let listed = self.metadata.checkpoints.iter().any(|c| c.path == relative)
            || partial.is_some_and(|p| p.path == relative);
        if listed || found.verify().is_err() {
            return Vec::new();
        }
        let newest = self.metadata.checkpoints.last().map_or(0, |c| c.global_step);
        let newest_partial = partial.map(|p| p.global_step);
        let bytes = found.bytes();
        let digest = found.head_digest().to_owned();
        let mut gone = Vec::new();
        if name.is_epoch() && header.global_step > newest {
            // Written, and the process ended before the metadata was.
            if let Some(state) = found.state_digest() {
                self.note_saved(&header, &digest, state);
            }
            self.metadata.checkpoints.push(record(&header, name, bytes, digest));
            self.metadata.checkpoints.sort_by_key(|c| c.epoch);
            // It has just been verified, so what it makes needless can go.
            if newest_partial.is_some_and(|step| step <= header.global_step) {
                gone.extend(self.strike_off_partial());
            }
            for epoch in self.policy.surplus(&self.known()) {
                gone.extend(self.strike_off(epoch));
            }
        } else if !name.is_epoch() && header.global_step > newest.max(newest_partial.unwrap_or(0)) {
            gone.extend(self.strike_off_partial());
            self.metadata.partial_checkpoint = Some(PartialRecord::of(&header, bytes, digest));
        } else {
            // Taken off the list, and the process ended before the file was removed.
            gone.push(path);
        }
        gone
    }

    /// Makes `best.ckpt` and `last.ckpt` those of the list.
    fn renew_links(&mut self) -> Result<(), StoreError> {
        let folder = self.run.folder.clone();
        let known = self.known();
        let best = self.policy.best(&known).map(|k| k.epoch);
        self.metadata.best_checkpoint = None;
        best.map_or(Ok(()), |epoch| self.link_best(epoch))?;
        let last_epoch = self.metadata.checkpoints.last().map(|c| (c.global_step, c.path.clone()));
        let partial =
            self.metadata.partial_checkpoint.as_ref().map(|p| (p.global_step, p.path.clone()));
        if let Some((_, path)) = last_epoch.into_iter().chain(partial).max() {
            checkpoint::link(self.run.disk(), &folder.join(path), &self.run.last())?;
        }
        Ok(())
    }
}

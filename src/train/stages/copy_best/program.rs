//! The copy of a checkpoint that a program wrote in a form of its own: a file or a folder, with its
//! header beside it.

use std::fs;
use std::path::{Path, PathBuf};

use pipe_engine::kind::{Failure, RunContext, StageError};
use pipe_engine::state::Output;
use pipe_fs::{atomic, copy, sha256_of};
use pipe_runs::Checkpoint;
use pipe_runs::checkpoint::{header_beside, remove};

use super::super::artifacts::CheckpointFile;
use super::{CopyBest, Link};

impl CopyBest {
    /// Copies what a program wrote. Returns its digest.
    pub(super) fn write_program_copy(
        &self,
        context: &RunContext,
        file: &Checkpoint,
        source: &CheckpointFile,
    ) -> Result<String, StageError> {
        let (to, disk) = (&self.settings.to, context.root.disk());
        let target = context.root.join(to);
        let replaced = self.check_ownership(context, to, &[&source.digest])?;
        let beside = header_beside(to);
        let header = file_of(&header_beside(&source.path))?;
        self.check_ownership(context, &beside, &[&header.0])?;
        // The note first: after a crash between the two, the next run knows the copy as its own.
        let planned = vec![
            Output::expected(&to.display().to_string(), &source.digest, source.bytes),
            // Written last: without it the copy is not whole.
            Output::expected(&beside.display().to_string(), &header.0, header.1),
        ];
        context.record_outputs(planned, Vec::new(), replaced)?;
        let above = target.parent().unwrap_or(&context.root);
        atomic::create_folder(disk, above)?;
        let scratch = atomic::half_copy(&target);
        for path in [&target, &header_beside(&target), &scratch] {
            atomic::remove_temporary_files_for(disk, path);
        }
        if scratch.exists() {
            atomic::remove_tree(disk, &scratch)?;
        }
        let is_folder = source.path.is_dir();
        for from in file.files() {
            let inner = from.strip_prefix(&source.path).unwrap_or(Path::new(""));
            let copied = if is_folder { scratch.join(inner) } else { target.clone() };
            atomic::create_folder(disk, copied.parent().unwrap_or(above))?;
            match self.settings.link {
                Link::None => copy::copy(disk, &from, &copied)?,
                Link::Hard => copy::link_read_only(disk, &from, &copied)?,
            }
        }
        if is_folder {
            if fs::symlink_metadata(&target).is_ok() {
                remove(disk, &target)?;
            }
            atomic::move_in(disk, &scratch, &target)?;
        }
        copy::copy(disk, &header_beside(&source.path), &header_beside(&target))?;
        let copied = Checkpoint::open(&target).and_then(|copy| copy.verify().map(|()| copy));
        let copied = copied.map_err(|e| StageError::new(Failure::Storage, e.to_string()))?;
        // The whole first: by it a copy is known. Each file besides, so that a change is found.
        let mut paths: Vec<PathBuf> = vec![target.clone(), header_beside(&target)];
        paths.extend(copied.files().into_iter().filter(|path| *path != target));
        let relative =
            |path: &Path| path.strip_prefix(&context.root).unwrap_or(path).display().to_string();
        let outputs = paths.iter().map(|path| context.output(&relative(path), None));
        context.record_outputs(outputs.collect::<Result<_, _>>()?, Vec::new(), Vec::new())?;
        Ok(source.digest.clone())
    }
}

/// Digest and length of a file.
fn file_of(path: &Path) -> Result<(String, u64), StageError> {
    let read = || Ok::<_, std::io::Error>((sha256_of(path)?, fs::metadata(path)?.len()));
    let wrong = |e| StageError::new(Failure::Input, format!("{}: {e}", path.display()));
    read().map_err(wrong)
}

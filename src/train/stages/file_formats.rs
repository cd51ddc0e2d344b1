//! What the engine is told about the files of trainings.

use std::io;
use std::path::{Path, PathBuf};

use pipe_engine::kind::FileFormats;
use pipe_runs::{CHECKPOINTS, file_digest, file_digest_like, is_run_folder};

/// Checkpoints count by the digests in their headers, and numbered runs are no sources.
pub struct RunFiles;

impl FileFormats for RunFiles {
    fn digest(&self, file: &Path, known: Option<&str>) -> io::Result<String> {
        match known {
            Some(known) => file_digest_like(file, known),
            None => file_digest(file),
        }
    }

    fn is_work_folder(&self, folder: &Path) -> bool {
        is_run_folder(folder)
    }

    fn saved_file(&self, run: &Path, name: &str) -> PathBuf {
        run.join(CHECKPOINTS).join(name)
    }
}

//! What the engine is told about files whose form it does not know.

use std::io;
use std::path::{Path, PathBuf};

/// Knowledge of files and folders that stages write and read.
pub trait FileFormats: Send + Sync {
    /// What identifies the content of a file, such as `sha256:…`. Records keep it. `known`: an
    /// earlier digest of the file that this one is compared with, so it is of the same form.
    fn digest(&self, file: &Path, known: Option<&str>) -> io::Result<String>;

    /// Whether a folder is one in which stages keep their own work, such as that of a numbered run.
    /// A stage that reads the whole project does not read it.
    fn is_work_folder(&self, folder: &Path) -> bool;

    /// Where a file that a stage saved is, by the name under which it tells of it: in the folder of
    /// its work.
    fn saved_file(&self, work_folder: &Path, name: &str) -> PathBuf {
        work_folder.join(name)
    }
}

/// Files are bytes, and folders are folders.
pub struct PlainFiles;

impl FileFormats for PlainFiles {
    fn digest(&self, file: &Path, _known: Option<&str>) -> io::Result<String> {
        pipe_fs::sha256_of(file)
    }

    fn is_work_folder(&self, _folder: &Path) -> bool {
        false
    }
}

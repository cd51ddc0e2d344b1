//! What can be made again: files in the project's `.pipe/cache`. Losing or damaging them costs time
//! and nothing else.

use std::ops::Deref;
use std::path::{Path, PathBuf};

use pipe_fs::{Disk, ProjectRoot, STATE_FOLDER};

pub(crate) mod decoded_images;
pub(crate) mod file_digests;
pub(crate) mod file_lists;
pub(crate) mod verified_images;
pub(crate) mod write;

/// The project's cache, and how its files are written. It reads as a path.
#[derive(Clone)]
pub struct CacheFolder {
    path: PathBuf,
    disk: Disk,
}

impl CacheFolder {
    pub fn of(project: &ProjectRoot) -> Self {
        Self { path: project.join(STATE_FOLDER).join("cache"), disk: project.disk().clone() }
    }

    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Puts `bytes` into a file below it, all of them or none. A file that cannot be written is as
    /// good as lost: the log says so, and nothing else happens.
    pub fn keep(&self, name: &Path, bytes: &[u8]) {
        write::write(&self.disk, &self.path.join(name), bytes);
    }
}

impl Deref for CacheFolder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

//! The folders of which is known that they stand where they do: what was made durable once need not
//! be again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;
use std::{fs, io};

/// By path.
pub type KnownFolders = Mutex<BTreeMap<PathBuf, FolderId>>;

/// A folder as one that was made anew under the same name is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FolderId {
    pub disk: u64,
    inode: u64,
    /// The numbers of what was removed are given out again.
    born: Option<SystemTime>,
}

impl FolderId {
    #[cfg(unix)]
    pub fn of(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let metadata = fs::metadata(path)?;
        Ok(Self { disk: metadata.dev(), inode: metadata.ino(), born: metadata.created().ok() })
    }

    #[cfg(not(unix))]
    pub fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { disk: 0, inode: 0, born: fs::metadata(path)?.created().ok() })
    }
}

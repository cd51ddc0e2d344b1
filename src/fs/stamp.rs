//! What of a file changes when its content does, so that a file is read again only when it may be
//! another one.

use std::fs::Metadata;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

#[cfg(unix)]
use crate::fault;

/// A file that changed so shortly before it was read may change again without a new time: clocks of
/// file systems tick coarsely. It is read once more the next time.
const COARSE: Duration = Duration::from_secs(2);

/// Size, times and number of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    pub bytes: u64,
    /// When the content was last changed, in nanoseconds since 1970, as far as the times are
    /// believed.
    pub modified: u64,
    /// When anything of the file was last changed, in nanoseconds since 1970. It changes even where
    /// somebody sets `modified` back. On systems without it: `modified`.
    pub changed: u64,
    /// The number that the file system has for the file; another one when a file was put in its
    /// place. 0 on systems without it.
    pub inode: u64,
}

impl Stamp {
    /// What a look at the file said.
    pub fn of(metadata: &Metadata) -> Self {
        let modified = modified(metadata);
        #[cfg(unix)]
        let (changed, inode) = if fault::stamps_are_short() {
            (modified, 0)
        } else {
            use std::os::unix::fs::MetadataExt;
            let changed = metadata
                .ctime()
                .saturating_mul(1_000_000_000)
                .saturating_add(metadata.ctime_nsec());
            (u64::try_from(changed).unwrap_or(0), metadata.ino())
        };
        #[cfg(not(unix))]
        let (changed, inode) = (modified, 0);
        Self { bytes: metadata.len(), modified, changed, inode }
    }

    /// Whether a file that was read at `read` or later, and has this stamp still, has the content
    /// that was read.
    pub fn tells(&self, read: SystemTime) -> bool {
        self.newest() < nanoseconds(read.checked_sub(COARSE).unwrap_or(UNIX_EPOCH))
    }

    /// Whether what is written now may get the time `newest` again.
    pub fn may_recur(newest: u64) -> bool {
        newest >= nanoseconds(SystemTime::now().checked_sub(COARSE).unwrap_or(UNIX_EPOCH))
    }

    /// The later of its times.
    pub fn newest(&self) -> u64 {
        self.modified.max(self.changed)
    }
}

/// When a file was last changed, in nanoseconds since 1970.
pub fn modified(metadata: &Metadata) -> u64 {
    metadata.modified().map_or(0, nanoseconds)
}

/// Nanoseconds since 1970; 0 for a time before.
pub fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Whether two paths are names of one file. Where the system does not tell, they are not.
pub fn is_same_file(a: &Path, b: &Path) -> bool {
    file_id(a).is_some() && file_id(a) == file_id(b)
}

/// What all names of one file have in common; `None` if there is no file, or the system does not
/// tell.
pub fn file_id(path: &Path) -> Option<(u64, u64)> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()))
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_tells_nothing_until_the_clock_has_surely_moved_on() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let stamp = Stamp {
            bytes: 1,
            modified: nanoseconds(at(50)),
            changed: nanoseconds(at(100)),
            inode: 7,
        };
        assert!(
            !stamp.tells(at(100)) && !stamp.tells(at(102)),
            "it may change again in the same tick"
        );
        assert!(stamp.tells(at(103)));
        let ahead = Stamp { modified: nanoseconds(at(500)), ..stamp };
        assert!(!ahead.tells(at(103)), "another machine's clock");
    }
}

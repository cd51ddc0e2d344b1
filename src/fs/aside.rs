//! Gives what is damaged another name, so that it is in nobody's way and not lost.

use std::fs;
use std::path::{Path, PathBuf};

use crate::disk::Disk;
use crate::fault::{Change, point};
use crate::sync::sync_name;
use crate::watch::FileEvent;
use crate::write_error::{WriteError, failed};

/// The ending of what was set aside.
const ASIDE: &str = "damaged";

/// Whether a file or folder of that name was set aside.
pub fn is_set_aside(name: &str) -> bool {
    name_before(name).is_some()
}

/// The name that a file or folder had before it was set aside, if it was.
pub fn name_before(name: &str) -> Option<&str> {
    let (before, end) = name.rsplit_once('.')?;
    let is_number = |n: &str| n.bytes().all(|b| b.is_ascii_digit());
    (end == ASIDE || end.strip_prefix("damaged-").is_some_and(is_number)).then_some(before)
}

/// Gives a file or folder a free name beside its own, which it returns.
pub fn set_aside(disk: &Disk, path: &Path) -> Result<PathBuf, WriteError> {
    let name = |n: u32| {
        path.with_added_extension(if n == 1 { ASIDE.into() } else { format!("{ASIDE}-{n}") })
    };
    let free = (1..).map(name).find(|free| fs::symlink_metadata(free).is_err()).unwrap_or_default();
    let renamed = point(disk, Change::Rename, path).and_then(|()| fs::rename(path, &free));
    renamed.map_err(failed(disk, "set aside", path))?;
    disk.notify(FileEvent::Removed(path));
    sync_name(disk, path)?;
    Ok(free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_has_a_name_of_its_own_and_is_known_by_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("best.ckpt");
        let mut names = Vec::new();
        for content in ["a", "b", "c"] {
            fs::write(&path, content).unwrap();
            let aside = set_aside(&Disk::default(), &path).unwrap();
            assert_eq!(fs::read_to_string(&aside).unwrap(), content);
            names.push(aside.file_name().unwrap().to_string_lossy().into_owned());
        }
        assert_eq!(names, ["best.ckpt.damaged", "best.ckpt.damaged-2", "best.ckpt.damaged-3"]);
        assert!(names.iter().all(|name| name_before(name) == Some("best.ckpt")) && !path.exists());
        for other in ["damaged", "a.ckpt", "a.damaged-x", "a.damaged.ckpt", ""] {
            assert!(!is_set_aside(other), "{other}");
        }
    }
}

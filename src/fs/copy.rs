//! A file's content under another name: as a file of its own, which nobody who writes to it damages
//! the first one with.

use std::fs;
use std::path::Path;

use crate::atomic;
use crate::disk::Disk;
use crate::write_error::{WriteError, failed};

pub use crate::atomic::copy;

/// Makes `to` another name of `from`, and the file one that nobody can write to. Removing and
/// replacing either name still works. Where hard links are not supported, a copy.
pub fn link_read_only(disk: &Disk, from: &Path, to: &Path) -> Result<(), WriteError> {
    atomic::link(disk, from, to)?;
    let mut permissions = fs::metadata(to).map_err(failed(disk, "protect", to))?.permissions();
    permissions.set_readonly(true);
    fs::set_permissions(to, permissions).map_err(failed(disk, "protect", to))
}

/// Whether the file at `path` has a further name, and whoever has write access to it: a program
/// that changes it in its place changes what stands under the other name too.
pub fn is_writable_link(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(path).is_ok_and(|m| m.nlink() > 1 && !m.permissions().readonly())
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_a_file_of_its_own_and_replaces_a_link() {
        let (disk, folder) = (Disk::default(), tempfile::tempdir().unwrap());
        let [a, b, c] = ["a", "b", "c"].map(|name| folder.path().join(name));
        fs::write(&a, "content").unwrap();
        fs::hard_link(&a, &b).unwrap();
        assert!(is_writable_link(&a) && is_writable_link(&b));
        copy(&disk, &a, &b).unwrap();
        copy(&disk, &a, &c).unwrap();
        assert!(!is_writable_link(&a));
        for path in [&b, &c] {
            fs::write(path, "other").unwrap();
        }
        assert_eq!(fs::read(&a).unwrap(), b"content");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
        assert!(copy(&disk, &folder.path().join("missing"), &b).is_err());
        assert_eq!(fs::read(&b).unwrap(), b"other");
    }

    #[cfg(unix)]
    #[test]
    fn a_read_only_link_is_replaced_and_removed_like_others() {
        let (disk, folder) = (Disk::default(), tempfile::tempdir().unwrap());
        let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
        fs::write(&a, "content").unwrap();
        link_read_only(&disk, &a, &b).unwrap();
        assert!(!is_writable_link(&a) && fs::metadata(&a).unwrap().permissions().readonly());
        atomic::write(&disk, &a, |out| out.write_all(b"newer")).unwrap();
        assert_eq!(fs::read(&b).unwrap(), b"content");
        link_read_only(&disk, &a, &b).unwrap();
        atomic::remove(&disk, &a).unwrap();
        assert_eq!(fs::read(&b).unwrap(), b"newer");
        copy(&disk, &b, &a).unwrap();
        fs::write(&a, "other").unwrap();
        assert_eq!(fs::read(&b).unwrap(), b"newer");
    }
}

//! Folders that are one thing, such as a checkpoint of many files: moved into their place, and given
//! a second name.

use std::fs;
use std::io;
use std::path::Path;

use crate::atomic::put_in_place;
use crate::disk::Disk;
use crate::fault::{Change, point};
use crate::sync::sync_name;
use crate::temporary::temporary;
use crate::watch::FileEvent;
use crate::write_error::{WriteError, failed};

/// Puts a file or folder that others wrote in its place, as [`put_in_place`] does, and tells who
/// listens of each file.
pub fn move_in(disk: &Disk, written: &Path, path: &Path) -> Result<(), WriteError> {
    put_in_place(disk, written, path)?;
    tell(disk, path);
    Ok(())
}

fn tell(disk: &Disk, path: &Path) {
    if !path.is_dir() {
        return disk.notify(FileEvent::Written(path));
    }
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        tell(disk, &entry.path());
    }
}

/// Makes `link` a symbolic link to a folder that stands beside it, replacing what stood there.
pub fn link_folder(disk: &Disk, folder: &Path, link: &Path) -> Result<(), WriteError> {
    let name = Path::new(folder.file_name().unwrap_or_default());
    if fs::read_link(link).is_ok_and(|target| target == name) {
        return sync_name(disk, link);
    }
    let temporary = temporary(link);
    let linked = point(disk, Change::Link, link)
        .and_then(|()| symlink(name, &temporary))
        .and_then(|()| point(disk, Change::Rename, link))
        .and_then(|()| fs::rename(&temporary, link));
    if linked.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    linked.map_err(failed(disk, "link", link))?;
    sync_name(disk, link)
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_dir(target, link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_folder_is_moved_in_and_its_second_name_renewed() {
        let (disk, folder) = (Disk::default(), tempfile::tempdir().unwrap());
        let at = |name: &str| folder.path().join(name);
        for name in ["one", "two"] {
            fs::create_dir_all(at("scratch").join(name).join("inner")).unwrap();
            fs::write(at("scratch").join(name).join("inner/file"), name).unwrap();
            move_in(&disk, &at("scratch").join(name), &at(name)).unwrap();
            link_folder(&disk, &at(name), &at("last")).unwrap();
            assert_eq!(fs::read_to_string(at("last/inner/file")).unwrap(), name);
        }
        assert_eq!(fs::read_link(at("last")).unwrap(), Path::new("two"));
        assert!(at("one/inner/file").is_file() && !at("scratch/one").exists());
        // A link in the place of a file, and the other way round.
        fs::write(at("file"), "").unwrap();
        link_folder(&disk, &at("two"), &at("file")).unwrap();
        assert!(at("file").is_dir());
    }
}

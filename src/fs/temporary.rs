//! Files that are not to be seen yet, or not any more: their names, and removing those that a crash
//! left.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use pipe_core::digest::hex;
use sha2::{Digest, Sha256};

use crate::disk::Disk;
use crate::sync;

/// Marks our temporary files: `.NAME.tmp-PID-N`.
const TEMPORARY: &str = ".tmp-";

/// A name for what is not to be seen yet, or not any more.
pub fn temporary(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = shortened(&name);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".{name}{TEMPORARY}{}-{count}", std::process::id()))
}

/// Bytes of a name that a temporary file has in its own: file systems take 255 for both.
const LONGEST: usize = 200;

/// A name that leaves room for the rest of a temporary file's: its beginning and a digest, where it
/// is long.
fn shortened(name: &str) -> Cow<'_, str> {
    if name.len() <= LONGEST {
        return Cow::Borrowed(name);
    }
    let digest = hex(&Sha256::digest(name));
    Cow::Owned(format!("{}~{}", &name[..name.floor_char_boundary(LONGEST - 17)], &digest[..16]))
}

/// What a folder that is copied file by file is called until it is whole: `.NAME.copying`.
pub fn half_copy(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{}{COPYING}", shortened(&name)))
}

const COPYING: &str = ".copying";

/// The files and folders beside those of `paths` that whoever wrote these left when it died: half
/// ones, and those that were about to be removed.
pub fn halves_beside<'a>(paths: impl Iterator<Item = &'a Path>) -> Vec<PathBuf> {
    let mut folders: BTreeMap<&Path, BTreeSet<String>> = BTreeMap::new();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let above = path.parent().unwrap_or(Path::new(""));
        folders.entry(above).or_default().insert(shortened(&name).into_owned());
    }
    let mut found = Vec::new();
    for (folder, names) in folders {
        let listed = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        for entry in fs::read_dir(listed).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if half_of(&name.to_string_lossy()).is_some_and(|whole| names.contains(whole)) {
                found.push(folder.join(name));
            }
        }
    }
    found.sort();
    found
}

/// The name, as [`shortened`] has it, of what a half file or folder was to be.
fn half_of(name: &str) -> Option<&str> {
    let finished = finished_name(name);
    let copied = finished.unwrap_or(name).strip_prefix('.').and_then(|n| n.strip_suffix(COPYING));
    copied.or(finished)
}

/// Whether a file of that name is one of ours that was never finished.
pub fn is_temporary(name: &str) -> bool {
    finished_name(name).is_some()
}

/// The name that a temporary file would have got, as [`shortened`] has it.
fn finished_name(name: &str) -> Option<&str> {
    let (finished, writer) = name.strip_prefix('.')?.rsplit_once(TEMPORARY)?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    writer
        .split_once('-')
        .filter(|(pid, count)| is_number(pid) && is_number(count))
        .map(|_| finished)
}

/// Removes the temporary files that a writer which died left in a folder. Nobody may write there
/// now.
pub fn remove_temporary_files(disk: &Disk, folder: &Path) {
    remove_temporary_files_if(disk, folder, |_| true);
}

/// Removes the temporary files that writers of this file left when they died. Nobody may write it
/// now.
pub fn remove_temporary_files_for(disk: &Disk, path: &Path) {
    let own = path.file_name().map(|name| name.to_string_lossy());
    let own = own.as_deref().map(shortened);
    remove_temporary_files_if(disk, path.parent().unwrap_or(Path::new(".")), |name| {
        Some(name) == own.as_deref()
    });
}

/// Removes the temporary files of the names that `goes` accepts.
pub fn remove_temporary_files_if(disk: &Disk, folder: &Path, goes: impl Fn(&str) -> bool) {
    disk.counters().list();
    let mut is_changed = false;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let found = entry.file_name();
        let found = found.to_string_lossy();
        if finished_name(&found).is_some_and(&goes) {
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let path = entry.path();
            let removed = if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            is_changed |= removed.is_ok();
        }
    }
    // Or else a power cut brings them back when nobody looks here any more.
    if is_changed {
        let _ = sync::names(disk, folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_are_swept_and_nothing_else() {
        let (disk, folder) = (Disk::default(), tempfile::tempdir().unwrap());
        for name in [".a.ckpt.tmp-1-0", "a.ckpt", ".hidden", ".notes.tmp-backup", ".x.tmp-1"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        remove_temporary_files(&disk, folder.path());
        let mut left: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".hidden", ".notes.tmp-backup", ".x.tmp-1", "a.ckpt"]);
    }

    #[test]
    fn halves_are_known_by_what_they_were_to_be() {
        let folder = tempfile::tempdir().unwrap();
        let long = "x".repeat(255);
        let at = |name: &str| folder.path().join(name);
        let copy = half_copy(&at("m"));
        let halves = [temporary(&at("m")), temporary(&copy), copy, half_copy(&at(&long))];
        let others = [at("m"), at(".m"), temporary(&at("n")), half_copy(&at("n")), at("m.copying")];
        halves.iter().chain(&others).for_each(|path| fs::write(path, "").unwrap());
        let mut expected = halves.to_vec();
        expected.sort();
        let known = [at("m"), at(&long)];
        assert_eq!(halves_beside(known.iter().map(PathBuf::as_path)), expected);
    }

    #[test]
    fn a_name_of_any_length_has_a_temporary_one_of_its_own() {
        let (disk, folder) = (Disk::default(), tempfile::tempdir().unwrap());
        let path = |name: &str| folder.path().join(name);
        for name in ["x".repeat(200), "x".repeat(255), "\u{e4}".repeat(127), "a.ckpt".to_owned()] {
            let (file, other) = (temporary(&path(&name)), format!("{}y", &name[..name.len() - 2]));
            fs::write(&file, "").unwrap();
            let shown = file.file_name().unwrap().to_str().unwrap();
            assert!(is_temporary(shown), "{shown}");
            remove_temporary_files_for(&disk, &path(&other));
            assert!(file.exists(), "{other} is another name");
            remove_temporary_files_for(&disk, &path(&name));
            assert!(!file.exists(), "{name}");
        }
    }
}

//! Every change that the store makes to a folder, in the one order that survives a crash at any instant. Knows
//! nothing of what the files hold.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A change that failed: which file, what was tried.
#[derive(Debug, thiserror::Error)]
#[error("failed to {action} {}: {source}{}", path.display(), hint(source))]
pub struct WriteError {
    pub action: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            " (make room, or lower checkpoint.keep_last_n; what was saved before stands)"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            " (the folder must be writable)"
        }
        _ => "",
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> WriteError {
    let path = path.to_owned();
    move |source| WriteError { action, path, source }
}

/// Marks our temporary files: `.NAME.tmp-PID-N`.
const TEMPORARY: &str = ".tmp-";

/// A name for what is not to be seen yet, or not any more.
fn temporary(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".{name}{TEMPORARY}{}-{count}", std::process::id()))
}

pub(super) fn is_temporary(name: &str) -> bool {
    name.starts_with('.') && name.contains(TEMPORARY)
}

/// Writes a file so that at every instant either the old content or the whole new one stands under its name:
/// temporary file, fsync, rename, fsync of the folder. The temporary file is removed on failure.
pub fn write(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), WriteError> {
    let temporary = temporary(path);
    let written = (|| {
        let file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        let mut writer = BufWriter::with_capacity(1 << 20, file);
        fill(&mut writer)?;
        let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if let Err(error) = written {
        let _ = fs::remove_file(&temporary);
        return Err(failed("write", path)(error));
    }
    sync_folder(path)
}

/// Makes `link` another name of `existing`, replacing what stood there. Where hard links are not supported, a copy.
pub fn link(existing: &Path, link: &Path) -> Result<(), WriteError> {
    let temporary = temporary(link);
    if fs::hard_link(existing, &temporary).is_err() {
        return write(link, |out| io::copy(&mut File::open(existing)?, out).map(drop));
    }
    // Renaming one name of a file over another name of the same file does nothing and leaves both.
    let renamed = fs::rename(&temporary, link);
    let _ = fs::remove_file(&temporary);
    renamed.map_err(failed("link", link))?;
    sync_folder(link)
}

/// Removes a file; one that is gone already is fine.
pub fn remove(path: &Path) -> Result<(), WriteError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => sync_folder(path),
    }
}

/// Removes a folder with all in it. It is out of sight in one step: what a crash leaves is a hidden folder, not half of
/// this one.
pub fn remove_tree(path: &Path) -> Result<(), WriteError> {
    let hidden = temporary(path);
    fs::rename(path, &hidden).map_err(failed("remove", path))?;
    fs::remove_dir_all(&hidden).map_err(failed("remove", path))?;
    sync_folder(path)
}

/// Creates a folder and its parents.
pub fn create_folder(path: &Path) -> Result<(), WriteError> {
    fs::create_dir_all(path).map_err(failed("create the folder", path))
}

/// Creates a folder that must be new: `false` if it exists already. Two processes never both get `true`.
pub fn claim_folder(path: &Path) -> Result<bool, WriteError> {
    match fs::create_dir(path) {
        Ok(()) => sync_folder(path).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(failed("create the folder", path)(error)),
    }
}

/// Removes the temporary files that a writer which died left in a folder.
pub fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if is_temporary(&entry.file_name().to_string_lossy()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Makes a new or changed name durable.
fn sync_folder(path: &Path) -> Result<(), WriteError> {
    let Some(folder) = path.parent() else { return Ok(()) };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    // Windows cannot open folders; its renames are durable without it.
    if cfg!(windows) {
        return Ok(());
    }
    File::open(folder).and_then(|f| f.sync_all()).map_err(failed("sync the folder", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_content_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write(&path, |out| out.write_all(b"old")).unwrap();
        let error = write(&path, |out| {
            out.write_all(b"half")?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        });
        assert!(error.unwrap_err().to_string().contains("make room"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn links_share_their_bytes_and_can_be_renewed() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b, l] = ["a", "b", "l"].map(|n| folder.path().join(n));
        fs::write(&a, "a").unwrap();
        fs::write(&b, "b").unwrap();
        link(&a, &l).unwrap();
        link(&a, &l).unwrap();
        link(&b, &l).unwrap();
        assert_eq!(fs::read(&l).unwrap(), b"b");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn leftovers_are_swept_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        for name in [".a.ckpt.tmp-1-0", "a.ckpt", ".hidden"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        sweep(folder.path());
        let mut left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".hidden", "a.ckpt"]);
    }
}

//! Every change that the store makes to a folder, in the one order that survives a crash at any
//! instant. Knows nothing of what the files hold.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::disk::Disk;
use crate::fault::{Change, point};
use crate::project::still_there;
use crate::stamp::{Stamp, is_same_file};
use crate::sync::{self, sync_name};
use crate::watch::FileEvent;
use crate::writeback::FaultyFile;

pub use crate::log::Log;
pub use crate::temporary::{
    half_copy, halves_beside, is_temporary, remove_temporary_files, remove_temporary_files_for,
    remove_temporary_files_if, temporary,
};
pub use crate::tree::{link_folder, move_in};
pub use crate::write_error::{WriteError, failed};

/// Writes a file so that at every instant either the old content or the whole new one stands under
/// its name: temporary file, fsync, rename, fsync of the folder. The temporary file is removed on
/// failure.
pub fn write(
    disk: &Disk,
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), WriteError> {
    replace(disk, path, |out| fill(out))
}

/// Writes a file that a person named. A link stays, and what it leads to is replaced as a whole; a
/// pipe or a device gets the bytes.
pub fn write_named(
    disk: &Disk,
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), WriteError> {
    if is_stream(path) {
        stream(path, fill).map_err(failed(disk, "write", path))
    } else {
        write(disk, &behind_links(path), fill)
    }
}

/// Whether what is written to a path goes somewhere else than into a file: into a pipe, a device,
/// an open file.
pub fn is_stream(path: &Path) -> bool {
    let of_process = ["/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/fd", "/proc"];
    of_process.iter().any(|place| path.starts_with(place))
        || fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir())
}

fn stream(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    // A file behind it would be opened once more, and written from its beginning.
    if ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"].iter().any(|own| path == *own) {
        let mut out = io::stdout().lock();
        fill(&mut out)?;
        return out.flush();
    }
    let mut out = BufWriter::new(OpenOptions::new().write(true).open(path)?);
    fill(&mut out)?;
    out.flush()
}

/// The file that a link leads to, through others, there or not yet; the path itself if it is no
/// link.
pub fn behind_links(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    // As many as systems follow.
    for _ in 0..40 {
        let Ok(target) = fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    path
}

/// Puts a copy of `from` in the place of `to` as [`write`](fn@write) does. Where the file system
/// can, the two share their blocks until one of them is changed (a reflink): that takes no room and
/// no time.
pub fn copy(disk: &Disk, from: &Path, to: &Path) -> Result<(), WriteError> {
    replace(disk, to, |out| {
        let mut source = File::open(from)?;
        if out.get_ref().shares_blocks_of(&source) {
            Ok(())
        } else {
            io::copy(&mut source, out).map(drop)
        }
    })
}

/// The same for a file whose first bytes are known last: `fill` leaves room for what `head` returns
/// then.
pub fn write_head_last(
    disk: &Disk,
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    head: impl FnOnce() -> Vec<u8>,
) -> Result<(), WriteError> {
    replace(disk, path, |out| {
        fill(out)?;
        out.rewind()?;
        out.write_all(&head())
    })
}

fn replace(
    disk: &Disk,
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<FaultyFile>) -> io::Result<()>,
) -> Result<(), WriteError> {
    if is_special(path) {
        let error = io::Error::other(
            "it is a pipe or a device, and a file is to be put there: name another",
        );
        return Err(failed(disk, "write", path)(error));
    }
    let temporary = temporary(path);
    let written = (|| {
        point(disk, Change::Create, &temporary)?;
        let file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        let mut writer = BufWriter::with_capacity(1 << 20, FaultyFile::new(disk, file, &temporary));
        fill(&mut writer)?;
        writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync()?;
        point(disk, Change::Rename, path)?;
        fs::rename(&temporary, path)
    })();
    if let Err(error) = written {
        // Durably: a power cut would bring it back beside a file that a second try wrote.
        if fs::remove_file(&temporary).is_ok() {
            let _ = sync_name(disk, &temporary);
        }
        return Err(failed(disk, "write", path)(error));
    }
    disk.notify(FileEvent::Written(path));
    sync_name(disk, path)
}

/// Whether something else than a file, a folder or a link stands there. It is never replaced.
fn is_special(path: &Path) -> bool {
    let plain = |kind: fs::FileType| kind.is_file() || kind.is_dir() || kind.is_symlink();
    fs::symlink_metadata(path).is_ok_and(|found| !plain(found.file_type()))
}

/// Makes `link` another name of `existing`, replacing what stood there. Where hard links are not
/// supported, a copy.
pub fn link(disk: &Disk, existing: &Path, link: &Path) -> Result<(), WriteError> {
    // Renaming one name of a file over another name of the same file does nothing and leaves both.
    if !existing.is_symlink() && !link.is_symlink() && is_same_file(existing, link) {
        return sync_name(disk, link);
    }
    let temporary = temporary(link);
    point(disk, Change::Link, link).map_err(failed(disk, "link", link))?;
    if fs::hard_link(existing, &temporary).is_err() {
        return write(disk, link, |out| io::copy(&mut File::open(existing)?, out).map(drop));
    }
    let renamed = point(disk, Change::Rename, link).and_then(|()| fs::rename(&temporary, link));
    let _ = fs::remove_file(&temporary);
    renamed.map_err(failed(disk, "link", link))?;
    disk.notify(FileEvent::Written(link));
    sync_name(disk, link)
}

/// Puts a file or folder that others wrote in its place, where nothing may stand; all of it is
/// durable before.
pub fn put_in_place(disk: &Disk, written: &Path, path: &Path) -> Result<(), WriteError> {
    if written.is_dir() {
        sync::tree(disk, written)?
    } else {
        sync::contents(disk, &[written.to_owned()])?
    }
    let renamed = point(disk, Change::Rename, path).and_then(|()| fs::rename(written, path));
    renamed.map_err(failed(disk, "put in place", path))?;
    sync_name(disk, path)?;
    if written.parent() == path.parent() { Ok(()) } else { sync_name(disk, written) }
}

/// Puts a folder that is whole in the place of an empty one, which this process claimed with
/// [`claim_folder`]. Both lie in the same folder. Where that fails, neither is there as `path`.
pub fn replace_empty_folder(disk: &Disk, written: &Path, path: &Path) -> Result<(), WriteError> {
    // Elsewhere an empty folder is in the way.
    let placed = if cfg!(unix) { Ok(()) } else { fs::remove_dir(path) };
    let placed = placed.map_err(failed(disk, "put in place", path));
    let placed = placed.and_then(|()| put_in_place(disk, written, path));
    if placed.is_err() {
        let _ = fs::remove_dir(path);
    }
    placed
}

/// Removes a file; one that is gone already is fine, and so is one whose folder is.
pub fn remove(disk: &Disk, path: &Path) -> Result<(), WriteError> {
    match point(disk, Change::Remove, path).and_then(|()| fs::remove_file(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed(disk, "remove", path)(error))
        }
        // Whoever removed the folder answers for its name.
        Err(_) if path.parent().is_some_and(is_gone) => Ok(()),
        _ => {
            disk.notify(FileEvent::Removed(path));
            sync_name(disk, path)
        }
    }
}

fn is_gone(folder: &Path) -> bool {
    !folder.as_os_str().is_empty() && !folder.exists()
}

/// Removes a folder with all in it. It is out of sight in one step: what a crash leaves is a hidden
/// folder, not half of this one.
pub fn remove_tree(disk: &Disk, path: &Path) -> Result<(), WriteError> {
    let hidden = temporary(path);
    let renamed = point(disk, Change::Rename, path).and_then(|()| fs::rename(path, &hidden));
    if renamed.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::CrossesDevices) {
        return remove_in_place(disk, path);
    }
    renamed.map_err(failed(disk, "remove", path))?;
    disk.notify(FileEvent::Removed(path));
    // Or else a power cut can leave the name with a part of what it had.
    sync_name(disk, path)?;
    let removed = point(disk, Change::Remove, &hidden).and_then(|()| fs::remove_dir_all(&hidden));
    removed.map_err(failed(disk, "remove", path))?;
    sync_name(disk, path)
}

/// The same where a folder cannot be renamed: on overlayfs, one of a lower layer. The files beside
/// its folders go first: a run that lost its metadata is gone on with by nobody, and can be removed
/// once more.
fn remove_in_place(disk: &Disk, path: &Path) -> Result<(), WriteError> {
    let files = || {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                point(disk, Change::Remove, &entry.path())?;
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    };
    files().map_err(failed(disk, "remove", path))?;
    disk.notify(FileEvent::Removed(path));
    sync::names(disk, path)?;
    let removed = point(disk, Change::Remove, path).and_then(|()| fs::remove_dir_all(path));
    removed.map_err(failed(disk, "remove", path))?;
    sync_name(disk, path)
}

/// Waits until what is written beside `path` gets a later time than `time`, in nanoseconds since
/// 1970. Gives up after a few seconds: the time may be one of another machine's clock. What a crash
/// leaves of it looks like a half `path`.
pub fn wait_past(disk: &Disk, path: &Path, time: u64) -> Result<(), WriteError> {
    let (begun, probe) = (Instant::now(), temporary(path));
    let newest = || {
        fs::write(&probe, "")?;
        let now = Stamp::of(&fs::metadata(&probe)?).newest();
        fs::remove_file(&probe)?;
        io::Result::Ok(now)
    };
    while newest().map_err(failed(disk, "write beside", path))? <= time
        && begun.elapsed() <= Duration::from_secs(3)
    {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Creates a folder and its parents for what can be made again. A power cut may take them away.
pub fn create_needless_folder(disk: &Disk, path: &Path) -> io::Result<()> {
    still_there(disk, path)?;
    fs::create_dir_all(path)
}

/// Creates a folder and its parents, each for good: a power cut must not take a parent away with
/// all in it. That holds for those that stand already as well.
pub fn create_folder(disk: &Disk, path: &Path) -> Result<(), WriteError> {
    if !path.as_os_str().is_empty() && !path.is_dir() {
        still_there(disk, path).map_err(failed(disk, "find the project", path))?;
        path.parent().map_or(Ok(()), |above| create_folder(disk, above))?;
        if claim_folder(disk, path)? {
            return Ok(());
        }
    }
    sync::rely_on(disk, path)
}

/// Creates a folder that must be new: `false` if it exists already. Two processes never both get
/// `true`.
pub fn claim_folder(disk: &Disk, path: &Path) -> Result<bool, WriteError> {
    match point(disk, Change::Folder, path).and_then(|()| fs::create_dir(path)) {
        Ok(()) => sync::folder_created(disk, path).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(failed(disk, "create the folder", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_content_and_nothing_else() {
        let (disk, folder) = (Disk::default(), tempfile::tempdir().unwrap());
        let path = folder.path().join("a");
        write(&disk, &path, |out| out.write_all(b"old")).unwrap();
        let error = write(&disk, &path, |out| {
            out.write_all(b"half")?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        });
        assert!(error.unwrap_err().to_string().contains("make room"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn links_share_their_bytes_and_can_be_renewed() {
        let (disk, folder) = (Disk::default(), tempfile::tempdir().unwrap());
        let [a, b, l] = ["a", "b", "l"].map(|n| folder.path().join(n));
        fs::write(&a, "a").unwrap();
        fs::write(&b, "b").unwrap();
        link(&disk, &a, &l).unwrap();
        link(&disk, &a, &l).unwrap();
        link(&disk, &b, &l).unwrap();
        assert_eq!(fs::read(&l).unwrap(), b"b");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_folder_that_cannot_be_renamed_is_removed_where_it_is() {
        let (disk, folder) = (Disk::default(), tempfile::tempdir().unwrap());
        let run = folder.path().join("run_001");
        create_folder(&disk, &run.join("checkpoints")).unwrap();
        fs::write(run.join("metadata.json"), "").unwrap();
        fs::write(run.join("checkpoints/best.ckpt"), "").unwrap();
        remove_in_place(&disk, &run).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    #[cfg(unix)]
    fn a_person_s_link_stays_and_a_pipe_gets_the_bytes() {
        let (disk, folder) = (Disk::default(), tempfile::tempdir().unwrap());
        let [there, link, other, pipe] =
            ["there", "link", "other", "pipe"].map(|n| folder.path().join(n));
        let text = |text: &'static str| move |out: &mut dyn Write| out.write_all(text.as_bytes());
        std::os::unix::fs::symlink("there", &link).unwrap();
        std::os::unix::fs::symlink(&link, &other).unwrap();
        for content in ["one", "two"] {
            write_named(&disk, &other, text(content)).unwrap();
            assert_eq!(fs::read_to_string(&there).unwrap(), content);
        }
        assert!(link.is_symlink() && other.is_symlink());

        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::read_to_string(pipe).unwrap()
        });
        write_named(&disk, &pipe, text("bytes")).unwrap();
        assert_eq!(reader.join().unwrap(), "bytes");
        assert!(
            write(&disk, &pipe, text("x")).unwrap_err().to_string().contains("a pipe or a device")
        );
        assert!(is_special(&pipe) && fs::read_dir(folder.path()).unwrap().count() == 4);
    }
}

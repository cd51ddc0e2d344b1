//! Has the disk keep what was written: the one place that asks for it. A file is durable once its
//! content was synced, and every folder on the way to it: a name lasts when the folder that it
//! stands in was synced. Nothing that depends on a file is written before that.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::disk::Disk;
use crate::fault::{Change, point};
use crate::known_folders::FolderId;
use crate::write_error::{WriteError, failed};

pub use crate::level::Level;

fn is_at_least(disk: &Disk, level: Level) -> bool {
    disk.level() as u8 <= level as u8
}

/// Makes the content of a file durable.
pub(crate) fn file(disk: &Disk, file: &File, path: &Path) -> io::Result<()> {
    if !is_at_least(disk, Level::Data) {
        return Ok(());
    }
    point(disk, Change::Sync, path)?;
    file.sync_all()
}

/// Whether contents of files are synced at all.
pub(crate) fn keeps_files(disk: &Disk) -> bool {
    is_at_least(disk, Level::Data)
}

/// Makes the names in a folder durable, and the folder itself.
///
/// # Errors
/// The disk's. A file system that cannot sync folders is warned of once.
pub fn names(disk: &Disk, folder: &Path) -> Result<(), WriteError> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    rely_on(disk, folder)?;
    sync_folder(disk, folder, &warn)
}

/// Makes a new or changed name durable.
pub(crate) fn sync_name(disk: &Disk, path: &Path) -> Result<(), WriteError> {
    path.parent().map_or(Ok(()), |folder| names(disk, folder))
}

/// Whether the names in a folder are synced: it is asked for, and its file system can. That it
/// cannot is warned of once.
///
/// # Errors
/// The disk's.
pub fn keeps_names(disk: &Disk, folder: &Path) -> Result<bool, WriteError> {
    let is_able = AtomicBool::new(true);
    sync_folder(disk, folder, &|folder, error| {
        is_able.store(false, Ordering::Relaxed);
        warn(folder, error);
    })?;
    Ok(syncs_folders(disk) && is_able.into_inner())
}

/// Makes durable that a folder stands where it does. It was perhaps made by a process that was
/// killed before it could sync the folder around it. What was done once with this disk is
/// remembered.
///
/// # Errors
/// The disk's.
pub fn rely_on(disk: &Disk, folder: &Path) -> Result<(), WriteError> {
    have_known(disk, folder, false)
}

/// The same for a folder that was made just now.
pub(crate) fn folder_created(disk: &Disk, folder: &Path) -> Result<(), WriteError> {
    have_known(disk, folder, true)
}

fn have_known(disk: &Disk, folder: &Path, is_new: bool) -> Result<(), WriteError> {
    if !syncs_folders(disk) {
        return Ok(());
    }
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    // Held while the disk is asked: other threads need the same folders, and once is enough.
    let mut known = disk.known_folders().lock().unwrap_or_else(PoisonError::into_inner);
    let looked_at =
        |path: &Path| FolderId::of(path).map_err(failed(disk, "look at the folder", path));
    let asked = (folder.to_owned(), looked_at(folder)?);
    if !is_new && known.get(&asked.0) == Some(&asked.1) {
        return Ok(());
    }
    let whole = folder.canonicalize().map_err(failed(disk, "look at the folder", folder))?;
    if is_new {
        known.remove(&whole);
    }
    let (mut new, mut at) = (Vec::new(), (whole.clone(), asked.1));
    while known.get(&at.0) != Some(&at.1) {
        // What a disk is mounted on is none of its names.
        let above = at.0.parent().map(|above| (above.to_owned(), FolderId::of(above)));
        let Some((above, Ok(id))) =
            above.filter(|(_, id)| id.as_ref().is_ok_and(|id| id.disk == at.1.disk))
        else {
            break;
        };
        new.push(std::mem::replace(&mut at, (above, id)));
    }
    // From the top, so that a name never stands in a folder that does not.
    for (path, id) in new.into_iter().rev() {
        // Folders above the project may be such that one may not even look into them.
        path.parent().map_or(Ok(()), |above| sync_folder(disk, above, &|_, _| {}))?;
        known.insert(path, id);
    }
    known.insert(asked.0, asked.1);
    Ok(())
}

/// Makes files durable that others wrote: their content, and every name that leads to them from
/// `root`.
///
/// # Errors
/// The disk's, or that a file is gone.
pub fn files(disk: &Disk, root: &Path, files: &[PathBuf]) -> Result<(), WriteError> {
    if !is_at_least(disk, Level::Data) {
        return Ok(());
    }
    contents(disk, files)?;
    if !syncs_folders(disk) {
        return Ok(());
    }
    let (mut inside, mut elsewhere) = (BTreeSet::new(), BTreeSet::new());
    for file in files {
        let looked_at = failed(disk, "look at", file);
        if fs::symlink_metadata(file).map_err(looked_at)?.is_symlink() {
            let target = file.canonicalize().map_err(failed(disk, "look at", file))?;
            elsewhere.extend(target.parent().map(Path::to_owned));
        }
        let folders = file.ancestors().skip(1).take_while(|folder| folder.starts_with(root));
        for folder in folders {
            if !inside.insert(folder.to_owned()) {
                break;
            }
            if folder != root && fs::symlink_metadata(folder).is_ok_and(|found| found.is_symlink())
            {
                elsewhere.insert(folder.canonicalize().map_err(failed(disk, "look at", folder))?);
            }
        }
    }
    rely_on(disk, root)?;
    // Whoever wrote the files may have made any of the folders anew.
    inside.iter().try_for_each(|folder| sync_folder(disk, folder, &warn))?;
    elsewhere.iter().try_for_each(|folder| names(disk, folder))
}

/// Makes a folder durable that others filled, with all in it.
///
/// # Errors
/// The disk's.
pub fn tree(disk: &Disk, folder: &Path) -> Result<(), WriteError> {
    if !is_at_least(disk, Level::Data) {
        return Ok(());
    }
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    let mut next = 0;
    while let Some(at) = folders.get(next).cloned() {
        next += 1;
        for entry in fs::read_dir(&at).map_err(failed(disk, "read the folder", &at))? {
            let kind = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)));
            match kind.map_err(failed(disk, "read the folder", &at))? {
                (path, kind) if kind.is_dir() => folders.push(path),
                (path, kind) if kind.is_file() => files.push(path),
                _ => {}
            }
        }
    }
    contents(disk, &files)?;
    if syncs_folders(disk) {
        folders.iter().try_for_each(|folder| sync_folder(disk, folder, &warn))
    } else {
        Ok(())
    }
}

/// Files are synced by so many threads at a time: the disk takes in what several wait for as one.
const THREADS: usize = 32;
/// A thread is worth it for so many files.
const FILES_OF_A_THREAD: usize = 8;

/// Makes the contents of files durable that others wrote.
pub fn contents(disk: &Disk, files: &[PathBuf]) -> Result<(), WriteError> {
    let (next, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = || {
        while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            if is_over.load(Ordering::Relaxed) {
                break;
            }
            // Windows syncs only what is open for writing.
            let opened = File::options().read(true).write(cfg!(windows)).open(path);
            if let Err(error) = opened.and_then(|open| file(disk, &open, path)) {
                is_over.store(true, Ordering::Relaxed);
                return Err(failed(disk, "sync", path)(error));
            }
        }
        Ok(())
    };
    let threads = (files.len() / FILES_OF_A_THREAD).clamp(1, THREADS);
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads)
            .map_while(|_| {
                std::thread::Builder::new().name("sync".into()).spawn_scoped(scope, work).ok()
            })
            .collect();
        let own = work();
        let join = |other: std::thread::ScopedJoinHandle<_>| {
            other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        others.into_iter().map(join).fold(own, Result::and)
    })
}

/// Windows cannot open folders; its renames are durable without it.
fn syncs_folders(disk: &Disk) -> bool {
    cfg!(not(windows)) && is_at_least(disk, Level::Full)
}

fn sync_folder(
    disk: &Disk,
    folder: &Path,
    unable: &dyn Fn(&Path, &io::Error),
) -> Result<(), WriteError> {
    if !syncs_folders(disk) {
        return Ok(());
    }
    point(disk, Change::Sync, folder).map_err(failed(disk, "sync the folder", folder))?;
    match File::open(folder).and_then(|opened| opened.sync_all()) {
        Err(error) if is_unable(&error) => {
            unable(folder, &error);
            Ok(())
        }
        done => done.map_err(failed(disk, "sync the folder", folder)),
    }
}

/// Whether an error says that a file system does not do a thing, and not that it went wrong.
#[cfg(unix)]
fn is_unable(error: &io::Error) -> bool {
    use rustix::io::Errno;
    const UNABLE: [Errno; 9] = [
        Errno::INVAL,
        Errno::NOTSUP,
        Errno::OPNOTSUPP,
        Errno::NOSYS,
        Errno::NOTTY,
        Errno::BADF,
        Errno::ISDIR,
        Errno::ACCESS,
        Errno::PERM,
    ];
    Errno::from_io_error(error).is_some_and(|error| UNABLE.contains(&error))
}

#[cfg(not(unix))]
fn is_unable(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied)
}

/// Says once what is lost where folders cannot be synced.
fn warn(folder: &Path, error: &io::Error) {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if !WARNED.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            "{} cannot be synced ({error}): after a power cut, what was saved last can be missing here, or be as it \
             was before. `fsync: data` in the pipeline file says that this is fine, and this warning goes",
            folder.display()
        );
    }
}

//! Unpacking `.tar.gz` files that may come from anyone.
//!
//! Only folders and plain files whose paths stay inside are accepted, up to a total size.
//! Everything is unpacked beside its target, synced and renamed at the end, so that neither an
//! error nor a power cut leaves something half-written behind.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Take};
use std::path::{Component, Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use pipe_fs::{Disk, atomic};
use tar::{Archive, Entry};

use super::hashed_file::HashedFile;
use super::{lock, long_names};
use crate::error::DataError;

/// How much an archive may hold when unpacked.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of all files together.
    pub bytes: u64,
    /// Files and folders together.
    pub entries: usize,
}

impl Default for Limits {
    /// 4 GiB in a million files and folders.
    fn default() -> Self {
        Self { bytes: 4 << 30, entries: 1_000_000 }
    }
}

/// Unpacks `archive` to the folder `target`, once: when it is there already, nothing is done and
/// `None` returned. When all entries lie in one folder, that folder becomes `target`. Returns the
/// MD5 of the archive.
///
/// Fails on absolute paths, `..`, links, devices, an entry that stands twice, a truncated or
/// corrupt archive, and one that exceeds `limits`; the message names the entry, and `target` is not
/// there afterwards.
pub fn unpack(
    disk: &Disk,
    archive: &Path,
    target: &Path,
    limits: Limits,
) -> Result<Option<String>, DataError> {
    if target.exists() {
        return Ok(None);
    }
    let _lock = lock::beside(disk, target)?;
    if target.exists() {
        return Ok(None);
    }
    let partial = partial(target);
    remove(&partial)?; // left by a process that was killed
    let result = unpack_into(archive, &partial, limits).and_then(|md5| {
        atomic::put_in_place(disk, &only_folder(&partial)?, target)?;
        Ok(Some(md5))
    });
    remove(&partial)?;
    result
}

/// Removes what stands beside a folder that was unpacked whole: a power cut can bring it back.
pub fn remove_leftovers(disk: &Disk, target: &Path) -> Result<(), DataError> {
    let partial = partial(target);
    if !partial.exists() {
        return Ok(());
    }
    let _lock = lock::beside(disk, target)?;
    if target.exists() { remove(&partial) } else { Ok(()) }
}

/// Where an archive is unpacked before all of it is there.
fn partial(target: &Path) -> PathBuf {
    let mut partial = target.as_os_str().to_owned();
    partial.push(".part");
    PathBuf::from(partial)
}

/// Removes a folder, if it is there.
pub(super) fn remove(folder: &Path) -> Result<(), DataError> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(DataError::io("remove", folder)(e)),
        _ => Ok(()),
    }
}

/// The one folder in `folder`, or `folder` itself when there is more in it.
fn only_folder(folder: &Path) -> Result<PathBuf, DataError> {
    let entries: Vec<_> = fs::read_dir(folder)
        .and_then(Iterator::collect)
        .map_err(DataError::io("read the folder", folder))?;
    match entries.as_slice() {
        [only] if only.path().is_dir() => Ok(only.path()),
        _ => Ok(folder.to_owned()),
    }
}

fn unpack_into(archive: &Path, folder: &Path, limits: Limits) -> Result<String, DataError> {
    fs::create_dir_all(folder).map_err(DataError::io("create the folder", folder))?;
    for_each_entry(archive, limits, |name, entry| {
        let path = folder.join(name);
        let parent =
            if entry.header().entry_type().is_dir() { Some(path.as_path()) } else { path.parent() };
        fs::create_dir_all(parent.unwrap_or(folder))?;
        if entry.header().entry_type().is_file() {
            io::copy(entry, &mut File::create_new(&path)?)?;
        }
        Ok(())
    })
}

/// An entry of an archive as it is read.
pub(crate) type ArchiveEntry<'a> = Entry<'a, Take<MultiGzDecoder<BufReader<HashedFile>>>>;

/// Calls `visit(path, entry)` for each file and folder of the archive, in its order; then reads to
/// the end, where gzip keeps its checksum. Returns the archive's MD5.
pub(crate) fn for_each_entry(
    archive: &Path,
    limits: Limits,
    mut visit: impl FnMut(&Path, &mut ArchiveEntry<'_>) -> io::Result<()>,
) -> Result<String, DataError> {
    // Headers come on top of the files; the bound also holds for what the tar reader itself keeps
    // in memory.
    let most = limits.bytes.saturating_add(limits.entries as u64 * 2048);
    let gzip = MultiGzDecoder::new(BufReader::new(HashedFile::open(archive)?));
    let mut tar = Archive::new(gzip.take(most));
    let mut at = "at the start".to_owned();
    let (mut bytes, mut count) = (0u64, 0usize);
    let mut named = None;
    // Raw: the reader would take names of any length into memory.
    for entry in tar.entries().map_err(|e| DataError::archive(archive, &at, e))?.raw(true) {
        let mut entry = entry.map_err(|e| DataError::archive(archive, &at, e))?;
        if long_names::take(&mut entry, &mut named)
            .map_err(|e| DataError::archive(archive, &at, e))?
        {
            continue;
        }
        let own = || entry.path().map(Cow::into_owned);
        let name =
            named.take().map_or_else(own, Ok).map_err(|e| DataError::archive(archive, &at, e))?;
        let (size, offset) = (entry.size(), entry.raw_header_position());
        at = format!("entry {}, at byte {offset} of the unpacked data", name.display());
        let refuse = |reason: String| DataError::archive(archive, &at, reason);

        let kind = entry.header().entry_type();
        if !kind.is_file() && !kind.is_dir() {
            return Err(refuse(format!(
                "it is a link, device or other special file ({kind:?}), which is refused"
            )));
        }
        if name.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(refuse("its path leaves the folder, which is refused".into()));
        }
        (bytes, count) = (bytes.saturating_add(size), count + 1);
        if bytes > limits.bytes || count > limits.entries {
            return Err(refuse(format!(
                "the archive holds more than {} bytes or {} files",
                limits.bytes, limits.entries
            )));
        }
        visit(&name, &mut entry).map_err(|e| refuse(e.to_string()))?;
        // What `visit` left unread; a truncated archive shows here at the latest.
        io::copy(&mut entry, &mut io::sink()).map_err(|e| refuse(e.to_string()))?;
        at = format!("after entry {}", name.display());
    }
    let mut rest = tar.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(|e| DataError::archive(archive, &at, e))?;
    rest.into_inner().into_inner().into_inner().finish().map_err(DataError::io("read", archive))
}

//! A file's content at one moment, whatever its name means later. Files are put in place by
//! renaming, so an open file never changes. Small files are read at once, so that few are open.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use pipe_fs::modified;

/// A file up to this size is kept in memory.
const IN_MEMORY_LIMIT: u64 = 64 << 10;
/// At most so many files are held open. Of further ones the name is kept, and whether it still
/// means the same file is checked when it is opened.
const MAX_OPEN: usize = 64;

/// Of the whole process, which may have so many open.
static OPEN_FILES: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug)]
pub(crate) struct Snapshot {
    content: Content,
    pub bytes: u64,
    /// In nanoseconds since 1970.
    pub modified: u64,
    id: Option<FileId>,
}

#[derive(Debug)]
enum Content {
    Bytes(Vec<u8>),
    File(OpenFile),
    Name(PathBuf),
}

/// Which file it is, whatever its names.
pub(crate) type FileId = (u64, u64);

/// A snapshot that is open for reading.
pub(crate) enum OpenSnapshot<'a> {
    Bytes(&'a [u8]),
    File(File),
}

#[derive(Debug)]
struct OpenFile(File);

impl OpenFile {
    fn new(file: File) -> Result<Self, File> {
        if OPEN_FILES.fetch_add(1, Ordering::Relaxed) < MAX_OPEN {
            return Ok(Self(file));
        }
        OPEN_FILES.fetch_sub(1, Ordering::Relaxed);
        Err(file)
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        OPEN_FILES.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Snapshot {
    pub fn of(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        let (bytes, modified, id) = (metadata.len(), modified(&metadata), id(&metadata));
        let content = if bytes <= IN_MEMORY_LIMIT {
            let mut content = Vec::with_capacity(bytes as usize);
            file.by_ref().take(bytes).read_to_end(&mut content)?;
            Content::Bytes(content)
        } else {
            match OpenFile::new(file) {
                Ok(held) => Content::File(held),
                Err(_) => Content::Name(path.to_owned()),
            }
        };
        // A file that only grows may have grown since its length was asked for.
        let bytes =
            if let Content::Bytes(content) = &content { content.len() as u64 } else { bytes };
        Ok(Self { content, bytes, modified, id })
    }

    /// A key that tells this content from others without reading it: file, bytes and time.
    pub fn file_key(&self) -> Option<(FileId, u64, u64)> {
        Some((self.id?, self.bytes, self.modified))
    }

    /// Opens it for reading.
    ///
    /// # Errors
    /// Only its name was kept, and by now that means another file.
    pub fn open(&self) -> io::Result<OpenSnapshot<'_>> {
        match &self.content {
            Content::Bytes(bytes) => Ok(OpenSnapshot::Bytes(bytes)),
            Content::File(held) => Ok(OpenSnapshot::File(held.0.try_clone()?)),
            Content::Name(path) => {
                let file = File::open(path)?;
                let now = file.metadata()?;
                if (now.len(), modified(&now), id(&now)) == (self.bytes, self.modified, self.id) {
                    Ok(OpenSnapshot::File(file))
                } else {
                    Err(io::Error::new(io::ErrorKind::NotFound, "it has been replaced meanwhile"))
                }
            }
        }
    }
}

#[cfg(unix)]
fn id(metadata: &std::fs::Metadata) -> Option<FileId> {
    use std::os::unix::fs::MetadataExt;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn id(_: &std::fs::Metadata) -> Option<FileId> {
    None
}

#[cfg(test)]
mod tests {
    use pipe_fs::{Disk, atomic};

    use super::*;

    #[test]
    fn what_was_pinned_stays_when_its_name_means_something_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        for size in [10, 2 * IN_MEMORY_LIMIT as usize] {
            let put = |byte: u8| {
                atomic::write(&Disk::default(), &path, |out| out.write_all(&vec![byte; size]))
                    .unwrap()
            };
            put(1);
            let snapshot = Snapshot::of(&path).unwrap();
            put(2);
            std::fs::remove_file(&path).unwrap();
            let content = match snapshot.open().unwrap() {
                OpenSnapshot::Bytes(bytes) => bytes.to_vec(),
                OpenSnapshot::File(mut file) => {
                    let mut bytes = Vec::new();
                    file.read_to_end(&mut bytes).unwrap();
                    bytes
                }
            };
            assert_eq!(content, vec![1; size]);
        }
    }

    #[test]
    fn of_very_many_files_names_are_kept_and_a_change_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |i: usize| folder.path().join(i.to_string());
        let write = |i: usize| {
            atomic::write(&Disk::default(), &path(i), |out| {
                out.write_all(&vec![0; 2 * IN_MEMORY_LIMIT as usize])
            })
            .unwrap()
        };
        let snapshots: Vec<Snapshot> = (0..MAX_OPEN + 2)
            .map(|i| {
                write(i);
                Snapshot::of(&path(i)).unwrap()
            })
            .collect();
        write(MAX_OPEN);
        write(MAX_OPEN + 1);
        // Other tests hold files too, so the last one at least.
        assert!(snapshots[MAX_OPEN + 1].open().is_err());
        assert!(snapshots[0].open().is_ok());
    }
}

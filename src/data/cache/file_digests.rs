//! What is known of the files of a folder since they were last read, so that a file is read again
//! only when its size or one of its times changed.
//!
//! An index is a file in the project's cache folder. Losing it costs time and nothing else: one
//! that is damaged, from another version or not writable is as good as none.
//!
//! Format, integers little-endian: [`MAGIC`]; for each file, by name: SHA-256 of its content (32
//! bytes), size, time of modification and time of change in nanoseconds since 1970 (8 bytes each),
//! length of the name (4), the name; at the end the CRC-32C of all before it (4).

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pipe_fs::{Disk, Stamp as FileStamp, atomic};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::CacheFolder;
use crate::digest::hex;

/// SHA-256 of a file's content.
pub(crate) type ContentDigest = [u8; 32];

const MAGIC: &[u8; 8] = b"pipeidx1";
/// Bytes of an entry before its name.
const FIXED: usize = 32 + 3 * 8 + 4;
/// A file that changed so shortly before it was read may change again without a new time: clocks of
/// file systems tick coarsely. It is read once more the next time.
const COARSE: Duration = Duration::from_secs(2);

/// What changes when a file's content does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    size: u64,
    /// Nanoseconds since 1970.
    modified: i64,
    /// Nanoseconds since 1970; it changes even where somebody sets `modified` back.
    changed: i64,
}

impl Stamp {
    pub fn of(metadata: &Metadata) -> Self {
        let stamp = FileStamp::of(metadata);
        let time = |nanoseconds| i64::try_from(nanoseconds).unwrap_or(i64::MAX);
        Self { size: stamp.bytes, modified: time(stamp.modified), changed: time(stamp.changed) }
    }

    fn is_before(&self, time: i64) -> bool {
        self.modified.max(self.changed) < time
    }

    /// Whether a file that was read now and had this stamp before can be told from a later version
    /// of it.
    pub fn is_settled(&self) -> bool {
        self.is_before(nanoseconds(SystemTime::now() - COARSE))
    }
}

fn nanoseconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Files up to this size are read in one go, which is quicker; larger ones may not fit into memory.
const SMALL: u64 = 1 << 22;

/// The digest of a file of about so many bytes.
fn digest_of(path: &Path, size: u64) -> io::Result<ContentDigest> {
    if size <= SMALL {
        return Ok(Sha256::digest(fs::read(path)?).into());
    }
    let (mut file, mut digest, mut buffer) = (File::open(path)?, Sha256::new(), vec![0; 1 << 18]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(digest.finalize().into()),
            Ok(read) => digest.update(&buffer[..read]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// The index of one folder.
pub(crate) struct FileDigests(PathBuf, Disk);

impl FileDigests {
    /// The index in `cache` of the files in `folder`, whose path should be canonical.
    pub fn new(cache: &CacheFolder, folder: &Path) -> Self {
        let name = hex(&Sha256::digest(folder.as_os_str().as_encoded_bytes())[..16]);
        Self(cache.join("files").join(name), cache.disk().clone())
    }

    /// The digests of the files `names` in `folder`, in that order, which must be ascending. Reads
    /// what it must, on all processors, and calls `done` for each file. A file that cannot be read
    /// has an error in its place.
    pub fn digests(
        &self,
        folder: &Path,
        names: &[Box<OsStr>],
        done: &(impl Fn() + Sync),
    ) -> Vec<io::Result<ContentDigest>> {
        let known = StoredDigests::load(&self.0);
        let trusted = nanoseconds(SystemTime::now() - COARSE);
        let found: Vec<io::Result<(Stamp, ContentDigest, bool)>> = names
            .par_iter()
            .map(|name| {
                let path = folder.join(&**name);
                let stamp = Stamp::of(&fs::metadata(&path)?);
                let before = known.as_ref().and_then(|known| known.find(name, stamp));
                let digest = match before {
                    Some(digest) => digest,
                    None => digest_of(&path, stamp.size)?,
                };
                done();
                Ok((stamp, digest, before.is_some()))
            })
            .collect();
        let unchanged = found.iter().flatten().all(|(_, _, known)| *known);
        if !unchanged || known.is_none_or(|known| known.starts.len() != names.len()) {
            let read = names
                .iter()
                .zip(&found)
                .filter_map(|(name, file)| Some((&**name, file.as_ref().ok()?)));
            let stable = read.filter(|(_, (stamp, ..))| stamp.is_before(trusted));
            if let Err(error) =
                self.save(stable.map(|(name, (stamp, digest, _))| (name, stamp, digest)))
            {
                tracing::debug!("{} could not be written: {error}", self.0.display());
            }
        }
        found.into_iter().map(|file| file.map(|(_, digest, _)| digest)).collect()
    }

    /// Has every file of the folder read again the next time.
    pub fn forget(&self) {
        let _ = fs::remove_file(&self.0);
    }

    fn save<'a>(
        &self,
        entries: impl Iterator<Item = (&'a OsStr, &'a Stamp, &'a ContentDigest)>,
    ) -> io::Result<()> {
        atomic::create_needless_folder(&self.1, self.0.parent().unwrap_or(Path::new(".")))?;
        let temporary = self.0.with_extension(format!("tmp-{}", std::process::id()));
        let written = (|| {
            let mut out = BufWriter::with_capacity(1 << 16, File::create(&temporary)?);
            out.write_all(MAGIC)?;
            let (mut crc, mut entry) = (crc32c::crc32c(MAGIC), Vec::new());
            for (name, stamp, digest) in entries {
                entry.clear();
                entry.extend(digest);
                entry.extend(stamp.size.to_le_bytes());
                entry.extend(stamp.modified.to_le_bytes());
                entry.extend(stamp.changed.to_le_bytes());
                entry.extend((name.len() as u32).to_le_bytes());
                entry.extend(name.as_encoded_bytes());
                crc = crc32c::crc32c_append(crc, &entry);
                out.write_all(&entry)?;
            }
            out.write_all(&crc.to_le_bytes())?;
            out.into_inner()?;
            fs::rename(&temporary, &self.0)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }
}

/// An index that was read.
struct StoredDigests {
    bytes: Vec<u8>,
    /// Where each entry begins; entries are ascending by name.
    starts: Vec<usize>,
}

impl StoredDigests {
    fn load(path: &Path) -> Option<Self> {
        let mut bytes = fs::read(path).ok()?;
        let crc = u32::from_le_bytes(*bytes.last_chunk()?);
        bytes.truncate(bytes.len() - 4);
        if !bytes.starts_with(MAGIC) || crc32c::crc32c(&bytes) != crc {
            return None;
        }
        let (mut starts, mut at) = (Vec::new(), MAGIC.len());
        while at < bytes.len() {
            starts.push(at);
            at += FIXED + u32::from_le_bytes(*bytes.get(at..at + FIXED)?.last_chunk()?) as usize;
        }
        (at == bytes.len()).then_some(Self { bytes, starts })
    }

    fn find(&self, name: &OsStr, stamp: Stamp) -> Option<ContentDigest> {
        let name_at = |start: usize| {
            let length =
                u32::from_le_bytes(*self.bytes[..start + FIXED].last_chunk().unwrap_or(&[0; 4]));
            &self.bytes[start + FIXED..start + FIXED + length as usize]
        };
        let wanted = name.as_encoded_bytes();
        let place = self.starts.binary_search_by(|start| name_at(*start).cmp(wanted)).ok()?;
        let (digest, rest) = self.bytes.get(self.starts[place]..)?.split_first_chunk()?;
        let (size, rest) = rest.split_first_chunk()?;
        let (modified, rest) = rest.split_first_chunk()?;
        let (changed, _) = rest.split_first_chunk()?;
        let then = Stamp {
            size: u64::from_le_bytes(*size),
            modified: i64::from_le_bytes(*modified),
            changed: i64::from_le_bytes(*changed),
        };
        (then == stamp).then_some(*digest)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    struct Folder {
        place: tempfile::TempDir,
        index: FileDigests,
    }

    impl Folder {
        /// Files with these names, last changed an hour ago.
        fn new(names: &[&str]) -> Self {
            let place = tempfile::tempdir().unwrap();
            fs::create_dir(place.path().join("images")).unwrap();
            let cache = CacheFolder::of(&place.path().into());
            let folder = Self { index: FileDigests::new(&cache, Path::new("images")), place };
            names.iter().for_each(|name| folder.put(name, name));
            folder
        }

        fn put(&self, name: &str, content: &str) {
            fs::write(self.place.path().join("images").join(name), content).unwrap();
        }

        fn digests(&self, names: &[&str]) -> Vec<ContentDigest> {
            let names: Vec<Box<OsStr>> = names.iter().map(|n| OsStr::new(n).into()).collect();
            let done = AtomicUsize::new(0);
            let count = || {
                done.fetch_add(1, Ordering::Relaxed);
            };
            let digests = self.index.digests(&self.place.path().join("images"), &names, &count);
            assert_eq!(done.into_inner(), names.len());
            digests.into_iter().map(Result::unwrap).collect()
        }

        /// Puts a digest that is wrong into the index, to see whether it is believed.
        fn mark(&self, name: &str) {
            let stamp =
                Stamp::of(&fs::metadata(self.place.path().join("images").join(name)).unwrap());
            self.index.save(std::iter::once((OsStr::new(name), &stamp, &MARK))).unwrap();
        }
    }

    const MARK: ContentDigest = [7; 32];

    fn real(content: &str) -> ContentDigest {
        Sha256::digest(content).into()
    }

    #[test]
    fn what_the_index_knows_is_not_read_and_the_rest_is() {
        let folder = Folder::new(&["a", "b", "c"]);
        assert_eq!(folder.digests(&["a", "b", "c"]), [real("a"), real("b"), real("c")]);
        folder.mark("b");
        assert_eq!(folder.digests(&["a", "b", "c"]), [real("a"), MARK, real("c")]);
    }

    #[test]
    fn a_large_file_is_digested_in_pieces_to_the_same_digest() {
        let folder = Folder::new(&["small"]);
        let large = "0123456789".repeat(SMALL as usize / 10 + 7);
        folder.put("large", &large);
        assert_eq!(folder.digests(&["large", "small"]), [real(&large), real("small")]);
    }

    #[test]
    fn a_changed_size_or_time_or_a_damaged_index_has_a_file_read_again() {
        let folder = Folder::new(&["a"]);
        folder.mark("a");
        folder.put("a", "longer");
        assert_eq!(folder.digests(&["a"]), [real("longer")]);

        folder.mark("a");
        let path = folder.place.path().join("images/a");
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(9)).unwrap();
        assert_eq!(folder.digests(&["a"]), [real("longer")]);

        folder.mark("a");
        assert_eq!(folder.digests(&["a"]), [MARK]);
        let whole = fs::read(&folder.index.0).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&folder.index.0, damaged).unwrap();
            assert_eq!(folder.digests(&["a"]), [real("longer")], "byte {at}");
            fs::write(&folder.index.0, &whole[..at]).unwrap();
            assert_eq!(folder.digests(&["a"]), [real("longer")], "cut at {at}");
        }
        folder.index.forget();
        assert_eq!(folder.digests(&["a"]), [real("longer")]);
    }

    #[test]
    fn a_file_that_changed_just_now_is_read_again_the_next_time() {
        let folder = Folder::new(&["a"]);
        folder.digests(&["a"]);
        assert_eq!(StoredDigests::load(&folder.index.0).unwrap().starts.len(), 0);
        std::thread::sleep(COARSE + Duration::from_millis(100));
        folder.digests(&["a"]);
        assert_eq!(StoredDigests::load(&folder.index.0).unwrap().starts.len(), 1);
    }
}

//! The files that a data set was made of, one list for each digest of a data set, so that two
//! versions of a data set can be compared.
//!
//! Format: for each file the first [`KEPT`] bytes of the SHA-256 of its content, the length of its
//! name (4 bytes, little-endian) and the name; at the end the CRC-32C of all before it (4 bytes,
//! little-endian).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use pipe_fs::Disk;

use super::file_digests::ContentDigest;
use super::write::write;

/// A file's name with its class before it, and the digest of its content.
pub(crate) type ListedFile = (Vec<u8>, ContentDigest);

/// Lists that are kept.
pub(crate) const MAX_LISTS: usize = 16;

/// Bytes of a content digest that are kept: enough to tell files apart.
const KEPT: usize = 8;

/// Keeps the list of the data set `digest` in `folder`, unless it is there.
pub(crate) fn save(
    disk: &Disk,
    folder: &Path,
    digest: &str,
    files: impl FnOnce() -> Option<Vec<ListedFile>>,
) {
    let path = path(folder, digest);
    if !path.exists()
        && let Some(files) = files()
    {
        write(disk, &path, &encode(&files));
        remove_oldest(folder);
    }
}

/// How many files the data set `new` has more than `old`, how many fewer, and how many with another
/// content. `None` if the list of either is gone.
pub(crate) fn compare(folder: &Path, old: &str, new: &str) -> Option<Comparison> {
    let read = |digest: &str| fs::read(path(folder, digest)).ok();
    let (old, new) = (read(old)?, read(new)?);
    let (old, new) = (decode(&old)?, decode(&new)?);
    let is_replaced =
        |(name, digest): &(&&[u8], &&[u8])| old.get(*name).is_some_and(|before| before != *digest);
    Some(Comparison {
        added: new.keys().filter(|name| !old.contains_key(*name)).count(),
        removed: old.keys().filter(|name| !new.contains_key(*name)).count(),
        replaced: new.iter().filter(is_replaced).count(),
    })
}

/// Counts of files that differ between two data sets.
pub(crate) struct Comparison {
    pub added: usize,
    pub removed: usize,
    pub replaced: usize,
}

fn path(folder: &Path, digest: &str) -> PathBuf {
    folder.join(digest).with_added_extension("files")
}

fn remove_oldest(folder: &Path) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let lists = entries.filter(|path| path.extension().is_some_and(|e| e == "files"));
    let written = |path: &PathBuf| fs::metadata(path).and_then(|m| m.modified()).ok();
    let mut lists: Vec<PathBuf> = lists.collect();
    lists.sort_by_key(written);
    for old in &lists[..lists.len().saturating_sub(MAX_LISTS)] {
        let _ = fs::remove_file(old);
    }
}

fn encode(files: &[ListedFile]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, digest) in files {
        bytes.extend(&digest[..KEPT]);
        bytes.extend((name.len() as u32).to_le_bytes());
        bytes.extend(name);
    }
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

/// Names and digests of a list's files.
fn decode(bytes: &[u8]) -> Option<BTreeMap<&[u8], &[u8]>> {
    let (mut rest, crc) = bytes.split_last_chunk()?;
    let (mut files, whole) = (BTreeMap::new(), crc32c::crc32c(rest) == u32::from_le_bytes(*crc));
    while whole && !rest.is_empty() {
        let (digest, after) = rest.split_at_checked(KEPT)?;
        let (length, after) = after.split_first_chunk()?;
        let (name, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        files.insert(name, digest);
        rest = after;
    }
    whole.then_some(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_comes_back_whole_or_not_at_all() {
        let files = [(b"a/1.png".to_vec(), [1; 32]), (b"b/\n.png".to_vec(), [2; 32])];
        let bytes = encode(&files);
        let read = decode(&bytes).unwrap();
        assert_eq!(read[&b"b/\n.png"[..]], [2; KEPT]);
        assert_eq!(read.len(), 2);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(decode(&damaged), None, "byte {at}");
            assert_eq!(decode(&bytes[..at]), None, "cut at {at}");
        }
    }
}

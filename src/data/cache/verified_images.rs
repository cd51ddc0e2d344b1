//! Which images were decoded without a fault, by their content: a second check of the same files
//! reads none of them.
//!
//! One file in the project's cache folder for each data folder. Losing it costs time and nothing
//! else.
//!
//! Format: [`MAGIC`]; the first [`KEPT`] bytes of the SHA-256 of each image's file, ascending; at
//! the end the CRC-32C of all before it (4 bytes, little-endian).

use std::fs;
use std::path::PathBuf;

use pipe_fs::Disk;

use super::file_digests::ContentDigest;
use super::write::write;

const MAGIC: &[u8; 16] = b"pipe images okay";
/// Bytes of a digest: enough to tell a billion images apart.
const KEPT: usize = 16;

type Short = [u8; KEPT];

/// What is known of the images of a data folder.
pub(crate) struct VerifiedImages {
    path: PathBuf,
    known: Vec<Short>,
}

impl VerifiedImages {
    /// What the file `path` says; nothing if it is damaged or not there.
    pub fn load(path: PathBuf) -> Self {
        let known = fs::read(&path).ok().and_then(|bytes| parse(&bytes)).unwrap_or_default();
        Self { path, known }
    }

    pub fn contains(&self, content: &ContentDigest) -> bool {
        self.known.binary_search(&short(content)).is_ok()
    }

    /// Keeps these and nothing else. A file that cannot be written costs another check.
    pub fn save(&self, disk: &Disk, contents: impl Iterator<Item = ContentDigest>) {
        let mut known: Vec<Short> = contents.map(|content| short(&content)).collect();
        known.sort_unstable();
        known.dedup();
        if known == self.known {
            return;
        }
        let mut bytes = MAGIC.to_vec();
        bytes.extend(known.as_flattened());
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        write(disk, &self.path, &bytes);
    }
}

fn short(content: &ContentDigest) -> Short {
    *content.first_chunk().unwrap_or(&[0; KEPT])
}

fn parse(bytes: &[u8]) -> Option<Vec<Short>> {
    let (rest, crc) = bytes.split_last_chunk()?;
    let digests = rest.strip_prefix(MAGIC)?;
    if crc32c::crc32c(rest) != u32::from_le_bytes(*crc) {
        return None;
    }
    let (digests, []) = digests.as_chunks() else { return None };
    Some(digests.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_known_until_the_file_is_damaged() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("cache/verified");
        let load = || VerifiedImages::load(path.clone());
        assert!(!load().contains(&[3; 32]));
        load().save(&Disk::default(), [[3; 32], [1; 32], [3; 32]].into_iter());
        assert!(
            load().contains(&[3; 32]) && load().contains(&[1; 32]) && !load().contains(&[2; 32])
        );
        let whole = fs::read(&path).unwrap();
        assert_eq!(whole.len(), 16 + 2 * KEPT + 4);
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&path, damaged).unwrap();
            assert!(!load().contains(&[3; 32]), "byte {at}");
            fs::write(&path, &whole[..at]).unwrap();
            assert!(!load().contains(&[3; 32]), "cut at {at}");
        }
    }
}

//! Decoded images of a folder, kept in a file of the project's cache folder: decoding and resizing
//! a photo takes a hundred times as long as reading its few kilobytes back.
//!
//! A slot for each image, in their order: its pixels, the SHA-256 of the file they were decoded
//! from, and the CRC-32C of both (4 bytes, little-endian). So a slot is believed only if it was
//! written whole and for this content: the file needs no lock, several processes may use it, and
//! damage costs one more decoding.
//!
//! Slots are read with positioned reads rather than through a memory map: to read a map of a file
//! that somebody cuts short ends the process.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use pipe_fs::{Disk, atomic, disk_space};

use super::file_digests::ContentDigest;

/// Bytes of a slot behind the pixels.
const TAIL: usize = 32 + 4;

pub(crate) struct DecodedImages {
    file: File,
    path: PathBuf,
    /// Bytes of an image.
    image: usize,
    /// Whether slots are still written: not after a failure.
    open: AtomicBool,
}

impl DecodedImages {
    /// The cache `path` for `count` images of `image` bytes. `None`, and a line in the log, if it
    /// cannot be opened, or if what is missing would take more than half of the room on the disk.
    pub fn open(disk: &Disk, path: PathBuf, count: usize, image: usize) -> Option<Self> {
        match open(disk, &path) {
            Ok(file) => {
                let all = (count as u64).saturating_mul((image + TAIL) as u64);
                let missing = all.saturating_sub(file.metadata().map_or(0, |m| taken(&m)));
                let free = disk_space::free(&path).unwrap_or(u64::MAX);
                if missing > free / 2 {
                    tracing::info!(
                        "decoded images are not kept: they would take {} MB, and {} MB are free",
                        missing >> 20,
                        free >> 20
                    );
                    return None;
                }
                Some(Self { file, path, image, open: AtomicBool::new(true) })
            }
            Err(error) => {
                tracing::info!("decoded images are not kept in {}: {error}", path.display());
                None
            }
        }
    }

    /// The pixels of image `index`, if they are there and were decoded from this content.
    pub fn get(&self, index: usize, content: &ContentDigest) -> Option<Vec<u8>> {
        let mut slot = vec![0; self.image + TAIL];
        read_at(&self.file, &mut slot, self.offset(index)).ok()?;
        let (rest, crc) = slot.split_last_chunk()?;
        let whole = rest.ends_with(content) && crc32c::crc32c(rest) == u32::from_le_bytes(*crc);
        slot.truncate(self.image);
        whole.then_some(slot)
    }

    /// Keeps the pixels of image `index`. After a failure nothing is kept any more.
    pub fn put(&self, index: usize, content: &ContentDigest, pixels: &[u8]) {
        if !self.open.load(Ordering::Relaxed) {
            return;
        }
        let mut slot = [pixels, content].concat();
        slot.extend(crc32c::crc32c(&slot).to_le_bytes());
        if let Err(error) = write_at(&self.file, &slot, self.offset(index))
            && self.open.swap(false, Ordering::Relaxed)
        {
            tracing::warn!("decoded images are no longer kept in {}: {error}", self.path.display());
        }
    }

    fn offset(&self, index: usize) -> u64 {
        index as u64 * (self.image + TAIL) as u64
    }
}

fn open(disk: &Disk, path: &Path) -> io::Result<File> {
    atomic::create_needless_folder(disk, path.parent().unwrap_or(Path::new(".")))?;
    File::options().read(true).write(true).create(true).truncate(false).open(path)
}

/// Room on the disk that a file takes: less than its length where it has holes.
fn taken(metadata: &std::fs::Metadata) -> u64 {
    #[cfg(unix)]
    return std::os::unix::fs::MetadataExt::blocks(metadata) * 512;
    #[cfg(not(unix))]
    return metadata.len();
}

#[cfg(unix)]
use std::os::unix::fs::FileExt;

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    file.read_exact_at(bytes, offset)
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    file.write_all_at(bytes, offset)
}

#[cfg(not(unix))]
fn read_at(_: &File, _: &mut [u8], _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(unix))]
fn write_at(_: &File, _: &[u8], _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: usize = 12;

    #[test]
    fn a_slot_is_believed_only_whole_and_for_its_content() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("cache/slots");
        let open = || DecodedImages::open(&Disk::default(), path.clone(), 3, IMAGE).unwrap();
        assert_eq!(open().get(0, &[1; 32]), None, "an empty file");
        open().put(2, &[1; 32], &[9; IMAGE]);
        let decoded = open();
        assert_eq!(decoded.get(2, &[1; 32]), Some(vec![9; IMAGE]));
        assert_eq!(decoded.get(2, &[2; 32]), None, "another content");
        assert_eq!(decoded.get(0, &[0; 32]), None, "a hole");

        let whole = std::fs::read(&path).unwrap();
        for at in 2 * (IMAGE + TAIL)..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(open().get(2, &[1; 32]), None, "byte {at}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(decoded.get(2, &[1; 32]), None, "cut at {at}, while it is open");
        }
        decoded.put(2, &[1; 32], &[9; IMAGE]);
        assert_eq!(open().get(2, &[1; 32]), Some(vec![9; IMAGE]));
    }

    #[test]
    fn without_room_nothing_is_kept() {
        let place = tempfile::tempdir().unwrap();
        assert!(
            DecodedImages::open(
                &Disk::default(),
                place.path().join("slots"),
                usize::MAX >> 8,
                1 << 20
            )
            .is_none()
        );
        assert!(
            DecodedImages::open(&Disk::default(), place.path().to_owned(), 1, IMAGE).is_none(),
            "a folder"
        );
    }
}

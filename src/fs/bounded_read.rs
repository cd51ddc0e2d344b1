//! Files that may come from anyone are read up to a length: memory stays bounded, whatever stands
//! there.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// A pipeline file, a config file, the settings of an adapter.
pub const TEXT: u64 = 16 << 20;
/// A record or a run's metadata. Those of a hundred thousand files take 25 MB.
pub const RECORD: u64 = 128 << 20;

/// Reads a file.
///
/// # Errors
/// It cannot be read, or is longer than `most` bytes: then no more than that is read.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let mut bytes = Vec::with_capacity(length.min(most) as usize);
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        Err(io::Error::new(
            ErrorKind::FileTooLarge,
            format!("it is longer than {} MB, and is not read", most >> 20),
        ))
    } else {
        Ok(bytes)
    }
}

/// Reads a text file.
///
/// # Errors
/// It cannot be read, is longer than `most` bytes, or is not UTF-8.
pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    String::from_utf8(read(path, most)?)
        .map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_longer_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, vec![b'x'; 2 << 20]).unwrap();
        assert_eq!(read(&path, 2 << 20).unwrap().len(), 2 << 20);
        let error = read(&path, 1 << 20).unwrap_err();
        assert_eq!(error.to_string(), "it is longer than 1 MB, and is not read");
    }
}

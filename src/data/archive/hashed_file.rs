//! The MD5 of a file that is read anyway.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use md5::{Digest, Md5};

use crate::digest::hex;
use crate::error::DataError;

/// Reads a file and takes the MD5 of what is read.
pub(crate) struct HashedFile {
    file: File,
    digest: Md5,
}

impl HashedFile {
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let file = File::open(path).map_err(DataError::io("open", path))?;
        Ok(Self { file, digest: Md5::new() })
    }

    /// Reads to the end of the file; the MD5 of all of it.
    pub fn finish(mut self) -> io::Result<String> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(hex(&self.digest.finalize()))
    }
}

impl Read for HashedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.digest.update(&buffer[..read]);
        Ok(read)
    }
}

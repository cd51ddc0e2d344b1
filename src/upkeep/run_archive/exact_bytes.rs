//! So many bytes and no fewer.

use std::io::{self, Read};

use pipe_core::digest::hex;
use sha2::{Digest, Sha256};

/// Reads a number of bytes and takes their SHA-256.
pub(super) struct ExactBytes<R> {
    from: R,
    pub left: u64,
    digest: Sha256,
}

impl<R: Read> ExactBytes<R> {
    pub fn new(from: R, bytes: u64) -> Self {
        Self { from, left: bytes, digest: Sha256::new() }
    }

    /// `sha256:…` of what was read.
    pub fn digest(self) -> String {
        format!("sha256:{}", hex(&self.digest.finalize()))
    }
}

impl<R: Read> Read for ExactBytes<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.from.read(&mut buffer[..most])?;
        if read == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.digest.update(&buffer[..read]);
        self.left -= read as u64;
        Ok(read)
    }
}

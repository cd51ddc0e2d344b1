//! SHA-256 of files, as the program writes it everywhere.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use sha2::{Digest, Sha256};

const PIECE: usize = 1 << 20;

pub struct Hash(Sha256);

impl Hash {
    pub fn new() -> Self {
        Self(Sha256::new())
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub fn hex(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

pub fn of_bytes(bytes: &[u8]) -> String {
    let mut hash = Hash::new();
    hash.update(bytes);
    hash.hex()
}

/// Of the first `length` bytes of an open file.
pub fn of_file(mut file: &File, length: u64) -> io::Result<String> {
    file.seek(SeekFrom::Start(0))?;
    let (mut hash, mut buffer, mut left) = (Hash::new(), vec![0; PIECE], length);
    while left > 0 {
        let piece = &mut buffer[..usize::try_from(left).unwrap_or(PIECE).min(PIECE)];
        file.read_exact(piece)?;
        hash.update(piece);
        left -= piece.len() as u64;
    }
    Ok(hash.hex())
}

//! SHA-256 of files, as the program writes it everywhere.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use pipe_engine::identity::hex;
use sha2::{Digest, Sha256};

const PIECE: usize = 1 << 20;

pub fn of_bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Of the first `length` bytes of an open file.
pub fn of_file(mut file: &File, length: u64) -> io::Result<String> {
    file.seek(SeekFrom::Start(0))?;
    let (mut hash, mut buffer, mut left) = (Sha256::new(), vec![0; PIECE], length);
    while left > 0 {
        let piece = &mut buffer[..usize::try_from(left).unwrap_or(PIECE).min(PIECE)];
        file.read_exact(piece)?;
        hash.update(&*piece);
        left -= piece.len() as u64;
    }
    Ok(hex(&hash.finalize()))
}

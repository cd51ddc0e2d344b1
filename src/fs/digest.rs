//! Digests of whole files.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::sync_channel;

use pipe_core::digest::hex;
use sha2::{Digest, Sha256};

/// So much is read at a time.
const CHUNK: u64 = 1 << 20;

/// SHA-256 of a file as `sha256:…`, with the digits that `sha256sum` gives it.
pub fn sha256_of(file: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    hash_all(File::open(file)?, &mut hash)?;
    Ok(format!("sha256:{}", hex(&hash.finalize())))
}

/// Feeds all that can be read to `hash`.
fn hash_all(mut from: impl Read + Send, hash: &mut Sha256) -> io::Result<()> {
    let chunks = std::iter::from_fn(|| {
        let mut chunk = Vec::with_capacity(CHUNK as usize);
        match (&mut from).take(CHUNK).read_to_end(&mut chunk) {
            Ok(0) => None,
            read => Some(read.map(|_| chunk)),
        }
    });
    read_ahead(chunks, |chunk| hash.update(&chunk))
}

/// Gives each of some pieces to `each`, up to the first error, while another thread reads those
/// that follow.
fn read_ahead<T: Send>(
    pieces: impl Iterator<Item = io::Result<T>> + Send,
    mut each: impl FnMut(T),
) -> io::Result<()> {
    const AHEAD: usize = 2;
    let mut pieces = pieces;
    // What is short needs no thread.
    for piece in pieces.by_ref().take(AHEAD) {
        each(piece?);
    }
    let pieces = &Mutex::new(pieces);
    std::thread::scope(|scope| {
        let (send, ready) = sync_channel(AHEAD);
        let read = move || {
            let Ok(mut pieces) = pieces.lock() else { return };
            for piece in pieces.by_ref() {
                let failed = piece.is_err();
                if send.send(piece).is_err() || failed {
                    return;
                }
            }
        };
        match std::thread::Builder::new().spawn_scoped(scope, read) {
            Ok(_) => ready.iter().try_for_each(|piece| piece.map(&mut each)),
            // A system without a thread to give.
            Err(_) => match pieces.lock() {
                Ok(mut pieces) => pieces.by_ref().try_for_each(|piece| piece.map(&mut each)),
                Err(_) => Err(io::ErrorKind::Other.into()),
            },
        }
    })
}

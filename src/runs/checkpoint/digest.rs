//! Digests: of a checkpoint's content, which stands in its header, and of whole files, as records
//! hold them.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::Checkpoint;
use super::format::{BLAKE3, SHA256, TREE};
use super::program::ProgramFiles;
use pipe_core::digest::hex;
use pipe_fs::sha256_of;

/// Begins the digest of a checkpoint file.
const HEAD: &str = "blake3-head:";
/// Hexadecimal digits of one of them.
const DIGITS: usize = 2 * blake3::OUT_LEN;

/// What identifies a whole file. Of a checkpoint it is `blake3-head:…`, BLAKE3 over all that stands
/// before the data: the digest of the content is there, and is compared first. Of any other file,
/// and of a damaged checkpoint, it is `sha256:…`, as `sha256sum` gives it.
pub fn file_digest(path: &Path) -> io::Result<String> {
    match Checkpoint::open(path)
        .and_then(|file| file.verify().map(|()| file.head_digest().to_owned()))
    {
        Ok(digest) => Ok(digest),
        Err(_) => sha256_of(path),
    }
}

/// What identifies a whole file, in the form of `known`, to be compared with it: records that older
/// programs made have `sha256:…` of checkpoints, too. What a program wrote counts by its content,
/// whatever stands beside it.
pub fn file_digest_like(path: &Path, known: &str) -> io::Result<String> {
    if known.starts_with(SHA256) {
        sha256_of(path)
    } else if known.starts_with(BLAKE3) || known.starts_with(TREE) {
        ProgramFiles::of(path).map(|files| files.digest())
    } else {
        file_digest(path)
    }
}

pub(super) fn sha256_text(hash: Sha256) -> String {
    format!("{SHA256}{}", hex(&hash.finalize()))
}

/// The digest of a file that begins so.
pub(super) fn head_digest(head: &[u8]) -> String {
    format!("{HEAD}{}", blake3::hash(head).to_hex())
}

/// The digest of a content in format 2: over its text and the digest of each tensor, in the order
/// of their data.
pub(super) fn content_digest(text: &str, tensors: &[blake3::Hash]) -> String {
    let mut whole = blake3::Hasher::new();
    whole.update(text.as_bytes());
    for tensor in tensors {
        whole.update(tensor.as_bytes());
    }
    format!("{BLAKE3}{}", whole.finalize().to_hex())
}

/// The digest of a checkpoint's tensors alone: of their names, types, shapes and bytes, whatever the
/// header says besides.
pub(super) fn state_digest(table: &Map<String, Value>, tensors: &[blake3::Hash]) -> String {
    content_digest(&content_text(&BTreeMap::new(), table), tensors)
}

/// The digests of all tensors as text. Its length follows from their number.
pub(super) fn tensor_digests(tensors: &[blake3::Hash]) -> String {
    tensors.iter().map(|hash| hash.to_hex().to_string()).collect()
}

/// The digests that such a text lists; `None` if it is no such text.
pub(super) fn listed_digests(text: &str) -> Option<Vec<blake3::Hash>> {
    let pieces = text.as_bytes().chunks(DIGITS);
    pieces.map(|piece| blake3::Hash::from_hex(piece).ok()).collect()
}

/// What a content's digest begins with: the metadata (without the digest itself) and the tensor
/// table.
pub(super) fn content_text(
    metadata: &BTreeMap<String, String>,
    table: &Map<String, Value>,
) -> String {
    let metadata = metadata.iter().filter(|(key, _)| *key != "digest");
    let metadata =
        metadata.map(|(key, value)| format!("{}:{key}={}:{value}\n", key.len(), value.len()));
    let table = table.iter().filter(|(name, _)| *name != "__metadata__");
    let table = table.map(|(name, entry)| format!("{}:{name}={entry}\n", name.len()));
    metadata.chain(table).collect()
}

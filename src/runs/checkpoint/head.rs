//! What stands before a checkpoint's data: read as far as it can be trusted.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::TensorEntry;
use super::format::Corruption;

/// A header longer than this is refused; the longest real ones are a few hundred kilobytes.
pub(super) const MAX_HEADER: u64 = 16 << 20;
/// A header of more values than this is refused: read, each takes many times the memory of its
/// text. A tensor has eight.
pub(super) const MAX_VALUES: usize = 500_000;

/// The file up to its data: the header's length in eight bytes, and its JSON. Besides, the length
/// of the whole file.
pub(super) fn read_head(path: &Path) -> Result<(Vec<u8>, u64), (Corruption, String)> {
    let unreadable = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound => (Corruption::Unreadable, "there is no such file".to_owned()),
        _ => (Corruption::Unreadable, format!("failed to read: {e}")),
    };
    // A pipe would be waited for, and gives its bytes once only.
    if path.metadata().is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        return Err((
            Corruption::Unreadable,
            "a pipe or a device; a checkpoint must be a file".to_owned(),
        ));
    }
    let mut file = File::open(path).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    let mut length = [0; 8];
    if size < 8 {
        return Err((Corruption::Torn, format!("no checkpoint: only {size} bytes long")));
    }
    file.read_exact(&mut length).map_err(unreadable)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER {
        return Err(foreign("no checkpoint of pipe, which are safetensors files"));
    }
    if 8 + length > size {
        return Err((Corruption::Torn, format!("cut off inside its header, {size} bytes long")));
    }
    let mut head = vec![0; 8 + length as usize];
    head[..8].copy_from_slice(&length.to_le_bytes());
    file.read_exact(&mut head[8..]).map_err(unreadable)?;
    if values(&head[8..]) > MAX_VALUES {
        return Err(foreign("not a checkpoint: its header holds too many values"));
    }
    Ok((head, size))
}

pub(super) fn foreign(message: &str) -> (Corruption, String) {
    (Corruption::Foreign, message.to_owned())
}

/// Bytes of the data of tensors that are sorted by their place.
///
/// # Errors
/// They overlap, or leave a gap.
pub(super) fn data_length(entries: &[TensorEntry]) -> Result<u64, (Corruption, String)> {
    let mut end = 0u64;
    for entry in entries {
        if entry.start != end {
            return Err((
                Corruption::Altered,
                format!("tensor `{}` overlaps another or leaves a gap", entry.name),
            ));
        }
        end = end
            .checked_add(entry.bytes)
            .ok_or_else(|| (Corruption::Altered, "offsets overflow".to_owned()))?;
    }
    Ok(end)
}

/// No fewer than the values of a JSON text: it is not read for that.
pub(super) fn values(text: &[u8]) -> usize {
    text.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count()
}

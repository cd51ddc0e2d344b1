//! JSON files that tell when they were damaged: the last key is a checksum over all before it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What stands between the content and the digits of its CRC-32C.
const MARK: &str = ",\n  \"checksum\": \"crc32c:";
const END: &str = "\"\n}\n";
/// Bytes of mark, digits and end.
const TAIL: usize = MARK.len() + 8 + END.len();

/// An object as the text of such a file.
pub fn to_text<T: Serialize>(value: &T) -> String {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    let content = text.strip_suffix("\n}").unwrap_or(&text);
    format!("{content}{}", tail(content.as_bytes()))
}

fn tail(content: &[u8]) -> String {
    format!("{MARK}{:08x}{END}", crc32c::crc32c(content))
}

/// Reads such a file's content, or says what is wrong with it. A file without a checksum was
/// written by another program, and is taken as it is.
pub fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let parse = |bytes: &[u8]| serde_json::from_slice(bytes).map_err(|e| e.to_string());
    let at = bytes.len().saturating_sub(TAIL);
    let (content, end) = bytes.split_at(at);
    if end == tail(content).as_bytes() {
        return parse(&[content, b"\n}"].concat());
    }
    let marked = bytes.windows(MARK.len() - 2).any(|window| window == &MARK.as_bytes()[2..]);
    if marked {
        Err("its content does not have its checksum: it was damaged, or edited".into())
    } else {
        parse(bytes)
    }
}

/// Warns once of a file, however often it is read.
pub fn warn_once(path: &Path, text: &str) {
    static WARNED: Mutex<Option<HashSet<PathBuf>>> = Mutex::new(None);
    let mut warned = WARNED.lock().unwrap_or_else(PoisonError::into_inner);
    if warned.get_or_insert_default().insert(path.to_owned()) {
        tracing::warn!("{}: {text}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn every_flipped_bit_and_every_cut_changes_nothing_or_is_found() {
        let value = json!({"a": 1, "b": ["x", 2.5], "c": {"d": null}});
        let good = to_text(&value).into_bytes();
        assert_eq!(from_bytes::<Value>(&good).unwrap(), value);
        let mut found = 0;
        for position in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[position] ^= 1 << bit;
                match from_bytes::<Value>(&bad) {
                    Err(_) => found += 1,
                    // A flip in the checksum's own key leaves the content as it was.
                    Ok(mut read) => {
                        read.as_object_mut().unwrap().retain(|key, _| value.get(key).is_some());
                        assert_eq!(read, value, "byte {position}, bit {bit}");
                    }
                }
            }
        }
        assert!(found > 6 * good.len());
        for length in 0..good.len() - 1 {
            assert!(from_bytes::<Value>(&good[..length]).is_err(), "cut to {length}");
        }
    }

    #[test]
    fn what_another_program_wrote_is_read() {
        assert_eq!(from_bytes::<Value>(b"{\"a\": 1}").unwrap(), json!({"a": 1}));
    }
}

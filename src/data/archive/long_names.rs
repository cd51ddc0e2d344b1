//! Names in an archive that are too long for the header of their file: they stand before it, in an
//! entry of their own.

use std::io::{self, Read};
use std::path::PathBuf;

use tar::EntryType;

use crate::archive::unpack::ArchiveEntry;

/// Bytes of an entry that says something of another. Systems take names of up to 4 KiB.
const LONGEST: u64 = 1 << 20;

/// Takes an entry in, if it says something of the one after it: `true` then. `name` becomes that
/// one's name.
///
/// Two forms are known: GNU's, and that of pax (POSIX.1-2001), where each line is `LENGTH
/// KEY=VALUE`.
///
/// # Errors
/// It is longer than any name, or says what the file's own header contradicts.
pub(super) fn take(entry: &mut ArchiveEntry<'_>, name: &mut Option<PathBuf>) -> io::Result<bool> {
    let kind = entry.header().entry_type();
    match kind {
        EntryType::GNULongName => {
            *name = Some(path(text(entry)?.split(|byte| *byte == 0).next().unwrap_or(&[])))
        }
        EntryType::XHeader => {
            for (key, value) in lines(&text(entry)?) {
                match key {
                    b"path" => *name = Some(path(value)),
                    b"size" => {
                        return Err(wrong(
                            "it has a size of its own in a pax header, which is refused",
                        ));
                    }
                    _ => {}
                }
            }
        }
        // Links are refused where they come, and comments say nothing about files.
        EntryType::GNULongLink | EntryType::XGlobalHeader => {
            text(entry)?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn text(entry: &mut ArchiveEntry<'_>) -> io::Result<Vec<u8>> {
    if entry.size() > LONGEST {
        return Err(wrong(&format!(
            "a name or header of {} bytes, which is refused",
            entry.size()
        )));
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn lines(mut rest: &[u8]) -> Vec<(&[u8], &[u8])> {
    let mut found = Vec::new();
    while let Some(space) = rest.iter().position(|byte| *byte == b' ') {
        let length = std::str::from_utf8(&rest[..space])
            .ok()
            .and_then(|digits| digits.parse::<usize>().ok());
        let Some(line) = length.and_then(|length| rest.get(space + 1..length)) else { break };
        if let Some(equals) = line.iter().position(|byte| *byte == b'=') {
            let value = &line[equals + 1..];
            found.push((&line[..equals], value.strip_suffix(b"\n").unwrap_or(value)));
        }
        rest = &rest[space + 1 + line.len()..];
    }
    found
}

#[cfg(unix)]
fn path(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

#[cfg(not(unix))]
fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(bytes).into_owned())
}

fn wrong(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.to_owned())
}

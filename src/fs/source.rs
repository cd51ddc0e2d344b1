//! Reads the files that people wrote, with a message for those who named the wrong one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use pipe_core::error::{SpecError, nearest};
use pipe_core::source::Source;

use crate::bounded_read;

/// Reads a file. `shown` is the path that messages print, `path` the one that is opened.
pub fn read(path: &Path, shown: &Path) -> Result<Source, SpecError> {
    let bytes = contents(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            let error = SpecError::plain(format!("{}: no such file", shown.display()));
            match neighbour(path) {
                Some(name) => {
                    error.note(format!("did you mean `{}`?", shown.with_file_name(name).display()))
                }
                None => error,
            }
        }
        _ => SpecError::plain(format!("failed to read {}: {error}", shown.display())),
    })?;
    let wide = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
    let text = String::from_utf8(bytes).map_err(|_| {
        let error = SpecError::plain(format!("{}: not a UTF-8 text file", shown.display()));
        if wide { error.note("it is UTF-16: save it as UTF-8") } else { error }
    })?;
    Ok(Source::new(shown, text))
}

/// The content of a file. What a pipe that the shell made gives, as for `<(…)`, is kept: it comes
/// once only, to the whole process.
fn contents(path: &Path) -> std::io::Result<Vec<u8>> {
    static GIVEN: Mutex<BTreeMap<PathBuf, Vec<u8>>> = Mutex::new(BTreeMap::new());
    if std::fs::metadata(path).map_or(true, |found| found.is_file() || found.is_dir()) {
        return bounded_read::read(path, bounded_read::TEXT);
    }
    if !["/dev/stdin", "/dev/fd", "/proc"].iter().any(|place| path.starts_with(place)) {
        let text =
            "it is a pipe or a device, not a file; name a file, or `/dev/stdin` and lead it there";
        return Err(std::io::Error::other(text));
    }
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(bytes) = given.get(path) {
        return Ok(bytes.clone());
    }
    let bytes = bounded_read::read(path, bounded_read::TEXT)?;
    given.insert(path.to_owned(), bytes.clone());
    Ok(bytes)
}

/// A file beside a missing one that has nearly its name.
fn neighbour(missing: &Path) -> Option<String> {
    let name = missing.file_name()?.to_str()?;
    let folder = missing.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(folder).ok()?;
    let mut names: Vec<String> =
        entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    nearest(name, names.iter().map(String::as_str)).map(str::to_owned)
}

//! Zip files of images, which may come from anyone: only plain files whose paths stay inside are
//! accepted, up to a total size.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Component, Path, PathBuf};

use pipe_fs::disk_space;
use zip::ZipArchive;
use zip::read::ZipFile;

use crate::archive::unpack::Limits;
use crate::error::DataError;
use crate::folder::scan;

/// Unpacks to `folder`, which is there and empty.
///
/// # Errors
/// Entries that are links or lead out of the folder, more than `limits`, and a disk that is full.
pub(super) fn unpack(zip: &Path, folder: &Path, limits: Limits) -> Result<(), DataError> {
    let file = File::open(zip).map_err(DataError::io("open", zip))?;
    let failed = |at: &str, reason: String| DataError::archive(zip, at, reason);
    let mut archive = ZipArchive::new(BufReader::new(file))
        .map_err(|e| failed("its list of files", e.to_string()))?;
    if archive.len() > limits.entries {
        let reason = format!("it holds more than {} files, which is refused", limits.entries);
        return Err(failed("its list of files", reason));
    }
    let mut left = limits.bytes;
    let (needed, free) = (archive.decompressed_size(), disk_space::free(folder));
    if let Some((needed, free)) =
        needed.zip(free).filter(|(needed, free)| needed > &u128::from(*free))
    {
        let reason = format!("it needs {} MB, and {} MB are free", needed >> 20, free >> 20);
        return Err(failed("unpacking it", reason));
    }
    for number in 0..archive.len() {
        let mut entry = archive
            .by_index(number)
            .map_err(|e| failed(&format!("entry {number}"), e.to_string()))?;
        let name = entry
            .name()
            .map_err(|e| failed(&format!("entry {number}"), e.to_string()))?
            .into_owned();
        let at = format!("entry {name}");
        let Some(path) = path_of(&entry, &name).map_err(|reason| failed(&at, reason.into()))?
        else {
            continue;
        };
        let path = folder.join(path);
        let written = write(&mut entry, &path, left).map_err(|e| failed(&at, e.to_string()))?;
        left = left.checked_sub(written).ok_or_else(|| {
            let reason = format!(
                "the archive unpacks to more than {} bytes, which is refused",
                limits.bytes
            );
            failed(&at, reason)
        })?;
    }
    Ok(())
}

/// The path of a file below the target; `None` for folders and for what systems add for themselves.
fn path_of<R: Read>(entry: &ZipFile<'_, R>, name: &str) -> Result<Option<PathBuf>, &'static str> {
    // Some programs of Windows write its separators.
    let path = PathBuf::from(name.replace('\\', "/"));
    if entry.is_symlink() {
        return Err("it is a link, which is refused");
    }
    if name.contains('\0')
        || path.components().any(|p| !matches!(p, Component::Normal(_) | Component::CurDir))
    {
        return Err("its path leaves the folder, which is refused");
    }
    let is_folder = entry.is_dir() || name.ends_with(['/', '\\']);
    let is_systems = path
        .components()
        .any(|part| scan::is_hidden(part.as_os_str()) && part != Component::CurDir);
    Ok((!is_folder && !is_systems && path.file_name().is_some()).then_some(path))
}

/// Writes a file of at most `limit` bytes, or one byte more to show that it is longer.
fn write(entry: &mut impl Read, path: &Path, limit: u64) -> io::Result<u64> {
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    io::copy(&mut entry.take(limit.saturating_add(1)), &mut File::create_new(path)?)
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use zip::write::{SimpleFileOptions, ZipWriter};

    use super::*;

    #[test]
    fn a_zip_file_unpacks_to_no_more_than_its_limits() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a.zip");
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for name in ["1.bmp", "2.bmp"] {
            zip.start_file(name, SimpleFileOptions::default()).unwrap();
            zip.write_all(&[0; 60_000]).unwrap();
        }
        let bytes = zip.finish().unwrap().into_inner();
        assert!(bytes.len() < 1000);
        fs::write(&path, &bytes).unwrap();
        let refused = |name: &str, limits: Limits| {
            let folder = place.path().join(name);
            fs::create_dir(&folder).unwrap();
            unpack(&path, &folder, limits).unwrap_err().to_string()
        };
        let all = Limits { bytes: 120_000, entries: 2 };
        fs::create_dir(place.path().join("all")).unwrap();
        unpack(&path, &place.path().join("all"), all).unwrap();
        let message = refused("bytes", Limits { bytes: 119_999, ..all });
        assert!(
            message.contains("entry 2.bmp: the archive unpacks to more than 119999 bytes"),
            "{message}"
        );
        let written = place.path().join("bytes/2.bmp").metadata().unwrap().len();
        assert_eq!(written, 60_000, "no more than a byte above the limit is written");
        assert!(refused("entries", Limits { entries: 1, ..all }).contains("more than 1 files"));
    }
}

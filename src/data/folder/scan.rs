//! Reading folders of images: which entries are images, which are folders to go into, and what is
//! skipped.
//!
//! Links are followed wherever they lead. Within one class each folder is read once, so that links
//! in a circle end.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{BadImage, DataError};
use crate::skipped::{SkipReason, SkippedEntries, extension};

/// Extensions of images that are read.
pub(crate) const EXTENSIONS: [&str; 12] =
    ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "dib", "tif", "tiff", "apng"];

/// What systems put into folders for themselves, besides hidden files.
const SYSTEM: [&str; 7] = [
    "__MACOSX",
    "Thumbs.db",
    "desktop.ini",
    "@eaDir",
    "$RECYCLE.BIN",
    "System Volume Information",
    "lost+found",
];

/// The entries of a folder, each list ascending by name.
#[derive(Default)]
pub(crate) struct FolderEntries {
    pub images: Vec<OsString>,
    pub folders: Vec<OsString>,
    pub bad: Vec<BadImage>,
    pub skipped: SkippedEntries,
}

/// The images of a class.
#[derive(Default)]
pub(crate) struct ClassFiles {
    /// Paths below the class folder, parts joined by `/`, ascending by their bytes.
    pub images: Vec<Box<OsStr>>,
    pub bad: Vec<BadImage>,
    pub skipped: SkippedEntries,
}

/// Reads one folder. A link without an end is bad if it may have been meant: if it is named like an
/// image, or like a folder where `folders_count`.
pub(crate) fn entries(folder: &Path, folders_count: bool) -> Result<FolderEntries, DataError> {
    let error = |e| DataError::io("read the folder", folder)(e);
    let mut found = FolderEntries::default();
    for entry in fs::read_dir(folder).map_err(error)? {
        let entry = entry.map_err(error)?;
        let name = entry.file_name();
        if is_hidden(&name) {
            found.skipped.count(SkipReason::Hidden);
            continue;
        }
        let mut kind = entry.file_type().map_err(error)?;
        if kind.is_symlink() {
            let path = entry.path();
            match fs::metadata(&path) {
                Ok(end) => kind = end.file_type(),
                Err(_) if !(is_image(&name) || folders_count && extension(&name).is_empty()) => {
                    found.skipped.count(SkipReason::of_file(&name));
                    continue;
                }
                Err(error) => {
                    let to = fs::read_link(&path).unwrap_or_default();
                    let reason = format!("the link to {} leads nowhere: {error}", to.display());
                    found.bad.push(BadImage { file: path, reason });
                    continue;
                }
            }
        }
        if kind.is_dir() {
            found.folders.push(name);
        } else if !kind.is_file() {
            found.skipped.count(SkipReason::Special);
        } else if is_image(&name) {
            found.images.push(name);
        } else {
            found.skipped.count(SkipReason::of_file(&name));
        }
    }
    found.images.sort_unstable();
    found.folders.sort_unstable();
    Ok(found)
}

/// Whether an entry is hidden, or made by a system for itself.
pub(crate) fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
        || SYSTEM.iter().any(|system| name.eq_ignore_ascii_case(system))
}

/// Whether a name is that of an image that is read.
pub fn is_image(name: &OsStr) -> bool {
    EXTENSIONS.contains(&extension(name).as_str())
}

/// The images in `folder`, and in the folders below it if `recursive`. `above` is a folder that is
/// not read again.
pub(crate) fn images(
    folder: &Path,
    recursive: bool,
    above: Option<&Path>,
) -> Result<ClassFiles, DataError> {
    let end = |path: &Path| path.canonicalize().map_err(DataError::io("open the folder", path));
    let mut found = ClassFiles::default();
    let mut read: HashSet<PathBuf> = above.map(end).transpose()?.into_iter().collect();
    let mut ahead = vec![(folder.to_owned(), OsString::new())];
    while let Some((path, prefix)) = ahead.pop() {
        if !read.insert(end(&path)?) {
            found.skipped.count(SkipReason::ReadAlready);
            continue;
        }
        let entries = entries(&path, false)?;
        let below = |name: &OsStr| {
            let mut whole = prefix.clone();
            whole.push(name);
            whole
        };
        found.images.extend(entries.images.iter().map(|name| below(name).into_boxed_os_str()));
        found.bad.extend(entries.bad);
        found.skipped.extend(entries.skipped);
        if recursive {
            // The last of them is read first otherwise, and of two names for one folder the later
            // one would count.
            ahead.extend(entries.folders.iter().rev().map(|name| {
                let mut prefix = below(name);
                prefix.push("/");
                (path.join(name), prefix)
            }));
        } else {
            found.skipped.add(SkipReason::DeeperFolder, entries.folders.len());
        }
    }
    found.images.sort_unstable();
    Ok(found)
}

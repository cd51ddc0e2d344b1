//! Folders of images: one folder for each class, with image files in it.

use std::fs::{self, DirEntry};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::classes;
use super::dataset::Content;
use super::digest::{FieldDigest, sha256};
use super::error::DataError;
use super::images::Images;
use super::settings::DatasetSettings;

const EXTENSIONS: [&str; 4] = ["jpg", "jpeg", "png", "webp"];

/// Opens `root/<class>/*.{jpg,jpeg,png,webp}`. Classes and files are in the order of their names; hidden folders,
/// other files and deeper folders are passed over.
pub(crate) fn open(settings: &DatasetSettings, root: &Path) -> Result<Content, DataError> {
    read(settings, root, str::to_owned)
}

/// The same, with the classes named by `rename(folder's name)`.
pub(crate) fn read(
    settings: &DatasetSettings,
    root: &Path,
    rename: impl Fn(&str) -> String,
) -> Result<Content, DataError> {
    if !root.is_dir() {
        return Err(DataError::folder(
            root,
            "it is not there; set `root` to a folder that holds a folder per class",
        ));
    }
    let inside = root.canonicalize().map_err(DataError::io("open the folder", root))?;
    let folders = class_folders(root, &inside)?;
    if folders.is_empty() {
        let reason = "it holds no class folders; put the images of each class into a folder of its own";
        return Err(DataError::folder(root, reason));
    }
    let available: Vec<String> = folders.iter().map(|(name, _)| rename(name)).collect();
    let chosen = classes::select(settings.classes.as_ref(), &available)?;

    let (mut paths, mut labels) = (Vec::new(), Vec::new());
    for (label, class) in chosen.iter().enumerate() {
        let folder = &folders[*class].1;
        let images = image_files(folder, &inside)?;
        if images.is_empty() {
            let reason = "it holds no .jpg, .jpeg, .png or .webp file; add images or remove the folder";
            return Err(DataError::folder(folder, reason));
        }
        labels.extend(images.iter().map(|_| label as u32));
        paths.extend(images);
    }
    Ok(Content {
        class_names: chosen.iter().map(|class| available[*class].clone()).collect(),
        digest: digest(root, &paths)?,
        labels,
        images: Images::files(paths, settings.image_size),
    })
}

fn class_folders(root: &Path, inside: &Path) -> Result<Vec<(String, PathBuf)>, DataError> {
    let mut folders = Vec::new();
    for entry in sorted_entries(root)? {
        let path = resolve(&entry, inside)?;
        if !path.is_dir() {
            continue;
        }
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
            return Err(DataError::folder(
                &path,
                "its name is not UTF-8, so it cannot name a class; rename it",
            ));
        };
        folders.push((name, path));
    }
    Ok(folders)
}

fn image_files(folder: &Path, inside: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut files = Vec::new();
    for entry in sorted_entries(folder)? {
        let path = entry.path();
        let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
        if EXTENSIONS.contains(&extension.as_str()) && resolve(&entry, inside)?.is_file() {
            files.push(path);
        }
    }
    Ok(files)
}

/// The entries of `folder` that are not hidden, by name.
fn sorted_entries(folder: &Path) -> Result<Vec<DirEntry>, DataError> {
    let error = |e| DataError::io("read the folder", folder)(e);
    let mut entries = fs::read_dir(folder).map_err(error)?.collect::<Result<Vec<_>, _>>().map_err(error)?;
    entries.retain(|e| !e.file_name().as_encoded_bytes().starts_with(b"."));
    entries.sort_by_key(DirEntry::file_name);
    Ok(entries)
}

/// The path of an entry; an error if it is a link that leads out of the folder `inside`.
fn resolve(entry: &DirEntry, inside: &Path) -> Result<PathBuf, DataError> {
    let path = entry.path();
    if entry.file_type().map_err(DataError::io("read", &path))?.is_symlink() {
        let end = path.canonicalize().map_err(DataError::io("follow the link", &path))?;
        if !end.starts_with(inside) {
            let reason =
                format!("it is a link to {}, outside the data folder; copy the files in", end.display());
            return Err(DataError::folder(&path, reason));
        }
    }
    Ok(path)
}

/// Over every file's path below `root` (`/` between its parts) and content, in order.
fn digest(root: &Path, paths: &[PathBuf]) -> Result<String, DataError> {
    let contents: Vec<String> = paths
        .par_iter()
        .map(|path| fs::read(path).map(|bytes| sha256(&bytes)).map_err(DataError::io("read", path)))
        .collect::<Result<_, _>>()?;
    let mut digest = FieldDigest::new("image folder");
    for (path, content) in paths.iter().zip(contents) {
        let parts = path.strip_prefix(root).unwrap_or(path).components();
        let parts: Vec<_> = parts.map(|c| c.as_os_str().as_encoded_bytes()).collect();
        digest.field(parts.join(&b'/'));
        digest.field(content);
    }
    Ok(digest.finish())
}

//! Folders of images: one folder for each class, with image files in it.

use std::ffi::OsStr;
use std::fs::{self, FileType};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::classes;
use super::dataset::Content;
use super::digest::{FieldDigest, hex};
use super::error::DataError;
use super::images::{Files, Folder, Images};
use super::index::Index;
use super::progress::Progress;
use super::settings::DatasetSettings;

const EXTENSIONS: [&str; 4] = ["jpg", "jpeg", "png", "webp"];

/// Opens `root/<class>/*.{jpg,jpeg,png,webp}`. Classes and files are in the order of their names; hidden folders,
/// other files and deeper folders are passed over. `cache` is the project's folder of what can be made again.
pub(crate) fn open(
    settings: &DatasetSettings,
    root: &Path,
    cache: &Path,
    progress: &dyn Progress,
) -> Result<Content, DataError> {
    read(settings, root, cache, progress, str::to_owned)
}

/// The same, with the classes named by `rename(folder's name)`.
pub(crate) fn read(
    settings: &DatasetSettings,
    root: &Path,
    cache: &Path,
    progress: &dyn Progress,
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

    let known = AtomicUsize::new(0);
    let done = || progress.indexed(known.fetch_add(1, Ordering::Relaxed) + 1);
    let classes: Vec<Folder> = chosen
        .par_iter()
        .map(|class| {
            let path = &folders[*class].1;
            let names = image_files(path, &inside)?;
            if names.is_empty() {
                let reason = "it holds no .jpg, .jpeg, .png or .webp file; add images or remove the folder";
                return Err(DataError::folder(path, reason));
            }
            let index =
                Index::new(cache, &path.canonicalize().map_err(DataError::io("open the folder", path))?);
            Ok(Folder { digests: index.digests(path, &names, &done)?, path: path.clone(), index, names })
        })
        .collect::<Result<_, _>>()?;

    let (mut content, mut labels) = (FieldDigest::new("image folder"), Vec::new());
    let mut kept = FieldDigest::new("decoded images");
    kept.field(env!("CARGO_PKG_VERSION")); // the decoder may change with it
    kept.field(inside.as_os_str().as_encoded_bytes());
    kept.field((settings.image_size as u64).to_le_bytes());
    for (label, (class, folder)) in chosen.iter().zip(&classes).enumerate() {
        let class = folders[*class].0.as_bytes();
        kept.field(class);
        labels.extend(folder.names.iter().map(|_| label as u32));
        for (name, digest) in folder.names.iter().zip(&folder.digests) {
            content.field([class, name.as_encoded_bytes()].join(&b'/'));
            content.field(hex(digest));
        }
    }
    Ok(Content {
        class_names: chosen.iter().map(|class| available[*class].clone()).collect(),
        digest: content.finish(),
        labels,
        images: Images::Files(Files::new(
            classes,
            cache.join("images").join(&kept.finish()[..32]),
            settings.image_size,
        )),
    })
}

fn class_folders(root: &Path, inside: &Path) -> Result<Vec<(String, PathBuf)>, DataError> {
    let mut folders = Vec::new();
    for (name, kind) in sorted_entries(root, |_| true)? {
        let path = root.join(&*name);
        if !kind.is_dir() && !leads_to(&path, kind, inside, Path::is_dir)? {
            continue;
        }
        let Some(name) = name.to_str().map(str::to_owned) else {
            return Err(DataError::folder(
                &path,
                "its name is not UTF-8, so it cannot name a class; rename it",
            ));
        };
        folders.push((name, path));
    }
    Ok(folders)
}

/// The names of the image files in a folder, ascending.
fn image_files(folder: &Path, inside: &Path) -> Result<Vec<Box<OsStr>>, DataError> {
    let wanted = |name: &OsStr| {
        let extension = Path::new(name).extension().unwrap_or_default().to_string_lossy().to_lowercase();
        EXTENSIONS.contains(&extension.as_str())
    };
    let mut files = Vec::new();
    for (name, kind) in sorted_entries(folder, wanted)? {
        if kind.is_file() || leads_to(&folder.join(&*name), kind, inside, Path::is_file)? {
            files.push(name);
        }
    }
    Ok(files)
}

/// Names and types of the entries of `folder` that are not hidden and `wanted`, by name.
fn sorted_entries(
    folder: &Path,
    wanted: impl Fn(&OsStr) -> bool,
) -> Result<Vec<(Box<OsStr>, FileType)>, DataError> {
    let error = |e| DataError::io("read the folder", folder)(e);
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(error)? {
        let entry = entry.map_err(error)?;
        let name = entry.file_name();
        if !name.as_encoded_bytes().starts_with(b".") && wanted(&name) {
            entries.push((name.into_boxed_os_str(), entry.file_type().map_err(error)?));
        }
    }
    entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok(entries)
}

/// Whether `path`, an entry of this type, is a link to what `is_it` finds; an error if it leads out of the folder `inside`.
fn leads_to(path: &Path, kind: FileType, inside: &Path, is_it: fn(&Path) -> bool) -> Result<bool, DataError> {
    if !kind.is_symlink() {
        return Ok(false);
    }
    let end = path.canonicalize().map_err(DataError::io("follow the link", path))?;
    if !end.starts_with(inside) {
        let reason = format!("it is a link to {}, outside the data folder; copy the files in", end.display());
        return Err(DataError::folder(path, reason));
    }
    Ok(is_it(&end))
}

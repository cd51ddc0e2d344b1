//! Reading the image files of a folder: their classes, their digests, and those that cannot be
//! read.

use std::ffi::OsStr;
use std::io;
use std::iter::repeat_n;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::scan::{self, ClassFiles};
use crate::cache::CacheFolder;
use crate::cache::file_digests::{ContentDigest, FileDigests};
use crate::digest::{FieldDigest, hex};
use crate::error::{BadImage, DataError};
use crate::folder::layout::{self, Class};
use crate::folder::nearest::nearest_place;
use crate::images::files::{Folder, ImageFiles, ImageRoot, Images};
use crate::images::resize::ResizeOptions;
use crate::progress::Progress;
use crate::skipped::{SkipReason, SkippedEntries};
use crate::source::{SourceContent, SourceOptions};

/// Reads a folder, with the classes named by `rename(folder's name)`.
pub(crate) fn read_class_folders(
    options: &SourceOptions<'_>,
    root: &Path,
    cache: &CacheFolder,
    progress: &dyn Progress,
    rename: impl Fn(&str) -> String,
) -> Result<SourceContent, DataError> {
    if root.is_file() {
        let reason = "it is a file; set `root` to a folder that holds a folder per class";
        return Err(DataError::folder(root, reason));
    }
    if !root.is_dir() {
        let what = match nearest_place(root) {
            Some(near) => format!("did you mean {}?", near.display()),
            None => "set `root` to a folder that holds a folder per class, or images".to_owned(),
        };
        return Err(DataError::folder(root, format!("it is not there; {what}")));
    }
    read_folder(options, root, root, cache, progress, rename)
}

/// Reads the folder `root`, which was unpacked from the file `archive`.
pub(crate) fn read_unpacked(
    options: &SourceOptions<'_>,
    root: &Path,
    archive: &Path,
    cache: &CacheFolder,
    progress: &dyn Progress,
) -> Result<SourceContent, DataError> {
    read_folder(options, root, archive, cache, progress, str::to_owned)
}

/// Reads the folder `root`, which people know as `display`.
fn read_folder(
    options: &SourceOptions<'_>,
    root: &Path,
    display: &Path,
    cache: &CacheFolder,
    progress: &dyn Progress,
    rename: impl Fn(&str) -> String,
) -> Result<SourceContent, DataError> {
    let inside = root.canonicalize().map_err(DataError::io("open the folder", root))?;
    let layout = layout::of(root, root != display, options.recursive)?;
    let (mut skipped, mut unreadable) = (layout.skipped, layout.bad);
    if layout.classes.is_empty() && unreadable.is_empty() {
        let reason = format!(
            "it holds no images{}; put them into it, or those of each class into a folder of its own",
            instead(&skipped)
        );
        return Err(DataError::folder(display, reason));
    }
    let available: Vec<String> = layout.classes.iter().map(|class| rename(&class.name)).collect();
    let chosen = options.classes.select(&available, &[])?;
    let folders: Vec<&Class> = chosen.iter().map(|class| &layout.classes[*class]).collect();

    let known = AtomicUsize::new(0);
    let done = || progress.indexed(known.fetch_add(1, Ordering::Relaxed) + 1);
    let found = folders
        .par_iter()
        .map(|class| find(class, root, options.recursive))
        .collect::<Result<Vec<ClassFiles>, DataError>>()?;
    refuse_empty(display, &folders, &found)?;
    let digests = folders
        .par_iter()
        .zip(&found)
        .map(|(class, found)| {
            let index = FileDigests::new(cache, &key(class, options.recursive)?);
            let digests = index.digests(&class.folder, &found.images, &done);
            Ok((index, digests))
        })
        .collect::<Result<Vec<_>, DataError>>()?;
    let mut classes = Vec::new();
    for ((class, found), (index, digests)) in folders.iter().zip(found).zip(digests) {
        skipped.extend(found.skipped);
        unreadable.extend(found.bad);
        let (names, digests) = readable(&class.folder, found.images, digests, &mut unreadable);
        classes.push(Folder { path: class.folder.clone(), file_digests: index, names, digests });
    }

    let (digest, decoded_key) = content_digests(&inside, &options.resize, &folders, &classes);
    let labels =
        classes.iter().zip(0..).flat_map(|(folder, label)| repeat_n(label, folder.names.len()));
    let labels = labels.collect();
    let image_root = ImageRoot {
        path: root.to_owned(),
        display: display.to_owned(),
        cache: cache.clone(),
        skipped,
        unreadable,
    };
    let decoded_path = cache.join("images").join(&decoded_key[..32]);
    Ok(SourceContent {
        class_names: chosen.iter().map(|class| available[*class].clone()).collect(),
        digest,
        labels,
        images: Images::Files(Box::new(ImageFiles::new(
            classes,
            decoded_path,
            &options.resize,
            image_root,
        ))),
    })
}

/// The digest of the data set, and that of what decides how its images look once decoded and where
/// they were read.
fn content_digests(
    inside: &Path,
    resize: &ResizeOptions,
    folders: &[&Class],
    classes: &[Folder],
) -> (String, String) {
    let mut content = FieldDigest::new("image folder");
    let mut decoded = FieldDigest::new("decoded images");
    decoded.field(env!("CARGO_PKG_VERSION")); // the decoder may change with it
    decoded.field(inside.as_os_str().as_encoded_bytes());
    decoded.field((resize.size as u64).to_le_bytes());
    for (class, folder) in folders.iter().zip(classes) {
        let class = class.name.as_bytes();
        decoded.field(class);
        for (name, digest) in folder.names.iter().zip(&folder.digests) {
            content.field([class, name.as_encoded_bytes()].join(&b'/'));
            content.field(hex(digest));
        }
    }
    for field in resize.fields() {
        content.field(field);
        decoded.field(field);
    }
    (content.finish(), decoded.finish())
}

/// The images of a class.
pub(super) fn find(class: &Class, root: &Path, recursive: bool) -> Result<ClassFiles, DataError> {
    match &class.images {
        Some(images) => Ok(ClassFiles { images: images.clone(), ..ClassFiles::default() }),
        None => scan::images(&class.folder, recursive, Some(root)),
    }
}

/// What the index of a class's files goes by: no two lists of files have the same.
fn key(class: &Class, recursive: bool) -> Result<PathBuf, DataError> {
    let folder =
        class.folder.canonicalize().map_err(DataError::io("open the folder", &class.folder))?;
    Ok(match (&class.images, recursive) {
        (Some(_), _) => folder.join("class").join(&class.name).join("*"),
        (None, true) => folder.join("**"),
        (None, false) => folder,
    })
}

/// The files that could be read, and their digests. The others go to `unreadable`.
fn readable(
    folder: &Path,
    names: Vec<Box<OsStr>>,
    digests: Vec<io::Result<ContentDigest>>,
    unreadable: &mut Vec<BadImage>,
) -> (Vec<Box<OsStr>>, Vec<ContentDigest>) {
    let mut read = (Vec::with_capacity(names.len()), Vec::with_capacity(names.len()));
    for (name, digest) in names.into_iter().zip(digests) {
        match digest {
            Ok(digest) => {
                read.0.push(name);
                read.1.push(digest);
            }
            Err(error) => {
                let reason = format!("it cannot be read: {error}");
                unreadable.push(BadImage { file: folder.join(&*name), reason });
            }
        }
    }
    read
}

/// Refuses class folders without an image, all of them at once.
fn refuse_empty(root: &Path, classes: &[&Class], found: &[ClassFiles]) -> Result<(), DataError> {
    let empty: Vec<_> = classes
        .iter()
        .zip(found)
        .filter(|(_, found)| found.images.is_empty() && found.bad.is_empty())
        .collect();
    let Some((first, of_first)) = empty.first() else { return Ok(()) };
    let deeper = empty
        .iter()
        .any(|(_, found)| found.skipped.iter().any(|(k, _)| *k == SkipReason::DeeperFolder));
    let or = if deeper { "; `recursive: true` reads deeper folders" } else { "" };
    if empty.len() == 1 {
        let path = match first.folder.strip_prefix(root) {
            Ok(_) => first.folder.clone(),
            Err(_) => root.join(&first.name),
        };
        let reason = format!(
            "it holds no image{}; add images or remove the folder{or}",
            instead(&of_first.skipped)
        );
        return Err(DataError::folder(&path, reason));
    }
    let names: Vec<&str> = empty.iter().take(10).map(|(class, _)| class.name.as_str()).collect();
    let more = if empty.len() > names.len() { ", …" } else { "" };
    let reason = format!(
        "{} class folders hold no image: {}{more}; add images or remove the folders{or}",
        empty.len(),
        names.join(", ")
    );
    Err(DataError::folder(root, reason))
}

/// What is there in the place of images.
fn instead(skipped: &SkippedEntries) -> String {
    if skipped.is_empty() { String::new() } else { format!(", but {skipped}") }
}

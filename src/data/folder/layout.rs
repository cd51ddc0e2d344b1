//! How a folder of images is laid out: a folder for each class, all images in one, or as a file of
//! labels says.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::labels::{self, Label, LabelFile};
use super::scan::{self, ClassFiles, FolderEntries};
use crate::error::{BadImage, DataError};
use crate::skipped::{SkipReason, SkippedEntries};

/// The class of images that have none. Not the folder's name: a folder that moves is the same data.
const NO_CLASS: &str = "images";

/// The classes of a folder, and what lies beside them.
pub(super) struct Layout {
    pub classes: Vec<Class>,
    pub skipped: SkippedEntries,
    pub bad: Vec<BadImage>,
}

/// A class before it is read.
pub(super) struct Class {
    pub name: String,
    /// The folder that its images lie in.
    pub folder: PathBuf,
    /// Its images, where they are known already.
    pub images: Option<Vec<Box<OsStr>>>,
}

/// The layout of `root`. In an archive, folders named as EDM's tool names them are no classes.
pub(super) fn of(root: &Path, is_archive: bool, recursive: bool) -> Result<Layout, DataError> {
    if let Some(file) = labels::read(root, is_archive)? {
        return labelled(root, file);
    }
    let mut top = scan::entries(root, true)?;
    let (classes, circles) = class_folders(root, &top)?;
    top.skipped.add(SkipReason::ReadAlready, circles);
    if is_archive && are_numbered(root, &top)? {
        return Ok(flat(root, scan::images(root, true, None)?));
    }
    let is_flat =
        classes.is_empty() || (!top.images.is_empty() && !holds_images(&classes, recursive)?);
    if !is_flat {
        top.skipped.add(SkipReason::BesideClasses, top.images.len());
        return Ok(Layout { classes, skipped: top.skipped, bad: top.bad });
    }
    let kind = if recursive { SkipReason::EmptyFolder } else { SkipReason::DeeperFolder };
    top.skipped.add(kind, classes.len());
    let images = top.images.into_iter().map(|name| name.into_boxed_os_str()).collect();
    Ok(flat(root, ClassFiles { images, bad: top.bad, skipped: top.skipped }))
}

/// All images in one class, or no class if there is none.
fn flat(root: &Path, found: ClassFiles) -> Layout {
    let ClassFiles { images, bad, skipped } = found;
    let is_empty = images.is_empty() && bad.is_empty();
    let class = Class { name: NO_CLASS.to_owned(), folder: root.to_owned(), images: Some(images) };
    Layout { classes: if is_empty { Vec::new() } else { vec![class] }, skipped, bad }
}

/// The folders in `root`, and how many lead back to `root` or above it.
fn class_folders(root: &Path, top: &FolderEntries) -> Result<(Vec<Class>, usize), DataError> {
    let inside = root.canonicalize().map_err(DataError::io("open the folder", root))?;
    let (mut classes, mut circles) = (Vec::new(), 0);
    for name in &top.folders {
        let folder = root.join(name);
        let end = folder.canonicalize().map_err(DataError::io("open the folder", &folder))?;
        if inside.starts_with(&end) {
            circles += 1;
            continue;
        }
        let Some(name) = name.to_str().map(str::to_owned) else {
            let reason = "its name is not UTF-8, so it cannot name a class; rename it";
            return Err(DataError::folder(&folder, reason));
        };
        classes.push(Class { name, folder, images: None });
    }
    Ok((classes, circles))
}

fn holds_images(classes: &[Class], recursive: bool) -> Result<bool, DataError> {
    for class in classes {
        let found = scan::images(&class.folder, recursive, None)?;
        if !found.images.is_empty() || !found.bad.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether these are the folders of EDM's tool: `00000/img00000000.png`.
fn are_numbered(root: &Path, top: &FolderEntries) -> Result<bool, DataError> {
    let is_number = |text: &str, digits: usize| {
        text.len() == digits && text.bytes().all(|b| b.is_ascii_digit())
    };
    let is_numbered = |name: &OsStr| {
        let stem = Path::new(name).file_stem().and_then(OsStr::to_str);
        stem.and_then(|stem| stem.strip_prefix("img")).is_some_and(|number| is_number(number, 8))
    };
    let folders =
        top.folders.iter().map(|name| name.to_str().is_some_and(|name| is_number(name, 5)));
    if top.folders.is_empty() || !top.images.is_empty() || !folders.into_iter().all(|is| is) {
        return Ok(false);
    }
    for name in &top.folders {
        if !scan::images(&root.join(name), false, None)?.images.iter().all(|name| is_numbered(name))
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A class for each label, named by it.
fn labelled(root: &Path, file: LabelFile) -> Result<Layout, DataError> {
    let mut found = scan::images(root, true, None)?;
    found.skipped.take(&SkipReason::of_file(OsStr::new(file.name)));
    let Some(labels) = file.labels else { return Ok(flat(root, found)) };
    let mut ahead: HashSet<Box<OsStr>> = found.images.drain(..).collect();
    let mut classes: BTreeMap<Label, Vec<Box<OsStr>>> = BTreeMap::new();
    for (image, label) in labels {
        match ahead.take(OsStr::new(&image)) {
            Some(image) => classes.entry(label).or_default().push(image),
            None => {
                let name = file.name;
                let reason =
                    format!("{name} gives it a label, and it is not there, or stands there twice");
                found.bad.push(BadImage { file: root.join(image), reason });
            }
        }
    }
    found.skipped.add(SkipReason::Unlabelled, ahead.len());
    let class = |(label, mut images): (Label, Vec<Box<OsStr>>)| {
        images.sort_unstable();
        Class { name: label.to_string(), folder: root.to_owned(), images: Some(images) }
    };
    Ok(Layout {
        classes: classes.into_iter().map(class).collect(),
        skipped: found.skipped,
        bad: found.bad,
    })
}

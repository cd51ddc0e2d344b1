//! What a folder of images holds, by names and headers alone: which classes, how many images of
//! each, how large. No image is decoded, and no file is read as a whole but one that images are packed in.

use std::path::{Path, PathBuf};

use pipe_fs::ProjectRoot;

use super::layout;
use super::read::find;
use crate::archive::packed::Packed;
use crate::cache::CacheFolder;
use crate::error::DataError;
use crate::images::decode::{ImageHeader, header};
use crate::settings::DatasetSettings;
use crate::skipped::SkippedEntries;

/// What a folder holds before anything of it is opened.
#[derive(Debug, Clone, Default)]
pub struct FolderSurvey {
    /// In the order of their labels, with those that hold no image.
    pub classes: Vec<ClassSurvey>,
    pub skipped: SkippedEntries,
    /// The headers of some images, evenly chosen from all. Those that cannot be read are left out.
    pub headers: Vec<ImageHeader>,
}

/// A class of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassSurvey {
    pub name: String,
    pub images: usize,
}

/// Looks at the folder, zip or parquet files of a data set from `image_folder`; a relative `root` starts at
/// `project`. Reads at most `headers` headers.
///
/// # Errors
/// A folder that is not there or cannot be read, and a file that cannot be unpacked.
pub fn survey(
    settings: &DatasetSettings,
    project: &ProjectRoot,
    headers: usize,
) -> Result<FolderSurvey, DataError> {
    let root = settings.root_in(project);
    let folder = match Packed::at(&root)? {
        Some(packed) => packed.unpacked(&CacheFolder::of(project))?,
        None => root.clone(),
    };
    let layout = layout::of(&folder, folder != root, settings.recursive)?;
    let (mut found, mut files) =
        (FolderSurvey { skipped: layout.skipped, ..FolderSurvey::default() }, Vec::new());
    for class in &layout.classes {
        let images = find(class, &folder, settings.recursive)?;
        let name = class.name.clone();
        found.classes.push(ClassSurvey { name, images: images.images.len() + images.bad.len() });
        found.skipped.extend(images.skipped);
        files.extend(images.images.iter().map(|image| class.folder.join(&**image)));
    }
    found.headers = chosen(&files, headers).filter_map(header).collect();
    Ok(found)
}

/// At most `most` of the files, evenly chosen.
fn chosen(files: &[PathBuf], most: usize) -> impl Iterator<Item = &Path> {
    let count = files.len().min(most);
    (0..count).map(move |i| files[i * files.len() / count].as_path())
}

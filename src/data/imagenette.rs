//! Imagenette (fast.ai): ten easily told classes of ImageNet, in the version with a shorter side of
//! 160 pixels.

use std::path::Path;

use super::archives::Published;
use super::dataset::Content;
use super::error::DataError;
use super::folder;
use super::progress::Progress;
use super::settings::DatasetSettings;
use super::unpack::{self, Limits};

const ARCHIVE: Published = Published {
    file: "imagenette2-160.tgz",
    url: "https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz",
    md5: "e793b78cc4c9e9a4ccc0c1155377a412",
};
const FOLDER: &str = "imagenette2-160";
/// What [`open`] reads, in the folder of the data set: the one or the other.
pub(super) const PATHS: [&str; 2] = [FOLDER, ARCHIVE.file];

/// The archive names its folders by WordNet's numbers.
const NAMES: [(&str, &str); 10] = [
    ("n01440764", "tench"),
    ("n02102040", "English springer"),
    ("n02979186", "cassette player"),
    ("n03000684", "chain saw"),
    ("n03028079", "church"),
    ("n03394916", "French horn"),
    ("n03417042", "garbage truck"),
    ("n03425413", "gas pump"),
    ("n03445777", "golf ball"),
    ("n03888257", "parachute"),
];

/// Whether the images are there, unpacked.
pub(super) fn is_unpacked(root: &Path) -> bool {
    root.join(FOLDER).is_dir()
}

/// Whether nothing needs to be downloaded.
pub(super) fn is_there(root: &Path) -> bool {
    is_unpacked(root) || root.join(ARCHIVE.file).is_file()
}

/// Opens the training images, unpacked once into `root/imagenette2-160`.
pub(crate) fn open(
    settings: &DatasetSettings,
    root: &Path,
    cache: &Path,
    progress: &dyn Progress,
) -> Result<Content, DataError> {
    let folder = root.join(FOLDER);
    if !folder.is_dir() {
        let archive = ARCHIVE.obtain(settings, root, progress)?;
        if let Some(md5) = unpack::unpack(&archive, &folder, Limits::default())? {
            ARCHIVE.compare(&archive, &md5);
        }
    }
    unpack::tidy(&folder)?;
    let name = |folder: &str| {
        NAMES.iter().find(|(id, _)| *id == folder).map_or(folder, |(_, name)| name).to_owned()
    };
    folder::read(settings, &folder.join("train"), cache, progress, name)
}

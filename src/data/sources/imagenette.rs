//! Imagenette (fast.ai): ten easily told classes of ImageNet, in the version with a shorter side of
//! 160 pixels.

use std::path::{Path, PathBuf};

use crate::archive::published::PublishedArchive;
use crate::archive::unpack::{self, Limits};
use crate::error::DataError;
use crate::folder::read::read_class_folders;
use crate::progress::Progress;
use crate::source::{Availability, DataSource, Location, SourceContent, SourceOptions};
use crate::split::PublishedSplit;

const ARCHIVE: PublishedArchive = PublishedArchive {
    file: "imagenette2-160.tgz",
    url: "https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz",
    md5: "e793b78cc4c9e9a4ccc0c1155377a412",
};
const FOLDER: &str = "imagenette2-160";

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

pub(super) static IMAGENETTE: Imagenette = Imagenette;

pub(super) struct Imagenette;

impl DataSource for Imagenette {
    fn name(&self) -> &'static str {
        "imagenette"
    }

    fn description(&self) -> &'static str {
        "Imagenette, 160-pixel version: about 9 500 training photos in 10 classes."
    }

    fn has_photos(&self) -> bool {
        true
    }

    fn class_count(&self) -> Option<usize> {
        Some(NAMES.len())
    }

    fn input_paths(&self, _: &SourceOptions<'_>, root: &Path) -> Vec<PathBuf> {
        [FOLDER, ARCHIVE.file].map(|path| root.join(path)).to_vec()
    }

    fn has_test_images(&self) -> bool {
        true
    }

    fn availability(&self, _: &SourceOptions<'_>, root: &Path) -> Availability {
        if root.join(FOLDER).is_dir() {
            Availability::Ready
        } else if root.join(ARCHIVE.file).is_file() {
            Availability::Packed
        } else {
            Availability::Missing
        }
    }

    /// Opens the images of the wanted split, unpacked once into `imagenette2-160`.
    fn open(
        &self,
        options: &SourceOptions<'_>,
        location: &Location<'_>,
        progress: &dyn Progress,
    ) -> Result<SourceContent, DataError> {
        let Location { root, cache } = *location;
        let folder = root.join(FOLDER);
        if !folder.is_dir() {
            let archive = ARCHIVE.find_or_download(options, location, progress)?;
            if let Some(md5) = unpack::unpack(cache.disk(), &archive, &folder, Limits::default())? {
                ARCHIVE.warn_if_modified(&archive, &md5);
            }
        }
        unpack::remove_leftovers(cache.disk(), &folder)?;
        let name = |folder: &str| {
            NAMES.iter().find(|(id, _)| *id == folder).map_or(folder, |(_, name)| name).to_owned()
        };
        let images = match options.split {
            PublishedSplit::Train => "train",
            PublishedSplit::Test => "val",
        };
        read_class_folders(options, &folder.join(images), cache, progress, name)
    }
}

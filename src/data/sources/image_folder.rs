//! Images of one's own: a folder for each class, all in one folder, a zip file of either, or parquet
//! files.

use std::path::{Path, PathBuf};

use crate::archive::packed::Packed;
use crate::error::DataError;
use crate::folder::read::{read_class_folders, read_unpacked};
use crate::folder::scan::EXTENSIONS;
use crate::progress::Progress;
use crate::source::{DataSource, Location, SourceContent, SourceOptions};

pub(super) static IMAGE_FOLDER: ImageFolder = ImageFolder;

pub(super) struct ImageFolder;

impl DataSource for ImageFolder {
    fn name(&self) -> &'static str {
        "image_folder"
    }

    fn description(&self) -> &'static str {
        "Your own images, JPEG, PNG, WebP, GIF, BMP or TIFF: one folder for each class, or all in one folder, zip file or parquet files."
    }

    fn has_photos(&self) -> bool {
        true
    }

    fn has_user_folders(&self) -> bool {
        true
    }

    // Whoever has the folder says whether its images are to judge by.
    fn has_test_images(&self) -> bool {
        true
    }

    fn has_user_named_classes(&self) -> bool {
        true
    }

    /// The class folders and the images in the places that are read: other files beside them do not
    /// count.
    fn input_paths(&self, options: &SourceOptions<'_>, root: &Path) -> Vec<PathBuf> {
        let classes = options.classes.names().map(|name| root.join(name.to_string()));
        let flat = EXTENSIONS.iter().map(|extension| root.join(format!("*.{extension}")));
        let deep = options.recursive.then(|| root.join("**").join("*"));
        let packed = Packed::paths(root);
        classes.chain([root.join("*").join("*")]).chain(flat).chain(deep).chain(packed).collect()
    }

    /// Classes and files are in the order of their names; what is no image of a class is skipped
    /// and counted.
    fn open(
        &self,
        options: &SourceOptions<'_>,
        location: &Location<'_>,
        progress: &dyn Progress,
    ) -> Result<SourceContent, DataError> {
        let Location { root, cache } = *location;
        match Packed::at(root)? {
            Some(packed) => read_unpacked(options, &packed.unpacked(cache)?, root, cache, progress),
            None => read_class_folders(options, root, cache, progress, str::to_owned),
        }
    }
}

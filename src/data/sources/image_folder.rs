//! Images of one's own: a folder for each class, all in one folder, or a zip file of either.

use std::path::{Path, PathBuf};

use crate::archive::unzip;
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
        "Your own images, JPEG, PNG, WebP, GIF, BMP or TIFF: one folder for each class, or all in one folder or zip file."
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
        let zip = is_zip(root).then(|| root.to_owned());
        classes.chain([root.join("*").join("*")]).chain(flat).chain(deep).chain(zip).collect()
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
        if !root.is_file() {
            return read_class_folders(options, root, cache, progress, str::to_owned);
        }
        if !is_zip(root) {
            let reason = "it is a file; set `root` to a folder or a .zip file";
            return Err(DataError::folder(root, reason));
        }
        let unpacked = unzip::unpacked(root, cache)?;
        read_unpacked(options, &unpacked, root, cache, progress)
    }
}

fn is_zip(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("zip"))
}

//! Where the pixels of a data set are, and getting one image of them.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use image::RgbImage;
use sha2::{Digest, Sha256};

use super::decode;
use super::resize::ResizeOptions;
use crate::cache::CacheFolder;
use crate::cache::decoded_images::DecodedImages;
use crate::cache::file_digests::{ContentDigest, FileDigests};
use crate::cache::file_lists::ListedFile;
use crate::error::{BadImage, DataError};
use crate::skipped::SkippedEntries;

/// Bytes of the largest file that is read: more than any image that is decoded.
const MAX_BYTES: u64 = 1 << 30;

/// All images of a data set.
pub(crate) enum Images {
    /// Square images, all of one size, not always the size asked for.
    Memory(Vec<RgbImage>),
    /// Files, decoded when first asked for.
    Files(Box<ImageFiles>),
}

/// Image files in folders.
pub(crate) struct ImageFiles {
    folders: Vec<Folder>,
    /// The number of the image after the last of each folder.
    folder_ends: Vec<usize>,
    /// Where decoded images are kept, if anywhere; opened with the first image that is asked for.
    decoded: OnceLock<Option<DecodedImages>>,
    decoded_path: PathBuf,
    /// Bytes of a decoded image.
    bytes: usize,
    pub root: ImageRoot,
}

/// The image files of one folder.
pub(crate) struct Folder {
    pub path: PathBuf,
    /// What is known of its files.
    pub file_digests: FileDigests,
    pub names: Vec<Box<OsStr>>,
    pub digests: Vec<ContentDigest>,
}

/// Where files come from, and what else is there.
pub(crate) struct ImageRoot {
    /// The folder that is read.
    pub path: PathBuf,
    /// What people know it by: itself, or the zip file that it was unpacked from.
    pub display: PathBuf,
    /// The project's folder of what can be made again.
    pub cache: CacheFolder,
    pub skipped: SkippedEntries,
    /// Images that could not even be opened; they have no number.
    pub unreadable: Vec<BadImage>,
}

impl ImageFiles {
    /// Images are numbered through the folders. `decoded_path` is the file for decoded images.
    pub fn new(
        folders: Vec<Folder>,
        decoded_path: PathBuf,
        resize: &ResizeOptions,
        root: ImageRoot,
    ) -> Self {
        let mut count = 0;
        let folder_ends = folders.iter().map(|folder| {
            count += folder.names.len();
            count
        });
        let folder_ends = folder_ends.collect();
        let bytes = 3 * resize.size * resize.size;
        Self { folders, folder_ends, decoded: OnceLock::new(), decoded_path, bytes, root }
    }

    /// Every image, in order; `classes` are the names of the folders' classes.
    pub fn listing(&self, classes: &[String]) -> Vec<ListedFile> {
        let folders = self.folders.iter().zip(classes);
        let images = folders.flat_map(|(folder, class)| {
            let named = |name: &OsStr| [class.as_bytes(), name.as_encoded_bytes()].join(&b'/');
            folder.names.iter().map(move |name| named(name)).zip(folder.digests.iter().copied())
        });
        images.collect()
    }

    fn decoded(&self) -> Option<&DecodedImages> {
        let open = || {
            DecodedImages::open(
                self.root.cache.disk(),
                self.decoded_path.clone(),
                self.len(),
                self.bytes,
            )
        };
        self.decoded.get_or_init(open).as_ref()
    }

    pub fn len(&self) -> usize {
        self.folder_ends.last().copied().unwrap_or(0)
    }

    /// The digest of the file of image `index`.
    pub fn content(&self, index: usize) -> &ContentDigest {
        let (folder, position) = self.find(index);
        &folder.digests[position]
    }

    /// Decodes image `index`, unless that was done before. The error is the one of [`Images::get`].
    pub fn check(&self, index: usize, resize: &ResizeOptions) -> Result<(), DataError> {
        if self.decoded().is_some() {
            return self.get(index, resize).map(|_| ());
        }
        let (folder, position) = self.find(index);
        let bytes = self.read(folder, position)?;
        decode::check(&bytes).map_err(|reason| self.bad(folder, position, reason))
    }

    fn get(&self, index: usize, resize: &ResizeOptions) -> Result<Vec<u8>, DataError> {
        let (folder, position) = self.find(index);
        let content = &folder.digests[position];
        if let Some(pixels) = self.decoded().and_then(|decoded| decoded.get(index, content)) {
            return Ok(pixels);
        }
        let bytes = self.read(folder, position)?;
        let pixels =
            decode::square(&bytes, resize).map_err(|reason| self.bad(folder, position, reason))?;
        if let Some(decoded) = self.decoded() {
            decoded.put(index, content, &pixels);
        }
        Ok(pixels.into_vec())
    }

    /// The file of image `index`, as people know it.
    pub fn path(&self, index: usize) -> PathBuf {
        let (folder, position) = self.find(index);
        self.root.display_path(&folder.path.join(&*folder.names[position]))
    }

    /// The folder of image `index`, and its position there.
    fn find(&self, index: usize) -> (&Folder, usize) {
        let number = self.folder_ends.partition_point(|end| *end <= index);
        let folder = &self.folders[number];
        (folder, index + folder.names.len() - self.folder_ends[number])
    }

    /// The content of a file, which must be what it was when the data set was opened.
    fn read(&self, folder: &Folder, position: usize) -> Result<Vec<u8>, DataError> {
        let path = folder.path.join(&*folder.names[position]);
        let size = fs::metadata(&path).map_err(DataError::io("look at", &path))?.len();
        if size > MAX_BYTES {
            let reason = format!("it has {} MB; up to {} MB are read", size >> 20, MAX_BYTES >> 20);
            return Err(self.bad(folder, position, reason));
        }
        let bytes = fs::read(&path).map_err(DataError::io("read", &path))?;
        if Sha256::digest(&bytes)[..] != folder.digests[position][..] {
            folder.file_digests.forget();
            return Err(DataError::Changed { file: path });
        }
        Ok(bytes)
    }

    fn bad(&self, folder: &Folder, position: usize, reason: String) -> DataError {
        DataError::Image {
            file: self.root.display_path(&folder.path.join(&*folder.names[position])),
            reason,
        }
    }
}

impl ImageRoot {
    /// The path of a file as people know it.
    pub fn display_path(&self, file: &Path) -> PathBuf {
        match file.strip_prefix(&self.path) {
            Ok(below) => self.display.join(below),
            Err(_) => file.to_owned(),
        }
    }
}

impl Images {
    /// Image `index` as RGB bytes `[size, size, 3]`; `framing` must be the same in every call.
    /// Fails if a file cannot be read or decoded, or is not what it was when the data set was
    /// opened.
    pub fn get(&self, index: usize, resize: &ResizeOptions) -> Result<Cow<'_, [u8]>, DataError> {
        match self {
            Self::Memory(images) if images[index].width() as usize == resize.size => {
                Ok(Cow::Borrowed(images[index].as_raw()))
            }
            Self::Memory(images) => Ok(Cow::Owned(resize.square(&images[index]).into_vec())),
            Self::Files(files) => Ok(Cow::Owned(files.get(index, resize)?)),
        }
    }
}

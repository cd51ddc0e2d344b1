//! Where the pixels of a data set are, and getting one image of them.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use image::RgbImage;
use sha2::{Digest, Sha256};

use super::decode;
use super::decoded::Decoded;
use super::error::DataError;
use super::index::{ContentDigest, Index};

/// All images of a data set.
pub(crate) enum Images {
    /// Square images, all of one size, not always the size asked for.
    Memory(Vec<RgbImage>),
    /// Files, decoded when first asked for.
    Files(Files),
}

/// Image files in folders.
pub(crate) struct Files {
    folders: Vec<Folder>,
    /// The number of the image after the last of each folder.
    ends: Vec<usize>,
    /// Where decoded images are kept, if anywhere.
    decoded: Option<Decoded>,
}

/// The image files of one folder.
pub(crate) struct Folder {
    pub path: PathBuf,
    /// What is known of its files.
    pub index: Index,
    pub names: Vec<Box<OsStr>>,
    pub digests: Vec<ContentDigest>,
}

impl Files {
    /// Images are numbered through the folders. `kept` is the file for decoded images of `[size, size, 3]`.
    pub fn new(folders: Vec<Folder>, kept: PathBuf, size: usize) -> Self {
        let mut count = 0;
        let ends = folders.iter().map(|folder| {
            count += folder.names.len();
            count
        });
        let ends = ends.collect();
        Self { folders, ends, decoded: Decoded::open(kept, count, 3 * size * size) }
    }

    pub fn len(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    fn get(&self, index: usize, size: usize) -> Result<Vec<u8>, DataError> {
        let number = self.ends.partition_point(|end| *end <= index);
        let folder = &self.folders[number];
        let place = index + folder.names.len() - self.ends[number];
        let content = &folder.digests[place];
        if let Some(pixels) = self.decoded.as_ref().and_then(|decoded| decoded.get(index, content)) {
            return Ok(pixels);
        }
        let pixels = folder.decode(&folder.path.join(&*folder.names[place]), content, size)?;
        if let Some(decoded) = &self.decoded {
            decoded.put(index, content, &pixels);
        }
        Ok(pixels.into_vec())
    }
}

impl Folder {
    fn decode(&self, path: &Path, content: &ContentDigest, size: usize) -> Result<Box<[u8]>, DataError> {
        let bytes = fs::read(path).map_err(DataError::io("read", path))?;
        if Sha256::digest(&bytes)[..] != content[..] {
            self.index.forget();
            return Err(DataError::Changed { file: path.to_owned() });
        }
        decode::square(path, &bytes, size)
    }
}

impl Images {
    /// Image `index` as RGB bytes `[size, size, 3]`; `size` must be the same in every call. Fails if a file cannot be
    /// read or decoded, or is not what it was when the data set was opened.
    pub fn get(&self, index: usize, size: usize) -> Result<Cow<'_, [u8]>, DataError> {
        match self {
            Self::Memory(images) if images[index].width() as usize == size => {
                Ok(Cow::Borrowed(images[index].as_raw()))
            }
            Self::Memory(images) => Ok(Cow::Owned(decode::central_square(&images[index], size).into_vec())),
            Self::Files(files) => Ok(Cow::Owned(files.get(index, size)?)),
        }
    }
}

//! Where the pixels of a data set are, and getting one image of them.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::OnceLock;

use image::RgbImage;

use super::decode;
use super::error::DataError;

/// Decoded images of one data set are kept in memory when they take less than this together.
const CACHE_BYTES: usize = 1 << 30;

/// All images of a data set.
pub(crate) enum Images {
    /// Square images, all of one size, not always the size asked for.
    Memory(Vec<RgbImage>),
    /// Files, decoded when first asked for; and again each time, when all would not fit into memory.
    Files { paths: Vec<PathBuf>, cache: Option<Vec<OnceLock<Box<[u8]>>>> },
}

impl Images {
    /// Files that will be decoded to `[size, size, 3]`.
    pub fn files(paths: Vec<PathBuf>, size: usize) -> Self {
        let fits = paths.len().saturating_mul(3 * size * size) < CACHE_BYTES;
        let cache = fits.then(|| paths.iter().map(|_| OnceLock::new()).collect());
        Self::Files { paths, cache }
    }

    /// Image `index` as RGB bytes `[size, size, 3]`; `size` must be the same in every call.
    pub fn get(&self, index: usize, size: usize) -> Result<Cow<'_, [u8]>, DataError> {
        match self {
            Self::Memory(images) if images[index].width() as usize == size => {
                Ok(Cow::Borrowed(images[index].as_raw()))
            }
            Self::Memory(images) => Ok(Cow::Owned(decode::central_square(&images[index], size).into_vec())),
            Self::Files { paths, cache: None } => {
                Ok(Cow::Owned(decode::load(&paths[index], size)?.into_vec()))
            }
            Self::Files { paths, cache: Some(cache) } => {
                if let Some(pixels) = cache[index].get() {
                    return Ok(Cow::Borrowed(pixels));
                }
                let pixels = decode::load(&paths[index], size)?;
                Ok(Cow::Borrowed(cache[index].get_or_init(|| pixels)))
            }
        }
    }
}
